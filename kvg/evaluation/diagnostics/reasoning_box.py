"""Agreement of reasoning and box: how often one is correct without the other, and the accuracy gain of the box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypedDict

from kvg.benchmark import SPLITS
from kvg.evaluation.diagnostics.reasoning import Reasoning, reasoning
from kvg.evaluation.diagnostics.recall import recall
from kvg.evaluation.figures.estimate import FEWEST, Estimate, difference, in_words, mean_if_any, points
from kvg.evaluation.records.prediction import Prediction

CARDS, BOXES = "cards", "boxes"
TOLERATED: Final = 0.05  # a share is a sign if its whole interval lies above


class ReasoningTable(TypedDict):
    """Reasoning and box on one group of cases; in the names of counts the first word is the reasoning's verdict.

    ``by`` is the criterion of reasoning: the ``cards`` (all traits of the entity recalled; lab only) or the quoted
    ``boxes`` (``kvg.evaluation.diagnostics.reasoning``). ``lucky`` is the share of wrong reasoning among the correct
    boxes, ``wasted`` the share of wrong boxes among correct reasoning, ``left`` the share of answers that differ from
    the conclusion. ``gain`` is the accuracy of the box with correct minus with wrong reasoning. ``verdict`` begins with
    "no sign", "sign:" or "not measurable:".
    """

    by: str
    group: str  # all, seen, unseen
    n: int  # answers with a rationale
    untold: int  # answers whose reasoning cannot be judged
    unnamed: int  # answers whose rationale does not name the entity
    right_right: int
    right_wrong: int
    wrong_right: int
    wrong_wrong: int
    box_if_right: Estimate | None
    box_if_wrong: Estimate | None
    gain: Estimate | None
    lucky: Estimate | None
    wasted: Estimate | None
    left: Estimate | None
    verdict: str


def reasoning_tables(cases: Sequence[Prediction], seed: int) -> list[ReasoningTable]:
    """The tables of all cases, of seen and of unseen categories; empty if no answer has a rationale.

    Args:
        cases: of one run, on clean pictures.
        seed: of the intervals.
    """
    read = [(case, judged) for case in cases if (judged := reasoning(case))]
    tables = []
    for by in (CARDS, BOXES):
        if by == CARDS and all(judged.recalled is None for _, judged in read):
            continue
        for group in ("all", *SPLITS):
            members = [pair for pair in read if group in ("all", pair[0].split)]
            if members:
                tables.append(_table(by, group, members, seed))
    return tables


def _table(by: str, group: str, read: Sequence[tuple[Prediction, Reasoning]], seed: int) -> ReasoningTable:
    verdicts = {id(case): judged.recalled if by == CARDS else judged.right for case, judged in read}
    kept = {id(case): _kept(by, case, judged) for case, judged in read}
    judged = [case for case, _ in read if verdicts[id(case)] is not None]
    thought = {right: [case for case in judged if verdicts[id(case)] is right] for right in (True, False)}
    boxed = [case for case in judged if case.correct]
    cells = [(verdicts[id(case)], case.correct) for case in judged]
    if_right, if_wrong = (mean_if_any(thought[right], lambda case: case.correct, seed) for right in (True, False))
    table = ReasoningTable(
        by=by,
        group=group,
        n=len(read),
        untold=len(read) - len(judged),
        unnamed=sum(not judged.named for _, judged in read),
        right_right=cells.count((True, True)),
        right_wrong=cells.count((True, False)),
        wrong_right=cells.count((False, True)),
        wrong_wrong=cells.count((False, False)),
        box_if_right=if_right,
        box_if_wrong=if_wrong,
        gain=difference(if_right, if_wrong) if if_right and if_wrong else None,
        lucky=mean_if_any(boxed, lambda case: not verdicts[id(case)], seed),
        wasted=mean_if_any(thought[True], lambda case: not case.correct, seed),
        left=mean_if_any([c for c, _ in read if kept[id(c)] is not None], lambda case: not kept[id(case)], seed),
        verdict="",
    )
    return {**table, "verdict": _verdict(table)}


def _kept(by: str, case: Prediction, judged: Reasoning) -> bool | None:
    """Whether the box follows the reasoning: the object most similar to the recalled traits, or the concluded box."""
    if by == BOXES:
        return judged.kept
    recalled = recall(case)
    return recalled.follows if recalled else None


def _verdict(table: ReasoningTable) -> str:
    if (judged := table["n"] - table["untold"]) < FEWEST:
        return f"not measurable: of {table['n']} rationales {judged} can be judged, fewer than {FEWEST}"
    signs = []
    for estimate, words in (
        (table["lucky"], "of the correct boxes follow wrong reasoning"),
        (table["wasted"], "of the correct reasoning ends in a wrong box"),
        (table["left"], "of the answers differ from the conclusion"),
    ):
        if estimate and estimate["low"] > TOLERATED:
            signs.append(f"{in_words(estimate)} {words}")
    gain = table["gain"]
    if gain and gain["low"] <= 0:
        signs.append(f"correct reasoning does not improve the box: {points(gain)}")
    return "sign: " + "; ".join(signs) if signs else "no sign"
