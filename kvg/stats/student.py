"""Student's t for whole degrees of freedom, in closed form."""

from __future__ import annotations

import math
from statistics import NormalDist

_LARGE = 100  # degrees of freedom from which a quantile is taken from its series
_MANY = 1000  # from which T is taken for normal
_EXACT = 1e-11  # of a quantile, relative


def t_tail(value: float, df: int) -> float:
    """Two-sided tail: the chance that |T| is at least ``value``.

    Finite sums in theta = atan(t / sqrt(df)), Abramowitz and Stegun 26.7.3 and 26.7.4.

    Args:
        value: at least 0.
        df: degrees of freedom, at least 1; with 1,000 and more T is taken for normal.

    >>> round(t_tail(4.302653, 2), 6), round(t_tail(12.706205, 1), 6)
    (0.05, 0.05)
    """
    if df >= _MANY:
        return math.erfc(value / math.sqrt(2))
    theta = math.atan(value / math.sqrt(df))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    term, total = (math.cos(theta), 0.0) if df % 2 else (1.0, 0.0)
    for k in range(1 if df % 2 else 0, df - 1, 2):
        total += term
        term *= square * (k + 1) / (k + 2)
    inside = 2 / math.pi * (theta + sine * total) if df % 2 else sine * total
    return max(0.0, 1 - inside)


def t_quantile(tail: float, df: int) -> float:
    """The value that |T| reaches with a chance of ``tail``.

    By bisection; with many degrees of freedom by the series around the normal quantile, Abramowitz and Stegun 26.7.5.

    Args:
        tail: two-sided, in (0, 1].
        df: degrees of freedom, at least 1.

    >>> round(t_quantile(0.05, 2), 4), round(t_quantile(0.05, 4), 4), round(t_quantile(0.05, 500), 4)
    (4.3027, 2.7764, 1.9647)
    """
    if df >= _LARGE:
        z = NormalDist().inv_cdf(1 - tail / 2)
        first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / df + second / df**2 + third / df**3
    low, high = 0.0, 1.0
    while t_tail(high, df) > tail:
        low, high = high, 2 * high
    while high - low > _EXACT * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > tail else (low, middle)
    return high
