"""Reads parquet files row by row. pyarrow is an optional dependency, imported only when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.formats.published import good_samples
from kvg.shards.reader import Tally
from kvg.types import Sample

_ROWS: Final = 32  # rows that are decoded together


def columns_of(path: str | Path) -> tuple[list[str], list[int]]:
    """Returns the names of the columns, and the number of rows of each row group.

    Raises:
        DataError: pyarrow is not installed, or the file is missing, damaged or empty.
    """
    file = _open(Path(path))
    names = list(file.schema_arrow.names)
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(str(path), duplicates[0], "is the name of two columns; keep the right one")
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    if not sum(rows):
        raise DataError(str(path), "rows", "are missing; give a file with rows")
    return names, rows


@dataclass(frozen=True)
class ParquetPart:
    """One row group of a parquet file as a ``SamplePart``.

    Attributes:
        path: the file.
        index: index of the row group.
        start: number of rows before it.
        num_samples: number of its rows.
        build: converts (row number in the file, row) to a sample, or raises ``DataError``.
    """

    path: Path
    index: int
    start: int
    num_samples: int
    build: Callable[[int, Mapping[str, Any]], Sample]

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """See ``SamplePart``. If a part is damaged, the rest of it is skipped and counted once."""
        tally = Tally() if tally is None else tally
        for number, sample in good_samples(self._rows(tally), self.build, tally):
            yield number - self.start, sample

    def _rows(self, tally: Tally) -> Iterator[tuple[int, Mapping[str, Any]]]:
        number = self.start
        try:
            # Small batches, since rows contain images.
            for batch in _open(self.path).iter_batches(batch_size=_ROWS, row_groups=[self.index]):
                for index in range(batch.num_rows):
                    (row,) = batch.slice(index, 1).to_pylist()
                    yield number, row
                    number += 1
        except _damages() as error:
            remedy = f"are damaged from row {number} on ({' '.join(str(error).split())[:200]}); copy the file again"
            tally.note(
                DataError(str(self.path), f"rows {self.start} to {self.start + self.num_samples - 1}", remedy), cut=True
            )


def parts_of(
    path: Path, rows: Sequence[int], build: Callable[[int, Mapping[str, Any]], Sample]
) -> Sequence[ParquetPart]:
    """Returns the row groups of a file, given the number of rows of each."""
    starts = accumulate(rows, initial=0)
    return [ParquetPart(path, i, start, num, build) for i, (start, num) in enumerate(zip(starts, rows, strict=False))]


def write_rows(path: str | Path, rows: list[dict[str, Any]], boxes: Sequence[str] = ()) -> int:
    """Writes rows to a parquet file; returns their number.

    Args:
        path: the file.
        rows: with the same columns each.
        boxes: columns that hold four numbers or None, whose type is then the same if all rows have None.

    Raises:
        DataError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow(str(path))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    table = arrow.Table.from_pylist(rows)
    for name in boxes:
        column = table[name].cast(arrow.list_(arrow.float64()))
        table = table.set_column(table.column_names.index(name), name, column)
    parquet.write_table(table, str(path), row_group_size=256)
    return len(rows)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Reads all rows of a small file.

    Raises:
        DataError: pyarrow is not installed, or the file is missing or damaged.
    """
    try:
        rows: list[dict[str, Any]] = _open(Path(path)).read().to_pylist()
    except _damages() as error:
        raise DataError(str(path), "parquet", f"is damaged ({error}); remove it") from error
    return rows


def _open(path: Path) -> Any:
    _, parquet = _pyarrow(str(path))
    if not path.is_file():
        raise DataError(str(path), "file", "does not exist; correct the path")
    try:
        return parquet.ParquetFile(path)
    except _damages() as error:
        raise DataError(str(path), "parquet", f"cannot be read ({error}); copy it again") from error


def _damages() -> tuple[type[Exception], ...]:
    """Returns the exceptions that pyarrow raises on a damaged file, also on invalid UTF-8 and dates out of range."""
    arrow, _ = _pyarrow("parquet")
    return arrow.ArrowException, OSError, ValueError, OverflowError, NotImplementedError


def _pyarrow(where: str) -> tuple[Any, Any]:
    try:
        import pyarrow  # takes long to import, and few sets are parquet files
        import pyarrow.parquet  # as above
    except ImportError as error:
        raise DataError(where, "pyarrow", "is not installed; run `pip install pyarrow`") from error
    return pyarrow, pyarrow.parquet
