"""The published format of KVG-Bench: one ``kvg-bench.parquet`` with 1,336 cases (paper v3, section 3.2)."""

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
    """The benchmark as a store with one part per row group; the category determines ``split``.

    Args:
        path: the parquet file.
        reading: declared unit and frame of the boxes.

    Raises:
        DataError: the file is missing, damaged, empty, or lacks a column.
    """

    def __init__(self, path: str | Path, reading: Reading | None = None) -> None:
        self.path, self.reading = Path(path), reading or Reading()
        columns, self._rows = columns_of(self.path)
        for name in COLUMNS:
            if name not in columns:
                raise DataError(
                    str(self.path), name, f"is missing from the columns {columns}; give KVG-Bench's parquet"
                )

    def parts(self) -> Sequence[ParquetPart]:
        """See ``SampleStore``."""
        return parts_of(self.path, self._rows, self.sample)

    def sample(self, number: int, row: Mapping[str, Any]) -> Sample:
        """Converts one row to a sample.

        Args:
            number: index of the row in the file.
            row: values by column.

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
    """Converts a question's name to a key; adds a checksum if another name could give the same key.

    >>> key_of("bird/0012"), key_of("bird/0012.jpg"), key_of("bird/0012 jpg")
    ('bird-0012', 'bird-0012-jpg-5d76105d', 'bird-0012-jpg-222f0803')
    """
    key = safe_key(question_id)
    if key.replace("-", "/", 1) == question_id:  # the conversion can be reversed, so the key is unique
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
