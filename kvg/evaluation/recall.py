"""Knowledge at work in the lab: what a rationale recalled of the entity, and whether the answer followed it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from kvg.evaluation.case import IOU_GATE, Case
from kvg.evaluation.figures import KNOWLEDGE, SPLITS, is_plain
from kvg.evaluation.scoring import best_iou
from kvg.text.completion import parse_completion

ALL: Final = "all"
_PLAN = re.compile(r"Plan: the .+? is ([^.]+)\.")


@dataclass(frozen=True)
class Recall:
    """What a rationale said of the entity.

    Attributes:
        said: the traits in the plan.
        true: those on the card.
        follows: whether the box given is that of the object which is most like the traits said; None where no box was
            given or two objects are equally like them.
    """

    said: str
    true: str
    follows: bool | None

    @property
    def right(self) -> bool:
        """Whether every trait was recalled."""
        return self.said == self.true


class RecallRow(TypedDict):
    """Recall against answer, counted; the first word is the recall's verdict, the second the box's."""

    run: str
    split: str
    knowledge: str
    n: int
    no_plan: int
    right_right: int
    right_wrong: int
    wrong_right: int
    wrong_wrong: int
    follows: int
    follows_n: int


def recall(case: Case) -> Recall | None:
    """Compares the plan of an answer with the card; None where there is no plan, or no card in words."""
    true = case.objects[case.target].note if case.objects else ""
    found = _PLAN.search(parse_completion(case.answer).rationale or case.answer) if true else None
    if not found:
        return None
    return Recall(found[1], true, _follows(case, found[1]))


def _follows(case: Case, said: str) -> bool | None:
    if case.box is None:
        return None
    common = [_common(said, thing.note) for thing in case.objects]
    best = max(common)
    if common.count(best) > 1:
        return None
    return best_iou(case.box, [case.objects[common.index(best)].box]) >= IOU_GATE


def _common(said: str, note: str) -> int:
    return sum(a == b for a, b in zip(said.split(", "), note.split(", "), strict=False))


def recall_rows(runs: Mapping[str, Sequence[Case]]) -> list[RecallRow]:
    """Counts of recall and answer by split and knowledge, for each run that plans.

    Args:
        runs: cases by the name of their run; disturbed pictures are left out.
    """
    found: list[RecallRow] = []
    for run, cases in runs.items():
        pairs = [(case, recall(case)) for case in cases if is_plain(case)]
        if not any(recalled for _, recalled in pairs):
            continue
        for split in SPLITS:
            for knowledge in (*KNOWLEDGE, ALL):
                members = [p for p in pairs if p[0].split == split and knowledge in (ALL, p[0].knowledge)]
                if members:
                    found.append(_row(run, split, knowledge, members))
    return found


def _row(run: str, split: str, knowledge: str, pairs: Sequence[tuple[Case, Recall | None]]) -> RecallRow:
    planned = [(recalled.right, case.correct, recalled.follows) for case, recalled in pairs if recalled]
    cells = [(known, boxed) for known, boxed, _ in planned]
    follows = [followed for _, _, followed in planned if followed is not None]
    return RecallRow(
        run=run,
        split=split,
        knowledge=knowledge,
        n=len(pairs),
        no_plan=len(pairs) - len(planned),
        right_right=cells.count((True, True)),
        right_wrong=cells.count((True, False)),
        wrong_right=cells.count((False, True)),
        wrong_wrong=cells.count((False, False)),
        follows=sum(follows),
        follows_n=len(follows),
    )
