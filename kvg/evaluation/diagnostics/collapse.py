"""Signs of collapse in training curves, and the lengths of the final answers.

A policy that is rewarded for the box only can stop reasoning (answers shrink), lose diversity (entropy and the standard
deviation of rewards within groups go to 0), or stop answering. The bounds are those of ``callbacks.CollapseGuard``,
which checks the same curves during training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from kvg.evaluation.figures.estimate import Estimate, difference, in_words, mean_if_any
from kvg.evaluation.records.prediction import Prediction
from kvg.stats.bootstrap import bootstrap_interval

Curve = Sequence[tuple[int, float]]  # (step, value), by step

LENGTH, ENTROPY = "train/completion_length", "train/entropy"
SPREAD, UNPARSED = "train/reward_std_in_group", "train/unparsed"
STEPS: Final = 20  # window of the first and the last mean; half of a shorter curve
MIN_LENGTH_SHARE, MIN_ENTROPY, MIN_REWARD_STD, MAX_UNPARSED = 0.5, 0.002, 0.01, 0.5
TOLERATED_CUT: Final = 0.05  # a share of truncated answers is a sign if its whole interval lies above
TOLERATED_UNPARSED: Final = 0.05  # the same for answers without a box


class CurveSign(TypedDict):
    """One curve: the means of its first and last points, and the verdict.

    ``n`` points. The intervals assume independent points; neighbours are correlated, so true intervals are wider.
    """

    tag: str
    n: int
    first: Estimate
    last: Estimate
    verdict: str


class Lengths(TypedDict):
    """Lengths of correct and of wrong answers in tokens, and the shares of truncated and of unparsed answers."""

    n: int  # answers whose length is known
    right: Estimate | None
    wrong: Estimate | None
    difference: Estimate | None  # right minus wrong
    cut_off: Estimate | None  # of the answers with a finish reason
    verdict: str
    unparsed: Estimate | None  # of all answers
    unparsed_verdict: str


def curve_signs(curves: Mapping[str, Curve], seed: int) -> list[CurveSign]:
    """Signs of collapse in the curves of a run; missing curves are skipped.

    Args:
        curves: by tag, as in TensorBoard.
        seed: of the intervals.
    """
    signs = []
    for tag in (LENGTH, ENTROPY, SPREAD, UNPARSED):
        values = [value for _, value in curves.get(tag, ()) if math.isfinite(value)]
        if len(values) < 2:
            continue
        width = min(STEPS, len(values) // 2)
        first, last = (_window(part, seed) for part in (values[:width], values[-width:]))
        verdict = _verdict(tag, first["value"], last["value"])
        signs.append(CurveSign(tag=tag, n=len(values), first=first, last=last, verdict=verdict))
    return signs


def lengths(cases: Sequence[Prediction], seed: int) -> Lengths:
    """Lengths of correct and wrong answers, and the shares of truncated answers and of those without a box.

    Args:
        cases: of one run, on clean pictures.
        seed: of the intervals.
    """
    counted = [case for case in cases if case.num_tokens is not None]
    right, wrong = (
        mean_if_any([c for c in counted if c.correct is verdict], lambda c: float(c.num_tokens or 0), seed, bounds=None)
        for verdict in (True, False)
    )
    ended = [case for case in cases if case.finish_reason]
    cut_off = mean_if_any(ended, lambda case: case.finish_reason == "length", seed)
    unparsed = mean_if_any(cases, lambda case: case.box is None, seed)
    return Lengths(
        n=len(counted),
        right=right,
        wrong=wrong,
        difference=difference(right, wrong) if right and wrong else None,
        cut_off=cut_off,
        verdict=_cut_verdict(cut_off),
        unparsed=unparsed,
        unparsed_verdict=_unparsed_verdict(unparsed),
    )


def _window(values: Sequence[float], seed: int) -> Estimate:
    low, high = bootstrap_interval(values, seed)
    return Estimate(n=len(values), value=math.fsum(values) / len(values), low=low, high=high)


def _verdict(tag: str, first: float, last: float) -> str:
    if tag == LENGTH and last < MIN_LENGTH_SHARE * first:
        return f"sign: answers shrank from {first:.0f} to {last:.0f} tokens"
    if tag == ENTROPY and last < MIN_ENTROPY:
        return f"sign: entropy fell from {first:.4f} to {last:.4f} nats per token: all answers are nearly equal"
    if tag == SPREAD and last < MIN_REWARD_STD:
        return f"sign: the standard deviation of rewards within groups fell from {first:.4f} to {last:.4f}: no gradient"
    if tag == UNPARSED and last > MAX_UNPARSED:
        return f"sign: {last:.0%} of the answers hold no box, {first:.0%} at first"
    return "no sign"


def _cut_verdict(cut_off: Estimate | None) -> str:
    if cut_off is None:
        return "not measurable: no line has a finish_reason"
    if cut_off["low"] > TOLERATED_CUT:
        return f"sign: {in_words(cut_off)} of the answers are truncated; allow more tokens"
    return "no sign"


def _unparsed_verdict(unparsed: Estimate | None) -> str:
    if unparsed is None:
        return "not measurable: there are no answers"
    if unparsed["low"] > TOLERATED_UNPARSED:
        return (
            f"sign: {in_words(unparsed)} of the answers hold no box, and count as wrong; check prompt mode and parser"
        )
    return "no sign"
