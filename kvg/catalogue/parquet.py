"""Sources that are Hugging Face parquet files with pictures and labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvg.box_forms import BoxesOf, BoxForm, BoxFormat, BoxUnit
from kvg.catalogue.listing import BoxRules, FileSource, Listed, Listing, Unusable, skipped_files
from kvg.catalogue.walking import is_hidden, walk
from kvg.errors import ConfigError, DataError
from kvg.records import excerpt


class Parquet(FileSource):
    """Hugging Face parquet files, with pictures as ``{bytes, path}`` and labels as names or numbers.

    Args:
        root: folder of the files.
        category: category of all pictures.
        image: column of the picture.
        label: column of the entity.
        names: names of numbered labels; by default those of the file's Hugging Face metadata.
        pattern: glob pattern of the files, relative to ``root``.
        box: column of the box, one per picture; '' if there is none.
        box_unit: ``pixels``, ``relative_1000`` (0-1000 over width and height) or ``unit`` (0-1).
        box_format: ``xyxy`` (two corners), ``xywh`` (corner, width, height) or ``cxcywh`` (centre, width, height).
        boxes_of: ``upright`` or ``raw``, see ``BoxRules``.

    Raises:
        ConfigError: a setting is outside its range.
        DataError: the folder does not exist, or no file matches the pattern.
    """

    def __init__(
        self,
        root: str | Path,
        category: str,
        image: str = "image",
        label: str = "label",
        names: Sequence[str] | None = None,
        pattern: str = "**/*.parquet",
        box: str = "",
        box_unit: BoxUnit = "pixels",
        box_format: BoxFormat = "xyxy",
        boxes_of: BoxesOf = "upright",
    ) -> None:
        super().__init__(root)
        self.category, self.image, self.label, self.box = category, image, label, box
        if names is not None and (isinstance(names, str) or not isinstance(names, Sequence)):
            raise ConfigError("names", f"{excerpt(names)} is no list of names")
        self.names = names
        self.rules = BoxRules(BoxForm(box_unit, box_format), boxes_of, several="reject")
        try:
            matches = [(path, path.relative_to(self.root).parts) for path in sorted(self.root.glob(pattern))]
        except (ValueError, NotImplementedError) as error:
            raise ConfigError("pattern", f"{pattern!r} is no pattern of files ({error}); correct it") from error
        self.files = [path for path, parts in matches if not any(map(is_hidden, parts))]
        if not self.files:
            raise DataError(str(self.root), "pattern", f"'{pattern}' finds no file; correct it")

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``. The part is the start of the file's name: ``train`` in ``train-00000-of-00003``."""
        yield from skipped_files(walk(self.root), self.root)
        for path in self.files:
            names, labels, boxes = self._columns(path)
            part = path.stem.partition("-")[0]
            for row, (label, box) in enumerate(zip(labels, boxes, strict=True)):
                ref = f"{path.relative_to(self.root).as_posix()}#{row}"
                try:
                    entity = _entity(ref, self.label, label, names)
                    if box is not None:
                        self.rules.form.numbers(box, ref, self.box)
                except DataError as error:
                    yield Unusable(ref, error.field, error.remedy)
                else:
                    yield Listing(ref, entity, self.category, box, part, rules=self.rules)

    def read(self, ref: str) -> bytes:
        """See ``PictureSource``."""
        name, _, row = ref.rpartition("#")
        column = _column(str(self.root / name), self.image)
        if not row.isdecimal() or int(row) >= len(column):
            raise DataError(ref, "row", "is no row of its file; scan again")
        return _bytes(column[int(row)].as_py(), ref, self.image)

    def _columns(self, path: Path) -> tuple[Sequence[Any] | None, list[Any], list[Any]]:
        """Returns the names of numbered labels, and the labels and boxes of a file."""
        import pyarrow as pa  # takes long to import, and few sources are parquet files
        import pyarrow.parquet as pq  # as above

        try:
            file = pq.ParquetFile(path)
            columns = file.schema_arrow.names
            missing = {name for name in (self.image, self.label, self.box) if name} - set(columns)
            if missing:
                raise DataError(str(path), ", ".join(sorted(missing)), f"is missing; name one of {', '.join(columns)}")
            names = self.names if self.names is not None else _class_names(file.schema_arrow.metadata, self.label)
            labels = file.read([self.label]).column(0).to_pylist()
            boxes = file.read([self.box]).column(0).to_pylist() if self.box else [None] * len(labels)
        except _faults(pa) as error:
            raise DataError(str(path), "parquet", f"cannot be read ({error}); fetch it again") from error
        if names is None and any(isinstance(label, int) and not isinstance(label, bool) for label in labels):
            raise DataError(str(path), self.label, "holds numbers without names; give `names`")
        return names, labels, boxes

    @staticmethod
    def pictures(path: Path, image: str = "image") -> Iterator[tuple[str, bytes | DataError]]:
        """Yields the name and content of each picture of one file, or an error for a row without a picture.

        Raises:
            DataError: the file cannot be read.
        """
        for row, value in enumerate(_column(str(path), image)):
            name = f"{path}#{row}"
            try:
                yield name, _bytes(value.as_py(), name, image)
            except DataError as error:
                yield name, error


def _entity(ref: str, field: str, label: Any, names: Sequence[Any] | None) -> str:
    if isinstance(label, int) and not isinstance(label, bool):
        if names is None or not 0 <= label < len(names):
            raise DataError(ref, field, f"{excerpt(label)} has no name among {len(names or ())}; correct it or `names`")
        label = str(names[label])
    if not isinstance(label, str) or not label.strip():
        raise DataError(ref, field, f"{excerpt(label)} is neither a name nor the number of one; correct it")
    return label.replace("_", " ")


def _bytes(value: Any, name: str, field: str) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DataError(name, field, "holds no bytes; embed the pictures")
    return data


def _column(path: str, name: str) -> Any:
    """Reads a column of a file; the cache of columns notices if the file has changed."""
    try:
        state = Path(path).stat()
    except (OSError, ValueError) as error:
        raise DataError(path, "file", f"cannot be opened ({error}); correct the path") from error
    return _read_column(path, name, (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=2)  # rows are read in order, and a file may be large
def _read_column(path: str, name: str, state: tuple[int, int]) -> Any:
    import pyarrow as pa  # takes long to import, and few sources are parquet files
    import pyarrow.parquet as pq  # as above

    try:
        return pq.read_table(path, columns=[name], memory_map=True).column(0)
    except _faults(pa) as error:
        raise DataError(path, name, f"cannot be read ({error}); fetch the file again, or name the column") from error


def _faults(pa: Any) -> tuple[type[Exception], ...]:
    """Returns the exceptions that reading a damaged file raises, also for text that is not UTF-8."""
    return OSError, ValueError, IndexError, pa.ArrowException


def _class_names(metadata: Mapping[bytes, bytes] | None, label: str) -> Sequence[str] | None:
    try:
        record = json.loads((metadata or {})[b"huggingface"])
        names = record["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None
