"""Accuracies by stage, split and knowledge, and what each stage gained over another, with 95% bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from kvg.metrics.bootstrap import bootstrap_interval
from kvg.report.cases import Case

SPLITS: Final = ("seen", "unseen")
KNOWLEDGE: Final = ("known", "unknown", "all")
# Each pair answers a question: does stage 1 teach, does thinking help, does stage 2 help.
PAIRS: Final = (("base", "cot_sft"), ("direct_sft", "cot_sft"), ("cot_sft", "cot_sft_grpo"))


class Row(TypedDict):
    """Accuracy of one stage on one group; shares are in 0-1."""

    stage: str
    split: str
    knowledge: str
    n: int
    acc: float
    ci_low: float
    ci_high: float
    mean_iou: float


class Gain(TypedDict):
    """Difference of accuracy between two stages on the same cases; a paired bootstrap gives the interval."""

    before: str
    after: str
    split: str
    knowledge: str
    n: int
    gain: float
    ci_low: float
    ci_high: float


def group(cases: Sequence[Case], split: str, knowledge: str) -> list[Case]:
    """Cases of a split, and of ``known`` or ``unknown`` entities, or of ``all``."""
    return [c for c in cases if c.split == split and knowledge in ("all", c.knowledge)]


def rows(cases: Mapping[str, Sequence[Case]], seed: int) -> list[Row]:
    """One row for each stage, split and knowledge that has a case; an answer that could not be read is wrong.

    Args:
        cases: by stage.
        seed: of the bootstrap.
    """
    found: list[Row] = []
    for stage, answered in cases.items():
        for split in SPLITS:
            for knowledge in KNOWLEDGE:
                members = group(answered, split, knowledge)
                if not members:
                    continue
                hits = [float(case.right) for case in members]
                low, high = bootstrap_interval(hits, seed)
                found.append(
                    Row(
                        stage=stage,
                        split=split,
                        knowledge=knowledge,
                        n=len(members),
                        acc=sum(hits) / len(hits),
                        ci_low=low,
                        ci_high=high,
                        mean_iou=sum(case.iou for case in members) / len(members),
                    )
                )
    return found


def gains(cases: Mapping[str, Sequence[Case]], seed: int) -> list[Gain]:
    """What the later stage of each pair gained, on the cases that both have answered.

    Args:
        cases: by stage.
        seed: of the bootstrap.
    """
    found: list[Gain] = []
    for before, after in PAIRS:
        if before not in cases or after not in cases:
            continue
        earlier = {case.key: case for case in cases[before]}
        for split in SPLITS:
            for knowledge in KNOWLEDGE:
                members = [c for c in group(cases[after], split, knowledge) if c.key in earlier]
                if not members:
                    continue
                steps = [float(case.right) - float(earlier[case.key].right) for case in members]
                low, high = bootstrap_interval(steps, seed)
                found.append(
                    Gain(
                        before=before,
                        after=after,
                        split=split,
                        knowledge=knowledge,
                        n=len(steps),
                        gain=sum(steps) / len(steps),
                        ci_low=low,
                        ci_high=high,
                    )
                )
    return found
