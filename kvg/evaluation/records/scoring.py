"""Scores an answer: parses a box or an option, and compares it with the ground truth.

``strict`` reads only the answer block, with the backbone's box convention; training uses the same parser.
``published-v2`` and ``published-v3`` reproduce the evaluations published with the paper's versions
(``kvg.text.published_parsers``), so that figures can be compared with the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from kvg.boxes import MISSING_BOX, iou
from kvg.errors import DataError
from kvg.evaluation.records.fields import box_numbers, boxes_of, sides_field, text_field, whole_number
from kvg.records import excerpt
from kvg.text.answer import read_answer
from kvg.text.box_codec import GRID, AbsoluteCodec, BoxCodec, ImageSize, RelativeCodec, to_norm
from kvg.text.choices import parse_choice
from kvg.text.completion import parse_completion
from kvg.text.prompts import LETTERS
from kvg.text.published_parsers import Version, read_published
from kvg.types import Box, Completion

IOU_GATE: Final = 0.5  # smallest IoU of a correct answer (paper v3, section 5.1)
STRICT: Final = "strict"
CODECS: Final[dict[str, BoxCodec]] = {"relative": RelativeCodec(), "absolute": AbsoluteCodec()}
_GRID: Final = ImageSize(GRID, GRID, GRID, GRID)  # makes the codecs return boxes on the 0-1000 grid


@dataclass(frozen=True)
class Score:
    """The parsed and scored answer.

    Attributes:
        box: on the 0-1000 grid; for an unparsed answer None, or zeros from a published parser.
        pattern: 1-based number of the pattern that matched; 0 = none.
        iou: highest IoU with the true boxes.
        correct: the verdict.
        chosen: index of the chosen option; None if it is unparsed, and for box questions.
    """

    box: Box | None
    pattern: int
    iou: float
    correct: bool
    chosen: int | None = None


def best_iou(box: Box | None, truth: Sequence[Box]) -> float:
    """Highest IoU of a box with the true boxes, in single precision, as published; 0 without a box.

    >>> best_iou((0.0, 0.0, 500.0, 500.0), [(0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 500.0, 1000.0)])
    0.5
    """
    if box is None:
        return 0.0
    return float(iou(torch.tensor([box] * len(truth)), torch.tensor(truth, dtype=torch.float32)).max())


def score(record: Mapping[str, Any], where: str, parser: str | None = STRICT) -> Score:
    """Parses and scores an answer.

    Args:
        record: a line, see ``kvg.evaluation.records.prediction``.
        where: file and line, for messages.
        parser: a key of ``PARSERS``; None uses the line's own box if it names a parser, else the strict parser.

    Raises:
        DataError: a required field is missing or wrong.
    """
    answer = record.get("answer")
    if not isinstance(answer, str):
        reason = "is missing" if "answer" not in record else f"{excerpt(answer)} must be text"
        raise DataError(where, "answer", f"{reason}; write the model's text")
    if "options" in record:
        return _choice(record, answer, where)
    if "gt_bbox" not in record:
        raise DataError(
            where, "gt_bbox", "is missing; write the true boxes as [[x1, y1, x2, y2], ...] on the 0-1000 grid, or null"
        )
    truth = None if record["gt_bbox"] is None else boxes_of(record["gt_bbox"], where, "gt_bbox")
    if parser is None and record.get("parser"):
        box, pattern = _given_box(record, where)
    else:
        box, pattern = PARSERS[parser or STRICT](answer, record, where)
    if truth is None:
        return Score(box, pattern, 0.0, correct=False)
    overlap = best_iou(box, truth)
    return Score(box, pattern, overlap, overlap >= IOU_GATE)


def _strict(answer: str, record: Mapping[str, Any], where: str) -> tuple[Box | None, int]:
    """The last box of the answer block, and its pattern: 1 = a pair of corners, 2 = a list of four numbers."""
    codec = text_field(record, "codec", where) or "relative"
    if codec not in CODECS:
        raise DataError(where, "codec", f"{excerpt(codec)} is not one of {', '.join(CODECS)}")
    size = _GRID
    if codec == "absolute":
        width, height, resized_width, resized_height = sides_field(record, where, 4, "codec is absolute")
        size = ImageSize(width, height, resized_width, resized_height)
    read = read_answer(Completion(answer, None, ""), CODECS[codec], size)
    return (None if read.box_px is None else to_norm(read.box_px, size)), read.box_form


def _published(version: Version, answer: str, record: Mapping[str, Any], where: str) -> tuple[Box | None, int]:
    """The box and the pattern of a published parser, which ignores ``codec``."""
    box, pattern = read_published(answer, version)
    # Python parses "nan" and "inf" as numbers. Such a box has an IoU of 0, and JSON cannot hold it.
    return (box if all(map(math.isfinite, box)) else MISSING_BOX), pattern


def _given_box(record: Mapping[str, Any], where: str) -> tuple[Box | None, int]:
    """Box and pattern in a line, as read by another parser."""
    pattern = whole_number(record, "pattern", where) or 0
    box = record.get("box")
    if box is None or (isinstance(box, list) and any(isinstance(v, float) and not math.isfinite(v) for v in box)):
        return None, pattern  # some parsers write NaN for an unparsed answer
    return box_numbers(box, where, "box"), pattern


def _choice(record: Mapping[str, Any], answer: str, where: str) -> Score:
    """Scores a multiple-choice question; all parsers read options in the same way."""
    options, right = record["options"], record.get("right")
    good = isinstance(options, list) and 2 <= len(options) <= len(LETTERS)
    if not good or not all(isinstance(name, str) for name in options):
        raise DataError(where, "options", f"{excerpt(options)} must be a list of 2 to {len(LETTERS)} names")
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(options):
        raise DataError(where, "right", f"{excerpt(right)} is not an index into {len(options)} options")
    parsed = parse_completion(answer)
    chosen = parse_choice(parsed.answer, options)
    return Score(None, 0, 0.0, chosen == right, chosen)


Parser = Callable[[str, Mapping[str, Any], str], tuple[Box | None, int]]  # answer, line, where -> box, pattern
PARSERS: Final[dict[str, Parser]] = {
    STRICT: _strict,
    "published-v2": partial(_published, 2),
    "published-v3": partial(_published, 3),
}
