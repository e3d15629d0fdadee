"""What a rationale concludes: the object that it points at, read from the entity named and the boxes quoted.

A rationale points at the box that its conclusion quotes, nearest to the entity's name or else last, or at the object
that its conclusion names by number and that was numbered beside a box before ("1 (box) ...; object 1"). Where there is
no conclusion, or it does neither, the last sentence with the entity's name and a box in it counts, and the box nearest
to the name. A box that is denied ("not (box)") is none that is pointed at. What cannot be read in this way is not
judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kvg.evaluation.case import IOU_GATE, Case
from kvg.evaluation.pointing import object_at
from kvg.evaluation.recall import recall
from kvg.evaluation.scoring import PARSERS, STRICT, best_iou
from kvg.text.box_codec import box_spans
from kvg.text.completion import parse_completion
from kvg.types import Box

THINK: Final = "<think>"
_NAME = "<name>"
_NEAR = 200  # characters between a name and a box that can belong together
_SPECIAL = re.compile(r"<\|[^|<>]*\|>|</?(?:think|answer)>")
_BOX = re.compile(r"<box:(\d+)>")
_CONCLUSION = re.compile(r"\bconclu(?:sion|de|des|ding)\b", re.IGNORECASE)
_NUMBERED = re.compile(r"\b(\d{1,2})\b[^<>\d]{0,24}<box:(\d+)>")
_OBJECT = re.compile(r"(?:\b(?:objects?|number|no\.)|#)\s*(\d{1,2})\b", re.IGNORECASE)
_CLAUSE = re.compile(r",|\b(?:and|but|while|whereas)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|\n")
_DENIAL = re.compile(
    r"\b(?:not|never|neither|nor|cannot|unlike|rather than|instead of|differs? from|(?:is|are|was|does|do|can)n['’]t)\b"
    r"|\bno\W*$",  # "is no NAME", but "has no spots"
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reasoning:
    """What was read from the rationale of an answer.

    Attributes:
        concluded: the box that it points at, on the 0-1000 grid; None where it cannot be told.
        right: whether that is the object asked for. None where it cannot be told: also where the box is none of the
            objects', and the others are known, since then the box is bad and not the choice.
        kept: whether the answer is the box concluded; None without either.
        named: whether the rationale names the entity.
        recalled: whether every trait of the card was recalled, see ``recall``; None where there are no cards.
    """

    concluded: Box | None
    right: bool | None
    kept: bool | None
    named: bool
    recalled: bool | None

    @property
    def verdict(self) -> bool | None:
        """Whether the reasoning is right: by the card where there is one, else by what it points at."""
        return self.right if self.recalled is None else self.recalled


def reasoning(case: Case) -> Reasoning | None:
    """Reads the rationale of an answer; None where there is none."""
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
        named=_NAME in _with_name(text, case.entity),
        recalled=None if recalled is None else recalled.right,
    )


def rationale_of(case: Case) -> str:
    """The rationale: the think block, also one that was cut off; in the mode ``cot`` what stands before the last box.

    >>> from kvg.evaluation.case import case_of
    >>> line = {"answer": "<think>two birds, and the", "gt_bbox": [[0, 0, 9, 9]]}
    >>> rationale_of(case_of(line, "line 1"))
    'two birds, and the'
    >>> line = {"answer": "The left one: (0,0),(9,9)", "gt_bbox": [[0, 0, 9, 9]]}
    >>> rationale_of(case_of(line, "line 1")), rationale_of(case_of({**line, "mode": "cot"}, "line 1"))
    ('', 'The left one:')
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


def _is_target(box: Box, case: Case) -> bool | None:
    if best_iou(box, case.truth) >= IOU_GATE:
        return True
    knows_others = len(case.objects) > 1
    others = [thing for n, thing in enumerate(case.objects) if n != case.target]
    if knows_others and object_at(box, others) is None:
        return None
    return False


def _concluded(rationale: str, case: Case) -> Box | None:
    text, boxes = _with_placeholders(rationale, case)
    text = _with_name(text, case.entity)
    number = _in_conclusion(text)
    if number is None:
        number = _beside_name(text)
    return None if number is None else boxes[number]


def _in_conclusion(text: str) -> int | None:
    """Number of the box that the conclusion points at."""
    starts = [match.end() for match in _CONCLUSION.finditer(text)]
    if not starts:
        return None
    before, conclusion = text[: starts[-1]], text[starts[-1] :]
    beside = _beside_name(conclusion)
    if beside is not None:
        return beside
    numbered = {number: int(box) for number, box in reversed(_NUMBERED.findall(before))}  # the first naming counts
    for sentence in reversed(_SENTENCE_END.split(conclusion)):
        quoted = [match for match in _BOX.finditer(sentence) if not _denied(sentence, match)]
        if quoted:
            return int(quoted[-1][1])
        named = [match for match in _OBJECT.finditer(sentence) if not _denied(sentence, match)]
        if named and named[-1][1] in numbered:
            return numbered[named[-1][1]]
    return None


def _beside_name(text: str) -> int | None:
    """Number of the box nearest to the entity's name, in the last sentence that holds both."""
    for sentence in reversed(_SENTENCE_END.split(text)):
        near = []
        for name in re.finditer(_NAME, sentence):
            for box in _BOX.finditer(sentence):
                between = sentence[min(box.end(), name.end()) : max(box.start(), name.start())]
                if len(between) <= _NEAR and not _DENIAL.search(between):
                    near.append((_CLAUSE.search(between) is not None, len(between), int(box[1])))
        if near:
            return min(near)[-1]  # the same clause comes before what is near
    return None


def _denied(sentence: str, match: re.Match[str]) -> bool:
    """Whether what stands before, back to the last comma or box, denies it."""
    before = re.split(r"[,:]|<box:\d+>", sentence[: match.start()])[-1]
    return _DENIAL.search(before) is not None


def _with_name(text: str, entity: str) -> str:
    """The text with a mark in place of the entity's name, whose dots would end sentences."""
    if not entity:
        return text
    return re.sub(rf"(?<!\w){re.escape(entity)}(?!\w)", _NAME, text, flags=re.IGNORECASE)


def _with_placeholders(text: str, case: Case) -> tuple[str, list[Box]]:
    """The text with ``<box:N>`` in place of each box, and the boxes on the 0-1000 grid."""
    text = _SPECIAL.sub("", text.replace("<box:", "<box "))  # what looks like one of ours is not
    pieces, boxes, end = list[str](), list[Box](), 0
    for start, stop in box_spans(text):
        box, _ = PARSERS[STRICT](text[start:stop], case.facts, case.id)
        if box is not None:
            pieces += [text[end:start], f"<box:{len(boxes)}>"]
            boxes.append(box)
            end = stop
    return "".join([*pieces, text[end:]]), boxes
