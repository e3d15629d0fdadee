"""Knowledge at work in the lab: what a rationale recalled of the entity, and whether the answer followed it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvg.evaluation.records.prediction import Prediction
from kvg.evaluation.records.scoring import IOU_GATE, best_iou
from kvg.text.completion import parse_completion

_PLAN = re.compile(r"Plan: the .+? is ([^.]+)\.")


@dataclass(frozen=True)
class Recall:
    """What a rationale said of the entity.

    Attributes:
        answered: the traits in the plan.
        true: those on the card.
        follows: whether the box given is that of the object which is most like the traits said; None where no box was
            given or two objects are equally like them.
    """

    answered: str
    true: str
    follows: bool | None

    @property
    def right(self) -> bool:
        """Whether every trait was recalled."""
        return self.answered == self.true


def recall(case: Prediction) -> Recall | None:
    """Compares the plan of an answer with the card; None where there is no plan, or no card in words."""
    true = case.objects[case.target].note if case.objects else ""
    match = _PLAN.search(parse_completion(case.answer).rationale or case.answer) if true else None
    if not match:
        return None
    return Recall(match[1], true, _follows(case, match[1]))


def _follows(case: Prediction, answered: str) -> bool | None:
    if case.box is None:
        return None
    common = [_common(answered, item.note) for item in case.objects]
    best = max(common)
    if common.count(best) > 1:
        return None
    return best_iou(case.box, [case.objects[common.index(best)].box]) >= IOU_GATE


def _common(answered: str, note: str) -> int:
    return sum(a == b for a, b in zip(answered.split(", "), note.split(", "), strict=False))
