"""The gap in accuracy between known and unknown entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from kvg.benchmark import KNOWLEDGE, SPLITS
from kvg.evaluation.figures.estimate import Estimate, difference, mean_if_any, points
from kvg.evaluation.figures.levels import Levels, knowledge_of
from kvg.evaluation.records.prediction import Prediction


class KnowledgeGap(TypedDict):
    """Accuracy of known minus unknown entities on one group of cases. ``untold``: cases without a knowledge level."""

    group: str  # all, seen, unseen
    n: int
    untold: int
    known: Estimate | None
    unknown: Estimate | None
    gap: Estimate | None
    verdict: str


def knowledge_gaps(cases: Sequence[Prediction], seed: int, levels: Levels | None = None) -> list[KnowledgeGap]:
    """The gap in all, in seen and in unseen categories.

    Args:
        cases: of one run, on clean pictures.
        seed: of the intervals.
        levels: of entities, see ``read_levels``.
    """
    gaps = []
    for group in ("all", *SPLITS):
        members = [case for case in cases if group in ("all", case.split)]
        levelled = [(case, knowledge_of(case, levels or {})) for case in members]
        known, unknown = (
            mean_if_any([case for case, knowledge in levelled if knowledge == name], lambda case: case.correct, seed)
            for name in KNOWLEDGE
        )
        gap = difference(known, unknown) if known and unknown else None
        if members:
            untold = sum(not knowledge for _, knowledge in levelled)
            gaps.append(
                KnowledgeGap(
                    group=group,
                    n=len(members),
                    untold=untold,
                    known=known,
                    unknown=unknown,
                    gap=gap,
                    verdict=_verdict(gap),
                )
            )
    return gaps


def _verdict(gap: Estimate | None) -> str:
    if gap is None:
        return "not measurable: needs both known and unknown entities"
    if gap["low"] > 0:
        return f"sign: accuracy is higher for known entities, by {points(gap)}"
    if gap["high"] < 0:
        return f"sign: accuracy is lower for known entities, by {points(gap)}"
    return f"no sign: {points(gap)}"
