"""Whether two models differ on the same cases, or whether luck would do as well.

Only cases that one model has right and the other wrong can tell: ``b`` and ``c`` of them. If neither model is better,
each could as well have fallen to the other side, which is McNemar's test (1947). Cases on one picture fall together,
though: a model that errs about a picture errs about several of its cases, and counting these as so many witnesses calls
differences between equal models significant too often. So it is the picture whose sides are changed, with all its
cases at once. Without shared pictures that is McNemar's test, number for number.

Of a discrete test the exact p-value is too large on average. The mid-p, which counts what is as extreme as what was
seen by half, keeps its level and loses less (Fagerland, Lydersen and Laake 2013, who recommend it for McNemar's test).
It decides; the exact one stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FLIPS = 100_000  # drawn where sums are no whole numbers: a p-value of 0.05 is known to 0.0014 (two standard errors)
_DIGITS = 12  # sums that differ by less differ by rounding


@dataclass(frozen=True)
class SignTest:
    """Two-sided p-values.

    Attributes:
        p: the mid-p, which decides.
        exact: never called significant too often, and too seldom therefore.
    """

    p: float
    exact: float


def mcnemar(b: int, c: int) -> SignTest:
    """McNemar's test, mid-p and exact.

    Args:
        b: cases that only the one model has right.
        c: cases that only the other has right.

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
    """Exact test of paired differences by the signs of sums that are independent of each other.

    Its null hypothesis is that the models are equal in this sense: had they changed sides on a picture, with all its
    cases, the outcome would have been as likely. All ways of changing sides are counted where the sums are whole
    numbers, and 100,000 drawn otherwise.

    Args:
        sums: differences of right answers, summed over each picture, or over each case where none is shared.
        seed: of the draw; whole numbers need none.

    >>> sign_flip([2, 1, 1])  # of the 8 sums with signs, 2 reach 4: (+++) and (---)
    SignTest(p=0.125, exact=0.25)
    """
    values = np.round(np.asarray(sums, dtype=np.float64), _DIGITS)
    if not values.any():
        return SignTest(p=1.0, exact=1.0)
    sizes, counts = np.unique(np.abs(values[values != 0]), return_counts=True)
    seen = abs(round(float(values.sum()), _DIGITS))
    if (sizes == np.round(sizes)).all():
        pmf = _distribution(sizes.astype(np.int64).tolist(), counts.tolist())
        reach = abs(np.arange(len(pmf)) - len(pmf) // 2)
        beyond, equal = float(pmf[reach > round(seen)].sum()), float(pmf[reach == round(seen)].sum())
    else:
        resampled = _resampled(sizes, counts, seed)
        # What was seen is one of the ways, so that no p-value is 0 (Phipson and Smyth 2010).
        beyond = float((resampled > seen).sum()) / (_FLIPS + 1)
        equal = float((resampled == seen).sum() + 1) / (_FLIPS + 1)
    return SignTest(p=min(1.0, beyond + equal / 2), exact=min(1.0, beyond + equal))


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for how many there are (Holm 1979): where all models are equal, any is small as seldom as one.

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
    """Of the sum of numbers with signs by lot: probabilities of -T to T, T being the sum of all the sizes.

    ``k`` numbers of one size m give m * (2 X - k), X binomial; numbers of several sizes are convolved.
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
    """Absolute sums with signs by lot ``[flips]``."""
    rng = np.random.default_rng(seed)
    total = np.zeros(_FLIPS, dtype=np.float64)
    for size, count in zip(sizes, counts, strict=True):
        total += size * (2 * rng.binomial(count, 0.5, _FLIPS) - count)
    return np.asarray(np.round(np.abs(total), _DIGITS), dtype=np.float64)
