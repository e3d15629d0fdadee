"""Lists of pictures: CSV, JSON and JSON lines, COCO annotations, and Hugging Face parquet files."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvg.catalogue.listing import FileSource, Listing
from kvg.errors import DataError


class Table(FileSource):
    """A list with one picture a row: ``path``, ``entity``, ``category``, and if known ``box``, ``part``, ``licence``.

    Args:
        path: a ``.csv`` with a header, a ``.json`` list of objects, or ``.jsonl``. A box is four numbers
            (x1, y1, x2, y2, pixels); in CSV they stand in ``x1``, ``y1``, ``x2``, ``y2``.
        root: folder that paths are relative to; by default the list's own.
        columns: ``{ours: theirs}`` where the list uses other words.
        category: of all rows, where the list has no such column.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        category: str = "",
    ) -> None:
        self.path = Path(path)
        super().__init__(root if root is not None else self.path.parent)
        self.columns, self.category = dict(columns or {}), category
        if not self.path.is_file():
            raise DataError(str(self.path), "list", "is missing; correct the path")

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        for row in self._rows():
            values = {ours: row.get(self.columns.get(ours, ours)) for ours in (*_TEXTS, "box", *_CORNERS)}
            corners = [values[corner] for corner in _CORNERS]
            box = values["box"] or (corners if any(corner not in (None, "") for corner in corners) else None)
            texts = {name: str(values[name] or "").strip() for name in _TEXTS}
            texts["category"] = texts["category"] or self.category
            yield Listing(ref=texts.pop("path"), box=box, **texts)

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        try:
            text = self.path.read_text("utf-8-sig")
            if self.path.suffix == ".csv":
                yield from csv.DictReader(text.splitlines())
                return
            lines = text.splitlines() if self.path.suffix == ".jsonl" else []
            rows = [json.loads(line) for line in lines if line.strip()] if lines else json.loads(text)
        except ValueError as error:
            raise DataError(str(self.path), "list", f"cannot be read ({error}); correct it") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(str(self.path), "list", "is not a list of objects; write one object a picture")
        yield from rows


_TEXTS, _CORNERS = ("path", "entity", "category", "part", "licence"), ("x1", "y1", "x2", "y2")


class Coco(FileSource):
    """COCO annotations, of which pictures with exactly one box are taken: others hold several entities.

    The entity is the annotation's category, our category its ``supercategory``.

    Args:
        path: the JSON.
        root: folder that ``file_name`` is relative to.
        supercategories: ``{supercategory: category}``, the only ones that are taken; None for all.
        part: that these pictures belong to.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        supercategories: Mapping[str, str] | None = None,
        part: str = "",
    ) -> None:
        super().__init__(root)
        self.path, self.part = Path(path), part
        self.supercategories = dict(supercategories) if supercategories is not None else None

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        try:
            record = json.loads(self.path.read_text("utf-8"))
            names = {entry["id"]: entry for entry in record["categories"]}
            licences = {entry["id"]: entry.get("name") or entry.get("url", "") for entry in record.get("licenses", [])}
            found = defaultdict(list)
            for entry in record["annotations"]:
                found[entry["image_id"]].append(entry)
            for image in record["images"]:
                entries = found[image["id"]]
                if len(entries) != 1:
                    continue
                kind = names[entries[0]["category_id"]]
                category = str(kind.get("supercategory", ""))
                if self.supercategories is not None:
                    if category not in self.supercategories:
                        continue
                    category = self.supercategories[category]
                box = None
                if "bbox" in entries[0]:
                    x, y, width, height = entries[0]["bbox"]
                    box = (x, y, x + width, y + height)
                licence = str(licences.get(image.get("license"), ""))
                yield Listing(str(image["file_name"]), str(kind["name"]), category, box, self.part, licence)
        except OSError as error:
            raise DataError(str(self.path), "annotations", f"cannot be opened ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(str(self.path), "annotations", f"are not COCO's ({error!r}); correct them") from error


class Parquet(FileSource):
    """Hugging Face parquet files, with pictures as ``{bytes, path}`` and labels as names or numbers.

    Args:
        root: folder of the files.
        category: of all of them.
        image: column of the picture.
        label: column of the entity.
        names: of numbered labels; by default those that the file's own Hugging Face metadata hold.
        pattern: which files.
    """

    def __init__(
        self,
        root: str | Path,
        category: str,
        image: str = "image",
        label: str = "label",
        names: Sequence[str] | None = None,
        pattern: str = "**/*.parquet",
    ) -> None:
        super().__init__(root)
        self.category, self.image, self.label, self.names = category, image, label, names
        self.files = sorted(self.root.glob(pattern))
        if not self.files:
            raise DataError(str(self.root), "pattern", f"'{pattern}' finds no file; correct it")

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``; the part is the beginning of a file's name, as in ``train-00000-of-00003``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self.files:
            try:
                file = pq.ParquetFile(path)
                missing = {self.image, self.label} - set(file.schema_arrow.names)
                if missing:
                    remedy = f"is missing; name one of {', '.join(file.schema_arrow.names)}"
                    raise DataError(str(path), ", ".join(sorted(missing)), remedy)
                names = self.names or _class_names(file.schema_arrow.metadata, self.label)
                labels = file.read([self.label]).column(0).to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise DataError(str(path), "parquet", f"cannot be read ({error}); fetch it again") from error
            part = path.stem.partition("-")[0]
            for row, label in enumerate(labels):
                ref = f"{path.relative_to(self.root).as_posix()}#{row}"
                if isinstance(label, int):
                    if names is None:
                        raise DataError(str(path), self.label, f"is a number ({label}) without a name; give `names`")
                    label = names[label] if 0 <= label < len(names) else ""
                yield Listing(ref, str(label or "").replace("_", " "), self.category, part=part)

    def read(self, ref: str) -> bytes:
        """See ``PictureSource``."""
        name, _, row = ref.rpartition("#")
        return _bytes(_column(str(self.root / name), self.image)[int(row)].as_py(), ref, self.image)

    @staticmethod
    def pictures(path: Path, image: str = "image") -> Iterator[bytes]:
        """The pictures of one file, whatever else is in it.

        Raises:
            DataError: it cannot be read, or a row holds no picture.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            column = pq.read_table(path, columns=[image]).column(0)
        except (OSError, pa.ArrowException, IndexError) as error:
            raise DataError(str(path), image, f"cannot be read ({error}); fetch the file again") from error
        yield from (_bytes(value.as_py(), f"{path}#{row}", image) for row, value in enumerate(column))


def _bytes(value: Any, name: str, field: str) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DataError(name, field, "holds no bytes; embed the pictures")
    return data


@lru_cache(maxsize=2)  # rows are asked for in order, and a file may be large
def _column(path: str, name: str) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=[name], memory_map=True).column(0)


def _class_names(metadata: Mapping[bytes, bytes] | None, label: str) -> Sequence[str] | None:
    try:
        record = json.loads((metadata or {})[b"huggingface"])
        names = record["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(name) for name in names]
