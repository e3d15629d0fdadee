"""KVG-Bench as published: one ``kvg-bench.parquet`` of 1,336 cases (paper v3, section 3.2)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.formats.parquet import ParquetPart, columns_of, parts_of, write_rows
from kvg.formats.published import answer_text, make_sample, raw_image, safe_key
from kvg.formats.written_boxes import Reading
from kvg.records import text_of
from kvg.text.prompts import question
from kvg.types import Sample

COLUMNS: Final = ("question_id", "category", "question", "answer", "image")


class KVGBench:
    """The benchmark as a store of one part a row group; ``split`` follows from the category.

    Args:
        path: the parquet file.
        reading: what is declared of the boxes.

    Raises:
        DataError: the file is missing, damaged, empty, or lacks a column.
    """

    def __init__(self, path: str | Path, reading: Reading | None = None) -> None:
        self.path, self.reading = Path(path), reading or Reading()
        columns, self._rows = columns_of(self.path)
        for name in COLUMNS:
            if name not in columns:
                raise DataError(str(self.path), name, f"no such column among {columns}; give KVG-Bench's parquet")

    def parts(self) -> Sequence[ParquetPart]:
        """See ``SampleStore``."""
        return parts_of(self.path, self._rows, self.sample)

    def sample(self, number: int, row: Mapping[str, Any]) -> Sample:
        """Makes a sample of one row.

        Args:
            number: of the row in the file.
            row: its columns.

        Raises:
            DataError: a column is empty or wrong.
        """
        where = f"{self.path} row {number}"
        question_id, category, question_text, answer = (text_of(where, row, name) for name in COLUMNS[:4])
        key = key_of(question_id)
        image = raw_image(where, row["image"])
        sample = make_sample(where, key, category, image, question_text, answer, {}, self.reading)
        return dataclasses.replace(sample, question_id=question_id)


def key_of(question_id: str) -> str:
    """A question's name as a key, with a checksum where another name could lead to the same one.

    >>> key_of("bird/0012"), key_of("bird/0012.jpg"), key_of("bird/0012 jpg")
    ('bird-0012', 'bird-0012-jpg-5d76105d', 'bird-0012-jpg-222f0803')
    """
    key = safe_key(question_id)
    if key.replace("-", "/", 1) == question_id:  # what the dash stands for is plain
        return key
    return f"{key}-{hashlib.sha256(question_id.encode()).hexdigest()[:8]}"


def write_kvg_bench(samples: Iterable[Sample], path: str | Path) -> int:
    """Writes samples in the benchmark's format; returns the number of rows."""
    rows = [
        {
            "question_id": f"{sample.category}/{sample.key}",
            "category": sample.category,
            "question": question(sample.entity),
            "answer": answer_text(sample),
            "image": {"bytes": sample.image},
        }
        for sample in samples
    ]
    return write_rows(path, rows)
