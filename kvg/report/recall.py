"""Knowledge at work in the lab: what a rationale recalled of the entity, and whether the answer followed it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from kvg.boxes import iou
from kvg.report.cases import IOU_GATE, Case
from kvg.report.figures import KNOWLEDGE, SPLITS, group
from kvg.text.completion import parse_completion
from kvg.types import Sample

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

    stage: str
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


def recall(case: Case, sample: Sample) -> Recall | None:
    """Compares the plan of an answer with the card; None where there is no plan, or no card in words."""
    true = sample.objects[sample.target].note
    found = _PLAN.search(parse_completion(case.text).rationale or case.text)
    if not true or not found:
        return None
    return Recall(found[1], true, _follows(case, sample, found[1]))


def _follows(case: Case, sample: Sample, said: str) -> bool | None:
    if case.box_px is None:
        return None
    common = [_common(said, scene_object.note) for scene_object in sample.objects]
    best = max(common)
    if common.count(best) > 1:
        return None
    wanted = sample.objects[common.index(best)].box_px
    return bool(iou(torch.tensor([case.box_px]), torch.tensor([wanted]))[0] >= IOU_GATE)


def _common(said: str, note: str) -> int:
    return sum(a == b for a, b in zip(said.split(", "), note.split(", "), strict=False))


def recall_rows(cases: Mapping[str, Sequence[Case]], samples: Mapping[str, Sample]) -> list[RecallRow]:
    """Counts of recall and answer, for each stage that plans.

    Args:
        cases: by stage.
        samples: by key.
    """
    found: list[RecallRow] = []
    for stage, answered in cases.items():
        recalls = {c.key: recall(c, samples[c.key]) for c in answered if c.key in samples}
        if not any(recalls.values()):
            continue
        for split in SPLITS:
            for knowledge in KNOWLEDGE:
                members = [c for c in group(answered, split, knowledge) if c.key in recalls]
                if members:
                    found.append(_row(stage, split, knowledge, [(c, recalls[c.key]) for c in members]))
    return found


def _row(stage: str, split: str, knowledge: str, pairs: Sequence[tuple[Case, Recall | None]]) -> RecallRow:
    planned = [(recalled.right, case.right, recalled.follows) for case, recalled in pairs if recalled]
    cells = [(known, boxed) for known, boxed, _ in planned]
    follows = [followed for _, _, followed in planned if followed is not None]
    return RecallRow(
        stage=stage,
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
