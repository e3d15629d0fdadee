"""The sampling structure of a group of cases, and the estimates that respect it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvg.evaluation.comparison.matching import MEAN, CaseGroup, Matched
from kvg.evaluation.figures.estimate import Estimate
from kvg.stats.bootstrap import bootstrap_interval, codes_of, unseen_share
from kvg.stats.seeds import Spread


@dataclass(frozen=True)
class ClusteredSample:
    """N cases, clustered by picture and, for a category mean, stratified by category.

    Attributes:
        pictures: the picture of each case: the cluster.
        strata: the category of each case, for a category mean; None otherwise.
        weights: ``[N]`` with sum 1: equal, or equal within each category with the same total per category.
    """

    pictures: list[str]
    strata: list[str] | None
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, matched: Matched, group: CaseGroup) -> ClusteredSample:
        """The cases of a group."""
        pictures = [matched.pictures[i] for i in group.members]
        strata = [matched.fields["category"][i] for i in group.members] if group.by == MEAN else None
        codes = np.zeros(len(pictures), dtype=np.int64) if strata is None else codes_of(strata, len(pictures))
        sizes = np.bincount(codes)
        return cls(pictures, strata, 1 / (len(sizes) * sizes[codes]))

    @property
    def num_pictures(self) -> int:
        """Number of distinct pictures."""
        return len(set(self.pictures))

    def mean(self, values: NDArray[np.float64]) -> float:
        """The mean of values ``[N]``; for a category mean the mean of the categories' means."""
        if self.strata is None:
            return float(values.mean())
        codes = codes_of(self.strata, len(values))
        return float((np.bincount(codes, values) / np.bincount(codes)).mean())

    def by_bootstrap(
        self, values: NDArray[np.float64], seed: int, level: float, bounds: tuple[float, float]
    ) -> Estimate:
        """The mean of one run's values ``[N]`` with its bootstrap interval, see ``bootstrap_interval``."""
        low, high = bootstrap_interval(
            values.tolist(), seed, level=level, clusters=self.pictures, strata=self.strata, bounds=bounds
        )
        return self._estimate(self.mean(values), low, high)

    def by_spread(
        self, spread: Spread, values: NDArray[np.float64], level: float, bounds: tuple[float, float]
    ) -> Estimate:
        """The mean over several seeds with its interval; ``values`` ``[N]`` are the means of the cases.

        If all values are equal, or all cases are on one picture, the interval is widened: see ``bounds`` of
        ``bootstrap_interval``.
        """
        low, high = spread.interval(level)
        if self.num_pictures == 1 or (values == values[0]).all():
            share = unseen_share(self.num_pictures, (1 - level) / 2)
            low, high = low - share * (low - bounds[0]), high + share * (bounds[1] - high)
        return self._estimate(spread.mean, max(low, bounds[0]), min(high, bounds[1]))

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of values ``[N]`` per picture, weighted for a category mean."""
        codes = codes_of(self.pictures, len(self.pictures))
        sums: NDArray[Any] = np.bincount(codes, values if self.strata is None else values * self.weights)
        return sums.astype(np.float64)

    def _estimate(self, value: float, low: float, high: float) -> Estimate:
        return Estimate(n=len(self.pictures), value=value, low=low, high=high)
