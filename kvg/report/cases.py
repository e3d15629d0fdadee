"""Answers of one stage to the test set, read from the ``predictions.jsonl`` that ``kvg test`` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from kvg.boxes import MISSING_BOX, iou
from kvg.errors import DataError
from kvg.types import Box

STAGES: Final = {
    "base": "Base",
    "direct_sft": "Direct SFT",
    "cot_sft": "CoT-SFT",
    "cot_sft_grpo": "CoT-SFT + GRPO",
}
IOU_GATE: Final = 0.5  # an answer with at least this overlap is right (paper v3 section 5.1)


@dataclass(frozen=True)
class Case:
    """One question, the answer to it, and the truth. Boxes are in pixels of the stored picture."""

    key: str
    category: str
    split: str
    knowledge: str
    entity: str
    text: str
    box_px: Box | None
    target_px: Box
    iou: float

    @property
    def right(self) -> bool:
        """Whether the answer counts; one that could not be read does not."""
        return self.iou >= IOU_GATE


def read_predictions(run: str | Path) -> list[Case]:
    """Reads the answers of a run.

    Args:
        run: folder with ``predictions.jsonl`` (or one such file per process), or the file itself.

    Returns:
        Each key once, in the order of the files.

    Raises:
        DataError: there is no such file, or a line is wrong.
    """
    run = Path(run)
    files = [run] if run.is_file() else sorted(run.glob("predictions*.jsonl"))
    if not files:
        raise DataError(str(run), "predictions.jsonl", "is not there; run `kvg test` with this default_root_dir")
    cases: dict[str, Case] = {}
    for path in files:
        for case in _lines(path):
            cases.setdefault(case.key, case)
    if not cases:
        raise DataError(str(run), "predictions.jsonl", "holds no answer; run `kvg test` again")
    return list(cases.values())


def _lines(path: Path) -> Iterator[Case]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield _case(json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            remedy = f"cannot be used ({error!r}); run `kvg test` again"
            raise DataError(f"{path} line {number}", "prediction", remedy) from error


def _case(record: dict[str, Any]) -> Case:
    box, target = record["box_px"], _box(record["target_px"])
    answer = None if box is None else _box(box)
    overlap = float(iou(torch.tensor([answer or MISSING_BOX]), torch.tensor([target]))[0])
    words = {name: str(record[name]) for name in ("key", "category", "split", "knowledge", "entity", "text")}
    return Case(**words, box_px=answer, target_px=target, iou=overlap)


def _box(values: Any) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2
