"""Paired significance tests of two models on the same cases.

McNemar's test (1947) uses the discordant cases only: ``b`` cases that only the first model answers correctly, ``c``
that only the second does. Under the null hypothesis each discordant case is equally likely to be in either group. The
cases on one picture are correlated, so the plain test has too many false positives. The test here therefore swaps the
models' answers for a whole picture at a time. Where no pictures are shared it equals McNemar's test exactly.

The exact p-value of a discrete test is conservative. The mid-p, which counts outcomes as extreme as the observed one by
half, holds the level and has more power (Fagerland, Lydersen and Laake 2013 recommend it for McNemar's test). The mid-p
decides significance; the exact p-value is reported beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FLIPS = 100_000  # random sign flips for sums that are not integers: p = 0.05 is known to 0.0014 (two standard errors)
_DIGITS = 12  # smaller differences of sums are rounding errors


@dataclass(frozen=True)
class SignTest:
    """Two-sided p-values.

    Attributes:
        p: the mid-p value; it decides significance.
        exact: the exact p-value, which is conservative.
    """

    p: float
    exact: float


def mcnemar(b: int, c: int) -> SignTest:
    """McNemar's test, mid-p and exact.

    Args:
        b: number of cases that only the first model answers correctly.
        c: number of cases that only the second model answers correctly.

    Raises:
        ValueError: a count is negative.

    >>> test = mcnemar(1, 6)  # 2 * (1 + 7) / 2**7, less 7 / 2**7
    >>> round(test.exact, 5), round(test.p, 5)
    (0.125, 0.07031)
    """
    if b < 0 or c < 0:
        raise ValueError("counts cannot be negative")
    return sign_flip(np.array([1] * b + [-1] * c))


def sign_flip(sums: Sequence[float] | NDArray[np.float64], seed: int = 0) -> SignTest:
    """Sign-flip permutation test of independent paired differences.

    Null hypothesis: swapping the two models on any picture leaves the distribution unchanged. If the sums are integers,
    all sign flips are counted exactly. Otherwise 100,000 random flips are used.

    Args:
        sums: difference in correct answers, summed over each picture (or each case where no picture is shared).
        seed: of the random flips; unused for integers.

    >>> sign_flip([2, 1, 1])  # of the 8 sums with signs, 2 reach 4: (+++) and (---)
    SignTest(p=0.125, exact=0.25)
    """
    values = np.round(np.asarray(sums, dtype=np.float64), _DIGITS)
    if not values.any():
        return SignTest(p=1.0, exact=1.0)
    sizes, counts = np.unique(np.abs(values[values != 0]), return_counts=True)
    observed = abs(round(float(values.sum()), _DIGITS))
    if (sizes == np.round(sizes)).all():
        pmf = _distribution(sizes.astype(np.int64).tolist(), counts.tolist())
        reach = abs(np.arange(len(pmf)) - len(pmf) // 2)
        beyond, equal = float(pmf[reach > round(observed)].sum()), float(pmf[reach == round(observed)].sum())
    else:
        resampled = _resampled(sizes, counts, seed)
        # The observed outcome counts as one flip, so that no p-value is 0 (Phipson and Smyth 2010).
        beyond = float((resampled > observed).sum()) / (_FLIPS + 1)
        equal = float((resampled == observed).sum() + 1) / (_FLIPS + 1)
    return SignTest(p=min(1.0, beyond + equal / 2), exact=min(1.0, beyond + equal))


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple comparisons (Holm 1979); controls the family-wise error rate.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def _distribution(sizes: Sequence[int], counts: Sequence[int]) -> NDArray[np.float64]:
    """Probabilities of each value -T to T of a sum with random signs, where T is the sum of all absolute values.

    ``k`` numbers of one size m have the sum m * (2 X - k), X binomial; distributions of several sizes are convolved.
    """
    pmf = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        one = np.zeros(2 * size * count + 1)
        one[:: 2 * size] = _halves(count)
        pmf = np.convolve(pmf, one)
    return pmf


def _halves(num: int) -> NDArray[np.float64]:
    """Binomial probabilities of 0 to ``num`` heads of fair coins."""
    logs = [math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1) for k in range(num + 1)]
    return np.asarray(np.exp(np.array(logs) - num * math.log(2)), dtype=np.float64)


def _resampled(sizes: NDArray[np.float64], counts: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Absolute sums with random signs ``[flips]``."""
    rng = np.random.default_rng(seed)
    total = np.zeros(_FLIPS, dtype=np.float64)
    for size, count in zip(sizes, counts, strict=True):
        total += size * (2 * rng.binomial(count, 0.5, _FLIPS) - count)
    return np.asarray(np.round(np.abs(total), _DIGITS), dtype=np.float64)
