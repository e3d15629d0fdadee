"""Measures all failure signatures of a run, with a verdict for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from kvg.evaluation.diagnostics.collapse import Curve, CurveSign, Lengths, curve_signs, lengths
from kvg.evaluation.diagnostics.confusion import Confusion, confusion
from kvg.evaluation.diagnostics.position import PositionFigures, position
from kvg.evaluation.diagnostics.reasoning_box import ReasoningTable, reasoning_tables
from kvg.evaluation.figures.accuracy import is_plain
from kvg.evaluation.figures.estimate import FEWEST
from kvg.evaluation.figures.gap import KnowledgeGap, knowledge_gaps
from kvg.evaluation.figures.levels import Levels
from kvg.evaluation.records.prediction import Prediction

RIGHT_SHARE: Final = 0.05  # with fewer correct answers, and fewer than FEWEST, a pattern in them cannot show


class Signatures(TypedDict):
    """All signatures of a run. Every verdict begins with "no sign", "sign:" or "not measurable:"."""

    reasoning: list[ReasoningTable]
    collapse: list[CurveSign]
    lengths: Lengths
    knowledge: list[KnowledgeGap]
    position: PositionFigures
    confusion: Confusion


def signatures(
    cases: Sequence[Prediction], seed: int, levels: Levels | None = None, curves: Mapping[str, Curve] | None = None
) -> Signatures:
    """Measures all signatures on box questions about clean pictures.

    "No sign" needs answers in which one could show: if nearly all are wrong, or nearly none has a box, the verdict is
    "not measurable".

    Args:
        cases: of one run.
        seed: of intervals and permutations.
        levels: of entities, see ``read_levels``.
        curves: of the run's training by tag, see ``kvg.report.curves.read_curves``.
    """
    plain = [case for case in cases if is_plain(case)]
    signs = Signatures(
        reasoning=reasoning_tables(plain, seed),
        collapse=curve_signs(curves or {}, seed),
        lengths=lengths(plain, seed),
        knowledge=knowledge_gaps(plain, seed, levels),
        position=position(plain, seed),
        confusion=confusion(plain, seed),
    )
    num_right, num_boxes = sum(case.correct for case in plain), sum(case.box is not None for case in plain)
    if num_right < min(FEWEST, RIGHT_SHARE * len(plain)):
        few = f"not measurable: only {num_right} of {len(plain)} answers are right"
        for figures in (*signs["reasoning"], *signs["knowledge"], signs["position"]):
            figures["verdict"] = _withdrawn(figures["verdict"], few)
    if num_boxes < FEWEST <= len(plain):
        few = f"not measurable: only {num_boxes} of {len(plain)} answers have a box"
        signs["confusion"]["verdict"] = _withdrawn(signs["confusion"]["verdict"], few)
    return signs


def _withdrawn(verdict: str, instead: str) -> str:
    return instead if verdict.startswith("no sign") else verdict


def verdicts(signatures: Signatures) -> dict[str, str]:
    """The verdicts by signature, for the group of all cases."""
    pairs = [
        (f"reasoning by {table['by']}", table["verdict"])
        for table in signatures["reasoning"]
        if table["group"] == "all"
    ]
    pairs += [(sign["tag"], sign["verdict"]) for sign in signatures["collapse"]]
    pairs += [("length of answers", signatures["lengths"]["verdict"])]
    pairs += [("answers without a box", signatures["lengths"]["unparsed_verdict"])]
    pairs += [("known and unknown", gap["verdict"]) for gap in signatures["knowledge"] if gap["group"] == "all"]
    return dict(
        [*pairs, ("position", signatures["position"]["verdict"]), ("confusion", signatures["confusion"]["verdict"])]
    )
