"""The published format of stage 2: v2's ``grpo-*.parquet`` and v3's ``verl-grpo-*.parquet``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.formats.parquet import ParquetPart, columns_of, parts_of, write_rows
from kvg.formats.published import answer_text, category_of_file, make_sample, raw_image, safe_key
from kvg.formats.written_boxes import Reading
from kvg.records import excerpt, list_of, object_of, text_of
from kvg.text.prompts import prompt
from kvg.types import Sample

V2_COLUMNS: Final = ("image", "problem", "solution")
VERL_COLUMNS: Final = ("prompt", "images", "reward_model")


class GRPOParquet:
    """A GRPO parquet as a store with one part per row group.

    v2 has the columns ``image``, ``problem``, ``solution``; v3 has verl's ``prompt`` (turns), ``images`` (bytes),
    ``data_source``, ``reward_model.ground_truth`` and ``extra_info``.

    Args:
        path: the file.
        category: category of all samples; by default the part of the file name after ``grpo-`` or ``verl-grpo-``.
        reading: declared unit and frame of the boxes.

    Raises:
        DataError: the file is missing, damaged, empty, or has other columns.
    """

    def __init__(self, path: str | Path, category: str | None = None, reading: Reading | None = None) -> None:
        self.path, self.reading = Path(path), reading or Reading()
        self.category = category or category_of_file(self.path, "verl-grpo-", "grpo-")
        columns, self._rows = columns_of(self.path)
        self.is_verl = set(VERL_COLUMNS) <= set(columns)
        if not self.is_verl and not set(V2_COLUMNS) <= set(columns):
            raise DataError(str(self.path), "columns", f"{columns} contain neither {V2_COLUMNS} nor {VERL_COLUMNS}")

    def parts(self) -> Sequence[ParquetPart]:
        """See ``SampleStore``."""
        return parts_of(self.path, self._rows, self.sample)

    def sample(self, position: int, row: Mapping[str, Any]) -> Sample:
        """Converts one row to a sample.

        Raises:
            DataError: a column is empty or wrong.
        """
        where = f"{self.path} row {position}"
        question, answer, image = (_verl if self.is_verl else _v2)(where, row)
        key = f"{safe_key(self.path.stem)}-{position:06d}"
        provenance = {"file": self.path.name, "row": position}
        return make_sample(where, key, self.category, image, question, answer, provenance, self.reading)


def write_grpo_parquet(samples: Iterable[Sample], path: str | Path, *, verl: bool = False, mode: str = "think") -> int:
    """Writes a GRPO parquet.

    Args:
        samples: samples to write; their rationales are left out.
        path: the file.
        verl: writes v3's columns instead of v2's.
        mode: prompt template of the question.

    Returns:
        Number of rows.
    """
    return write_rows(path, [(_verl_row if verl else _v2_row)(sample, mode) for sample in samples])


def _v2_row(sample: Sample, mode: str) -> dict[str, Any]:
    image = {"bytes": sample.image, "path": None}
    return {
        "image": image,
        "problem": prompt(sample.entity, mode),
        "solution": f"<answer>{answer_text(sample)}</answer>",
    }


def _verl_row(sample: Sample, mode: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": f"<image>{prompt(sample.entity, mode)}"}],
        "images": [{"bytes": sample.image}],
        "data_source": "kvg",
        "reward_model": {"style": "rule", "ground_truth": answer_text(sample)},
        "extra_info": {"category": sample.category, "key": sample.key},
    }


def _v2(where: str, row: Mapping[str, Any]) -> tuple[str, str, bytes]:
    problem, solution = text_of(where, row, "problem"), text_of(where, row, "solution")
    return problem, solution, raw_image(where, row["image"])


def _verl(where: str, row: Mapping[str, Any]) -> tuple[str, str, bytes]:
    reward_model = object_of(where, "reward_model", row["reward_model"])
    answer = text_of(f"{where} reward_model", reward_model, "ground_truth")
    images = list_of(where, "images", row["images"])
    if len(images) != 1:
        raise DataError(where, "images", f"holds {len(images)} pictures; give one a row")
    turns = [object_of(where, f"prompt[{i}]", turn) for i, turn in enumerate(list_of(where, "prompt", row["prompt"]))]
    user_turns = [turn for turn in turns if turn.get("role") == "user"]
    if len(user_turns) != 1 or turns[-1] is not user_turns[0]:
        roles = ", ".join(excerpt(turn.get("role"), 20) for turn in turns) or "none"
        raise DataError(where, "prompt", f"holds the turns {roles}; give one user turn, the last one")
    return _words(f"{where} prompt", user_turns[0]), answer, raw_image(where, images[0], "images")


def _words(where: str, turn: Mapping[str, Any]) -> str:
    """Returns the text of a turn. Its content is a text, or a list of pictures and texts."""
    content = turn.get("content")
    if not isinstance(content, list):
        return text_of(where, turn, "content")
    parts = [object_of(where, f"content[{number}]", part) for number, part in enumerate(content)]
    texts = [text_of(where, part, "text") for part in parts if part.get("type") == "text" or part.get("text")]
    if not texts:
        raise DataError(where, "content", "holds no text; write the question there")
    return "".join(texts)
