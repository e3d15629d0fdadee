"""Recall of the lab's cards: the traits that a rationale recalls, and whether the answer follows them."""

from __future__ import annotations

from dataclasses import dataclass

from kvg.evaluation.records.prediction import Prediction
from kvg.evaluation.records.scoring import IOU_GATE, best_iou
from kvg.text.completion import parse_completion
from kvg.text.thoughts import PLAN


@dataclass(frozen=True)
class Recall:
    """The traits that a rationale recalls, and those on the card.

    Attributes:
        answered: the traits in the plan.
        true: the traits on the card.
        follows: whether the answered box is that of the object most similar to the recalled traits; None without a box,
            or if two objects are equally similar.
    """

    answered: str
    true: str
    follows: bool | None

    @property
    def right(self) -> bool:
        """Whether all traits were recalled."""
        return self.answered == self.true


def recall(case: Prediction) -> Recall | None:
    """Compares the plan of an answer with the card; None if there is no plan or no card."""
    true = case.objects[case.target].note if case.objects else ""
    match = PLAN.search(parse_completion(case.answer).rationale or case.answer) if true else None
    if not match:
        return None
    return Recall(match["traits"], true, _follows(case, match["traits"]))


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
