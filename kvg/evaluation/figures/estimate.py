"""A mean and how far the luck of the cases drawn could have moved it, as it goes into JSON.

Cases on one picture share its luck, so that pictures are drawn again, not cases (``kvg.stats.bootstrap``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypedDict

from kvg.evaluation.records.prediction import Prediction
from kvg.stats.bootstrap import bootstrap_interval

FEWEST: Final = 20  # cases below which no verdict is given
SHARE: Final = (0.0, 1.0)  # least and greatest value of a hit, a miss and an overlap


class Estimate(TypedDict):
    """A mean of ``n`` cases with its 95% interval, or a difference of two, then of both together."""

    n: int
    value: float
    low: float
    high: float


def pictures_of(cases: Sequence[Prediction]) -> list[Hashable]:
    """The picture of each case; one that does not tell has its own."""
    return [case.image or ("alone", number) for number, case in enumerate(cases)]


def mean_over(
    cases: Sequence[Prediction],
    value: Callable[[Prediction], float],
    seed: int,
    bounds: tuple[float, float] | None = SHARE,
) -> Estimate:
    """Mean of a number a case.

    Args:
        cases: that it is the mean of; at least one.
        value: of a case.
        seed: of the interval.
        bounds: least and greatest value that a case can have; None where there is none.

    Raises:
        ValueError: there is no case.
    """
    values = [float(value(case)) for case in cases]
    low, high = bootstrap_interval(values, seed, clusters=pictures_of(cases), bounds=bounds)
    return Estimate(n=len(values), value=math.fsum(values) / len(values), low=low, high=high)


def mean_if_any(
    cases: Sequence[Prediction],
    value: Callable[[Prediction], float],
    seed: int,
    bounds: tuple[float, float] | None = SHARE,
) -> Estimate | None:
    """As ``mean_over``; None where there is no case."""
    return mean_over(cases, value, seed, bounds) if cases else None


def mean_of_means(
    cases: Sequence[Prediction], value: Callable[[Prediction], float], part: Callable[[Prediction], str], seed: int
) -> Estimate | None:
    """Mean of the means of parts, however many cases each has; None where there are not at least two parts.

    Args:
        cases: of all parts.
        value: of a case, in 0-1.
        part: that a case belongs to, for example its category; where one belongs to none ('') there is no such mean.
        seed: of the interval.
    """
    parts = [part(case) for case in cases]
    names = list(dict.fromkeys(parts))
    if len(names) < 2 or "" in names:
        return None
    values = [float(value(case)) for case in cases]
    means = [
        math.fsum(v for v, own in zip(values, parts, strict=True) if own == name) / parts.count(name) for name in names
    ]
    low, high = bootstrap_interval(values, seed, clusters=pictures_of(cases), strata=parts, bounds=SHARE)
    return Estimate(n=len(values), value=math.fsum(means) / len(means), low=low, high=high)


def difference(first: Estimate, second: Estimate) -> Estimate:
    """What the first has more than the second, of two groups that share no case.

    The interval is put together from those of both (method of variance estimates recovery; Newcombe 1998, Zou and
    Donner 2008). It takes the groups for independent; where they share pictures it is a little too wide.

    >>> a, b = Estimate(n=50, value=0.75, low=0.72, high=0.80), Estimate(n=50, value=0.5, low=0.38, high=0.54)
    >>> found = difference(a, b)  # 0.25 - sqrt(0.03**2 + 0.04**2), 0.25 + sqrt(0.05**2 + 0.12**2)
    >>> found["n"], round(found["value"], 6), round(found["low"], 6), round(found["high"], 6)
    (100, 0.25, 0.2, 0.38)
    """
    value = first["value"] - second["value"]
    below = math.hypot(first["value"] - first["low"], second["high"] - second["value"])
    above = math.hypot(first["high"] - first["value"], second["value"] - second["low"])
    return Estimate(n=first["n"] + second["n"], value=value, low=value - below, high=value + above)


def in_words(estimate: Estimate) -> str:
    """A share in words.

    >>> in_words(Estimate(n=9, value=0.1234, low=0.1, high=0.25))
    '12.3% (10.0 to 25.0)'
    """
    return f"{100 * estimate['value']:.1f}% ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"


def points(estimate: Estimate) -> str:
    """A difference of shares in words.

    >>> points(Estimate(n=9, value=0.1234, low=-0.1, high=0.25))
    '+12.3 points (-10.0 to +25.0)'
    """
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
