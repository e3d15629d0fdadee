"""Bootstrap confidence intervals: the sampling uncertainty of a score.

Cases on one picture are correlated, so the picture is the sampling unit: 1,336 cases on 531 pictures carry less
information than 1,336 pictures would. With ``clusters``, whole clusters are resampled, and a mean is the ratio of two
sums, because the number of cases varies between resamples (Field and Welsh 2007, the cluster bootstrap). Clusters must
be independent of each other; cases within a cluster need not be.

Clusters with the same totals form one kind, and the number of times that each kind is sampled is multinomial. Sampling
kinds is equivalent to sampling clusters and faster, because hits and misses give few kinds: 1,336 cases take 14 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CHUNK = 4_000_000  # sampled indices held in memory at once: 32 MB
_KIND_COST = 8  # cost of one multinomial count of a kind, in samples of a cluster


def bootstrap_interval(
    values: Sequence[float],
    seed: int,
    num: int = 2000,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    strata: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    It assumes that the cases, or the clusters, are independent samples of a population. It covers the uncertainty due
    to the cases, not the variation between training seeds (see ``kvg.stats.seeds``). It is slightly too narrow: with
    531 pictures, 95% intervals missed the true value in 5.5% of 8,000 simulated comparisons. With fewer than about 20
    clusters the coverage is lower.

    Args:
        values: N numbers, one per case: 0 or 1 for an accuracy, the difference of two models for a paired comparison.
        seed: the same seed gives the same interval.
        num: number of resamples.
        level: confidence level, in (0, 1).
        clusters: one label per case, for example its picture; without them each case is its own cluster.
        strata: one label per case, for example its category. Each stratum is resampled at its own size, and the
            statistic is the unweighted mean of the strata's means: the category mean.
        bounds: smallest and greatest possible value of a case. If all values are equal, resampling gives an interval
            of width 0. With ``bounds`` the interval then extends by the largest share of other values that a sample of
            this size misses (for 0 and 1 this is the exact interval of Clopper and Pearson).

    Returns:
        ``(low, high)`` in the unit of ``values``.

    Raises:
        ValueError: ``values`` is empty, ``num`` is below 1, ``level`` is outside (0, 1), or labels are missing.

    >>> bootstrap_interval([0.25] * 10, seed=0)
    (0.25, 0.25)
    >>> bootstrap_interval([1.0] * 10, seed=0, bounds=(0.0, 1.0))  # 0.025 ** (1 / 10)
    (0.6915028921812392, 1.0)
    """
    if not len(values) or num < 1 or not 0 < level < 1:
        raise ValueError("needs at least one value, num >= 1 and a level in (0, 1)")
    numbers = np.asarray(values, dtype=np.float64)
    tail = (1 - level) / 2
    if (numbers == numbers[0]).all():
        low = high = float(numbers[0])
        if bounds:
            share = unseen_share(len(numbers) if clusters is None else len(set(clusters)), tail)
            low, high = low - share * (low - bounds[0]), high + share * (bounds[1] - high)
        return low, high
    columns = np.stack([numbers, np.ones_like(numbers)], axis=1)
    means = [sums[:, 0] / sums[:, 1] for sums in _strata_sums(columns, seed, num, clusters, strata)]
    low, high = np.quantile(np.mean(means, axis=0), [tail, 1 - tail]).tolist()
    return low, high


def statistic_interval(
    statistic: Callable[[Floats], Floats],
    columns: Any,
    seed: int,
    num: int = 2000,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    strata: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of any statistic of sums over the cases.

    Args:
        statistic: maps sums ``[num, K]`` to values ``[num]``.
        columns: ``[N, K]``, the summands, one row per case.
        seed: the same seed gives the same interval.
        num: number of resamples.
        level: confidence level, in (0, 1).
        clusters: one label per case, for example its picture.
        strata: one label per case. Each stratum is resampled at its own size, so that none is empty; the sums of the
            strata are added.

    Returns:
        ``(low, high)`` in the unit of the statistic.

    Raises:
        ValueError: there is no case, ``num`` is below 1, ``level`` is outside (0, 1), or labels are missing.

    The gap between two groups, where one group has accuracy 1 and the other accuracy 0:

    >>> hits = [[1, 1, 0, 0]] * 5 + [[0, 0, 0, 1]] * 5  # hit and count of group 1, hit and count of group 2
    >>> gap = lambda s: s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3]
    >>> statistic_interval(gap, hits, seed=0, strata=[0] * 5 + [1] * 5)
    (1.0, 1.0)
    """
    table = np.asarray(columns, dtype=np.float64)
    if not len(table) or num < 1 or not 0 < level < 1:
        raise ValueError("needs at least one value, num >= 1 and a level in (0, 1)")
    resampled = statistic(np.sum(_strata_sums(table, seed, num, clusters, strata), axis=0))
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def unseen_share(num: int, tail: float) -> float:
    """The largest population share of a kind that a sample of ``num`` misses with probability ``tail``.

    >>> round(unseen_share(59, 0.05), 3)
    0.05
    """
    return float(1 - tail ** (1 / num))


def codes_of(labels: Sequence[Hashable] | None, num: int) -> NDArray[np.int64]:
    """Integer codes of labels ``[num]``, in order of first occurrence; without labels each case has its own code.

    Raises:
        ValueError: the number of labels is not ``num``.

    >>> codes_of(["b", "a", "b"], 3).tolist()
    [0, 1, 0]
    """
    if labels is None:
        return np.arange(num)
    if len(labels) != num:
        raise ValueError(f"{len(labels)} labels for {num} cases")
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels], dtype=np.int64)


def _strata_sums(
    columns: Floats, seed: int, num: int, clusters: Sequence[Hashable] | None, strata: Sequence[Hashable] | None
) -> list[Floats]:
    """Sums of each resample, one table ``[num, K]`` per stratum; a cluster in several strata is split by stratum."""
    rng = np.random.default_rng(seed)
    units = codes_of(clusters, len(columns))
    where = np.zeros(len(columns), dtype=np.int64) if strata is None else codes_of(strata, len(columns))
    return [_sums(columns[where == s], units[where == s], num, rng) for s in range(int(where.max()) + 1)]


def _sums(columns: Floats, units: NDArray[np.int64], num: int, rng: np.random.Generator) -> Floats:
    _, members = np.unique(units, return_inverse=True)
    num_units = int(members.max()) + 1
    totals = np.stack([np.bincount(members, column, num_units) for column in columns.T], axis=1)  # [C, K]
    kinds, counts = np.unique(totals, axis=0, return_counts=True)  # [T, K], [T]
    few = len(kinds) * _KIND_COST < num_units
    step = max(1, _CHUNK // num_units)
    parts = []
    for start in range(0, num, step):
        rows = min(step, num - start)
        if few:
            resampled = rng.multinomial(num_units, counts / num_units, size=rows).astype(np.float64)  # [rows, T]
            parts.append(np.einsum("rt,tk->rk", resampled, kinds))  # no BLAS: the same on any machine
        else:
            picks = rng.integers(num_units, size=(rows, num_units))
            parts.append(np.stack([column[picks].sum(axis=1) for column in totals.T], axis=1))
    return np.concatenate(parts)
