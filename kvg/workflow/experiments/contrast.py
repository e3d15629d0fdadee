"""Contrasts of arms over seeds and cases: means, differences and interactions, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvg.stats.bootstrap import bootstrap_interval
from kvg.stats.paired import sign_flip
from kvg.stats.seeds import combine, contrast
from kvg.workflow.experiments.columns import NONE, members
from kvg.workflow.experiments.question import Claim
from kvg.workflow.experiments.result import Result, ResultFolder

Floats = NDArray[np.float64]
Rows = Mapping[int, Result]  # result of each seed that is complete
_SHARES = ("traits", "other_traits")  # of four traits
_NUM_TRAITS = 4


@dataclass(frozen=True)
class Contrast:
    """A contrast.

    Attributes:
        value: the mean, or the difference, as a share.
        low: lower bound of the 95% interval.
        high: upper bound.
        p: two-sided p-value of a difference of 0; None for a mean.
        detectable: the minimum detectable difference with a power of 0.8; None if it is not known.
        seeds: number of seeds of the arm with the fewest, of those that depend on the seed.
        cases: number of cases.
    """

    value: float
    low: float
    high: float
    p: float | None
    detectable: float | None
    seeds: int
    cases: int

    def verdict(self, holds: Mapping[str, float]) -> str:
        """Returns ``holds``, ``refuted`` or ``undecided`` by a rule in points.

        >>> Contrast(0.02, 0.01, 0.03, 0.01, 0.02, 3, 100).verdict({"above": 0.0})
        'holds'
        >>> Contrast(0.02, 0.01, 0.03, 0.01, 0.02, 3, 100).verdict({"above": 3.5})
        'refuted'
        >>> Contrast(0.02, 0.01, 0.03, 0.01, 0.02, 3, 100).verdict({"within": 2.0})
        'undecided'
        """
        (rule, points), *_ = holds.items()
        bound = points / 100
        low, high = (-self.high, -self.low) if rule == "below" else (self.low, self.high)
        if rule == "within":
            inside, outside = low > -bound and high < bound, low > bound or high < -bound
            return "holds" if inside else "refuted" if outside else "undecided"
        bound = -bound if rule == "below" else bound
        return "holds" if low > bound else "refuted" if high < bound else "undecided"


def values_of(result: Result, value: str, cases: Mapping[str, Any], group: str) -> tuple[Floats, list[int]]:
    """Returns the values of a group's cases, and their indices; cases that have no value are left out.

    Raises:
        ValueError: the group does not exist.
    """
    text = result.columns.get(value, NONE * cases["num"])
    kept = [n for n in members(group, cases["columns"], len(text)) if text[n] != NONE]
    scale = _NUM_TRAITS if value in _SHARES else 1
    return np.array([int(text[n]) / scale for n in kept], dtype=np.float64), kept


def mean_of(rows: Rows, folder: ResultFolder, group: str = "all", value: str = "right") -> Contrast | None:
    """Returns the mean of an arm over seeds and cases; None without a case."""
    side = _side([(rows, group, 1.0)], folder, value)
    return None if side is None else _estimate(side, None)


def claim_contrast(
    claim: Claim, arms: Mapping[str, Rows], before: Mapping[str, Rows], folder: ResultFolder
) -> Contrast | None:
    """Returns the contrast of a claim; None if an arm of it has no result, or there is no case.

    Args:
        claim: the claim.
        arms: results of each arm on the claim's test.
        before: results on the test of ``claim.before``; the same, but for claims with ``before_test``.
        folder: folder of the results.
    """
    groups = [(claim.cases, 1.0), *([(claim.minus, -1.0)] if claim.minus else [])]
    parts = [(claim.after, group, sign) for group, sign in groups] if isinstance(claim.after, str) else [
        (arm, group, 1.0) for group, arm in claim.after.items()
    ]  # fmt: skip
    if any(not arms.get(arm) for arm, _, _ in parts):
        return None
    share = 1.0 if isinstance(claim.after, str) else 1 / len(parts)
    after = _side([(arms[arm], group, sign * share) for arm, group, sign in parts], folder, claim.value)
    if claim.before is None or after is None:
        return None if after is None else _estimate(after, None, bool(claim.minus))
    if not before.get(claim.before):
        return None
    old = _side([(before[claim.before], group, sign * share) for _, group, sign in parts], folder, claim.value)
    return None if old is None else _estimate(after, old)


@dataclass(frozen=True)
class _Side:
    """Values ``[S, N]`` whose mean over cases is the side of a contrast, the label of each case, and its own cases."""

    values: Floats
    labels: list[str]
    num: int


def _side(parts: Sequence[tuple[Rows, str, float]], folder: ResultFolder, value: str) -> _Side | None:
    """Adds up the means of groups; a case counts as often as its group is small."""
    num_seeds = min((len(rows) for rows, _, _ in parts if len(rows) > 1), default=1)
    totals: dict[str, Floats] = {}
    pictures: dict[str, str] = {}
    num = 0
    for rows, group, times in parts:
        table: dict[str, list[float]] = {}
        for seed in sorted(rows)[: max(1, num_seeds if len(rows) > 1 else 1)]:
            result = rows[seed]
            if not result.cases:  # an exam has figures, which count as one case
                if value in result.figures:
                    pictures[value] = value
                    table.setdefault(value, []).append(result.figures[value])
                continue
            cases = folder.cases(result.cases)
            values, kept = values_of(result, value, cases, group)
            shared = cases.get("pictures")
            for number, n in zip(values, kept, strict=True):
                label = f"{result.cases}/{n}"
                pictures[label] = f"{result.cases}/{shared[n] if shared else n}"
                table.setdefault(label, []).append(float(number))
        if not table:
            return None
        num = max(num, len(table))
        for label, own in table.items():
            row = np.full(num_seeds, np.mean(own)) if len(own) != num_seeds else np.array(own)
            totals[label] = totals.get(label, np.zeros(num_seeds)) + times * row / len(table)
    labels = sorted(totals)
    values_table = np.stack([totals[label] for label in labels], axis=1) * len(labels)
    return _Side(values_table, [pictures[label] for label in labels], num)


def _estimate(after: _Side, before: _Side | None, is_difference: bool = False) -> Contrast:
    seeds = [len(side.values) for side in (after, before) if side is not None]
    new, labels, num = after.values, after.labels, after.num
    old = None
    if before is not None:
        if before.labels == labels:
            old = before.values
        else:  # other cases: each side is padded with zeros where the other one has its cases
            total = len(labels) + len(before.labels)
            new = np.concatenate([new * total / len(labels), np.zeros((len(new), len(before.labels)))], axis=1)
            zeros = np.zeros((len(before.values), len(labels)))
            old = np.concatenate([zeros, before.values * total / len(before.labels)], axis=1)
            labels = [*labels, *before.labels]
    differs = old is not None or is_difference
    if max(seeds) == 1 and num == 1:  # of one exam nothing is known but the value
        alone = float(new.mean() - (0.0 if old is None else old.mean()))
        return Contrast(alone, alone, alone, None, None, 1, num)
    if max(seeds) == 1:
        steps = (new[0] - old[0]) if old is not None else new[0]
        low, high = bootstrap_interval(steps.tolist(), 0, clusters=labels, bounds=None if differs else (0.0, 1.0))
        p = sign_flip(_sums(steps, labels)).p if differs else None
        return Contrast(float(steps.mean()), low, high, p, None, 1, num)
    spread = combine(new, labels) if old is None else contrast(new, old, labels)
    low, high = spread.interval()
    if not differs:
        low, high = max(0.0, low), min(1.0, high)
    return Contrast(
        spread.mean, low, high, spread.p if differs else None, spread.detectable() if differs else None,
        min(seed for seed in seeds if seed > 1), num,
    )  # fmt: skip


def _sums(values: Floats, labels: Sequence[str]) -> Floats:
    _, codes = np.unique(labels, return_inverse=True)
    sums: Floats = np.bincount(codes, values).astype(np.float64)
    return sums
