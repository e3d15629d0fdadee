"""The box that a rationale concludes with, read from the named entity and the quoted boxes.

The concluded box is the one in the conclusion that is nearest to the entity's name, or else the last one. The
conclusion may also name an object by a number that was given beside a box before ("1 (box) ...; object 1"). If there is
no conclusion, or it has neither, the last sentence with the entity's name and a box counts, with the box nearest to the
name. Negated boxes ("not (box)") are ignored. Rationales that do not match these rules are not judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kvg.evaluation.diagnostics.pointing import object_at
from kvg.evaluation.diagnostics.recall import recall
from kvg.evaluation.records.prediction import Prediction
from kvg.evaluation.records.scoring import IOU_GATE, PARSERS, STRICT, best_iou
from kvg.text.box_codec import box_spans
from kvg.text.box_refs import nouns_of, with_placeholders
from kvg.text.completion import parse_completion
from kvg.text.conclusions import NAME, box_beside_name, pointed_at, with_name
from kvg.types import Box

THINK: Final = "<think>"
_SPECIAL = re.compile(r"<\|[^|<>]*\|>|</?(?:think|answer)>")
_CONCLUSION = re.compile(r"\bconclu(?:sion|de|des|ding)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Reasoning:
    """The parsed rationale of an answer.

    Attributes:
        concluded: the concluded box, on the 0-1000 grid; None if it cannot be read.
        right: whether that box is the target. None if it cannot be judged: no concluded box, or all objects are known
            and the box matches none of them, so that the box is wrong rather than the choice.
        kept: whether the answer equals the concluded box; None if one of them is missing.
        named: whether the rationale names the entity.
        recalled: whether all traits of the card were recalled, see ``recall``; None if there are no cards.
    """

    concluded: Box | None
    right: bool | None
    kept: bool | None
    named: bool
    recalled: bool | None

    @property
    def verdict(self) -> bool | None:
        """Whether the reasoning is correct: by the card if there is one, else by the concluded box."""
        return self.right if self.recalled is None else self.recalled


def reasoning(case: Prediction) -> Reasoning | None:
    """Parses the rationale of an answer; None if there is none."""
    text = rationale_of(case)
    if not text or case.is_choice:
        return None
    recalled = recall(case)
    concluded = _concluded(text, case)
    kept = None
    if concluded and case.box:
        kept = best_iou(case.box, [concluded]) >= IOU_GATE
    return Reasoning(
        concluded=concluded,
        right=None if concluded is None else _is_target(concluded, case),
        kept=kept,
        named=NAME in with_name(text, case.entity),
        recalled=None if recalled is None else recalled.right,
    )


def rationale_of(case: Prediction) -> str:
    """The rationale: the think block, even if truncated; in mode ``cot`` the text before the last box.

    >>> from kvg.evaluation.records.prediction import Prediction
    >>> line = {"answer": "<think>two birds, and the", "gt_bbox": [[0, 0, 9, 9]]}
    >>> rationale_of(Prediction.from_line(line, "line 1"))
    'two birds, and the'
    >>> line = {"answer": "The left one: (0,0),(9,9)", "gt_bbox": [[0, 0, 9, 9]]}
    >>> rationale_of(Prediction.from_line(line, "line 1"))
    ''
    >>> rationale_of(Prediction.from_line({**line, "mode": "cot"}, "line 1"))
    'The left one:'
    """
    parsed = parse_completion(case.answer)
    if parsed.rationale:
        return parsed.rationale
    if THINK in case.answer:
        opened = case.answer.split(THINK, 1)[1]
        return re.split("</think>|<answer>", opened, maxsplit=1)[0].strip()
    if case.mode != "cot":
        return ""
    spans = box_spans(case.answer)
    return (case.answer[: spans[-1][0]] if spans else case.answer).strip()


def _is_target(box: Box, case: Prediction) -> bool | None:
    if best_iou(box, case.targets) >= IOU_GATE:
        return True
    knows_others = len(case.objects) > 1
    others = [item for n, item in enumerate(case.objects) if n != case.target]
    if knows_others and object_at(box, others) is None:
        return None
    return False


def _concluded(rationale: str, case: Prediction) -> Box | None:
    text, boxes = _with_placeholders(rationale, case)
    text = with_name(text, case.entity)
    starts = [match.end() for match in _CONCLUSION.finditer(text)]
    number = pointed_at(text[: starts[-1]], text[starts[-1] :], nouns_of(case.category)).box if starts else None
    if number is None:
        number = box_beside_name(text)
    return None if number is None else boxes[number]


def _with_placeholders(text: str, case: Prediction) -> tuple[str, list[Box]]:
    """The text with ``<box:N>`` in place of each box, and the boxes on the 0-1000 grid."""
    boxes: list[Box] = []

    def place(written: str) -> int | None:
        box, _ = PARSERS[STRICT](written, case.raw, case.id)
        if box is None:
            return None
        boxes.append(box)
        return len(boxes) - 1

    text = _SPECIAL.sub("", text.replace("<box:", "<box "))  # escapes text that looks like our placeholders
    return with_placeholders(text, place), boxes
