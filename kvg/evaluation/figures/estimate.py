"""Means with bootstrap confidence intervals, as JSON data.

Cases on one picture are correlated, so pictures are resampled, not cases (``kvg.stats.bootstrap``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypedDict

from kvg.evaluation.records.prediction import Prediction
from kvg.stats.bootstrap import bootstrap_interval

FEWEST: Final = 20  # with fewer cases no verdict is given
SHARE: Final = (0.0, 1.0)  # smallest and greatest value of a share or an IoU


class Estimate(TypedDict):
    """A mean of ``n`` cases with its 95% interval, or a difference of two means, where ``n`` counts both groups."""

    n: int
    value: float
    low: float
    high: float


def pictures_of(cases: Sequence[Prediction]) -> list[Hashable]:
    """The picture of each case; a case without one counts as its own picture."""
    return [case.image or ("alone", number) for number, case in enumerate(cases)]


def mean_over(
    cases: Sequence[Prediction],
    value: Callable[[Prediction], float],
    seed: int,
    bounds: tuple[float, float] | None = SHARE,
) -> Estimate:
    """Mean of a value over cases.

    Args:
        cases: at least one.
        value: value of a case.
        seed: of the interval.
        bounds: smallest and greatest possible value of a case; None if unbounded.

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
    """``mean_over``; None if there is no case."""
    return mean_over(cases, value, seed, bounds) if cases else None


def mean_of_means(
    cases: Sequence[Prediction], value: Callable[[Prediction], float], part: Callable[[Prediction], str], seed: int
) -> Estimate | None:
    """Unweighted mean of the means of parts.

    Args:
        cases: of all parts.
        value: value of a case, in 0-1.
        part: part of a case, for example its category; '' for none.
        seed: of the interval.

    Returns:
        None with fewer than two parts, or if a case has no part.
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
    """The first mean minus the second, for two groups without common cases.

    The interval combines both intervals (method of variance estimates recovery; Newcombe 1998, Zou and Donner 2008). It
    assumes independent groups; if they share pictures it is slightly too wide.

    >>> a, b = Estimate(n=50, value=0.75, low=0.72, high=0.80), Estimate(n=50, value=0.5, low=0.38, high=0.54)
    >>> gap = difference(a, b)  # 0.25 - sqrt(0.03**2 + 0.04**2), 0.25 + sqrt(0.05**2 + 0.12**2)
    >>> gap["n"], round(gap["value"], 6), round(gap["low"], 6), round(gap["high"], 6)
    (100, 0.25, 0.2, 0.38)
    """
    value = first["value"] - second["value"]
    below = math.hypot(first["value"] - first["low"], second["high"] - second["value"])
    above = math.hypot(first["high"] - first["value"], second["value"] - second["low"])
    return Estimate(n=first["n"] + second["n"], value=value, low=value - below, high=value + above)


def in_words(estimate: Estimate) -> str:
    """A share with its interval as text.

    >>> in_words(Estimate(n=9, value=0.1234, low=0.1, high=0.25))
    '12.3% (10.0 to 25.0)'
    """
    return f"{100 * estimate['value']:.1f}% ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"


def points(estimate: Estimate) -> str:
    """A difference of shares with its interval as text.

    >>> points(Estimate(n=9, value=0.1234, low=-0.1, high=0.25))
    '+12.3 points (-10.0 to +25.0)'
    """
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
