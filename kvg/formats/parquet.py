"""Reading parquet files row by row; pyarrow is an extra and imported only here, when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.formats.published import good_samples
from kvg.shards.reader import Tally
from kvg.types import Sample


def columns_of(path: str | Path) -> tuple[list[str], list[int]]:
    """Names of the columns, and the number of rows of each row group.

    Raises:
        DataError: pyarrow is not installed, or the file is missing, damaged or empty.
    """
    file = _open(Path(path))
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    if not sum(rows):
        raise DataError(str(path), "rows", "there are none; give a file that holds some")
    return list(file.schema_arrow.names), rows


@dataclass(frozen=True)
class ParquetPart:
    """One row group of a parquet file as a ``SamplePart``.

    Attributes:
        path: the file.
        index: of the row group.
        start: number of rows before it.
        num_samples: its rows.
        build: makes a sample of (row number in the file, row), or raises ``DataError``.
    """

    path: Path
    index: int
    start: int
    num_samples: int
    build: Callable[[int, Mapping[str, Any]], Sample]

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """See ``SamplePart``."""
        for number, sample in good_samples(enumerate(self._rows(), self.start), self.build, tally):
            yield number - self.start, sample

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        # Few rows at a time, since they hold images.
        for batch in _open(self.path).iter_batches(batch_size=32, row_groups=[self.index]):
            yield from batch.to_pylist()


def parts_of(
    path: Path, rows: Sequence[int], build: Callable[[int, Mapping[str, Any]], Sample]
) -> Sequence[ParquetPart]:
    """The row groups of a file, given the number of rows of each."""
    starts = accumulate(rows, initial=0)
    return [ParquetPart(path, i, start, num, build) for i, (start, num) in enumerate(zip(starts, rows, strict=False))]


def write_rows(path: str | Path, rows: list[dict[str, Any]]) -> int:
    """Writes rows to a parquet file; returns their number.

    Raises:
        DataError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow(str(path))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), str(path), row_group_size=256)
    return len(rows)


def _open(path: Path) -> Any:
    arrow, parquet = _pyarrow(str(path))
    if not path.is_file():
        raise DataError(str(path), "file", "does not exist; correct the path")
    try:
        return parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(str(path), "parquet", f"cannot be read ({error}); copy it again") from error


def _pyarrow(where: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(where, "pyarrow", "is not installed; run `pip install pyarrow`") from error
    return pyarrow, pyarrow.parquet
