"""A conditional logit model that predicts the target from a few features of each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_RIDGE: Final = 1.0  # weight of the L2 penalty; keeps weights finite if one feature separates the targets
_MAX_STEPS: Final = 30  # of Newton's method
_PRIOR: Final = 2.0  # pseudo-count of appearances of each entity, with the target rate of chance


@dataclass(frozen=True)
class Trial:
    """The accuracy of predicting the target from one family of features.

    Attributes:
        family: name of the family.
        accuracy: share of composites whose target is predicted, by two-fold cross-validation.
        chance: accuracy of random guessing: the mean of 1 / number of objects.
        low: lower end of the confidence interval of ``accuracy``.
        high: upper end.
        num: number of composites.
    """

    family: str
    accuracy: float
    chance: float
    low: float
    high: float
    num: int

    @property
    def warns(self) -> bool:
        """Returns whether the accuracy is significantly better than chance."""
        return self.low > self.chance


@dataclass(frozen=True)
class Choices:
    """Composites as data of a choice model.

    Attributes:
        features: ``[composites, objects, features]``, padded to the largest number of objects.
        present: ``[composites, objects]`` bool, False for padding.
        chosen: ``[composites]``, index of the target.
    """

    features: Floats
    present: NDArray[np.bool_]
    chosen: NDArray[np.int64]

    @staticmethod
    def of(rows: Sequence[Sequence[Sequence[float]]], chosen: Sequence[int]) -> Choices:
        """Converts nested lists: composites, their objects, their features."""
        widest, num_features = max(len(row) for row in rows), len(rows[0][0])
        features = np.zeros((len(rows), widest, num_features))
        present = np.zeros((len(rows), widest), bool)
        for number, row in enumerate(rows):
            features[number, : len(row)] = row
            present[number, : len(row)] = True
        return Choices(features, present, np.asarray(chosen))

    def part(self, which: NDArray[np.bool_]) -> Choices:
        """Returns the composites of a mask, ``[composites]`` bool."""
        return Choices(self.features[which], self.present[which], self.chosen[which])


def fit(choices: Choices) -> Floats:
    """Fits a conditional logit: an object with features x is chosen with a probability proportional to exp(w x).

    Args:
        choices: composites with features of about unit standard deviation.

    Returns:
        The weights w, ``[features]``, that maximise the log-likelihood minus ``_RIDGE`` / 2 times |w|^2.
    """
    weights = np.zeros(choices.features.shape[-1])
    best = -np.inf
    step = np.zeros_like(weights)
    for _ in range(_MAX_STEPS):
        utility = np.where(choices.present, choices.features @ (weights + step), -np.inf)
        utility -= utility.max(1, keepdims=True)
        share = np.exp(utility)
        share /= share.sum(1, keepdims=True)
        own = share[np.arange(len(share)), choices.chosen]
        likelihood = np.log(np.maximum(own, 1e-300)).sum() - _RIDGE / 2 * ((weights + step) ** 2).sum()
        if likelihood < best - 1e-9:  # the step was too long
            step = step / 2
            continue
        if likelihood < best + 1e-7:
            break
        weights, best = weights + step, likelihood
        mean = np.einsum("nk,nkd->nd", share, choices.features)
        taken = choices.features[np.arange(len(share)), choices.chosen]
        slope = (taken - mean).sum(0) - _RIDGE * weights
        spread = np.einsum("nk,nkd,nke->de", share, choices.features, choices.features) - mean.T @ mean
        step = np.linalg.solve(spread + _RIDGE * np.eye(len(weights)), slope)
    return weights


def by_features(family: str, choices: Choices, level: float, seed: int = 0) -> Trial:
    """Predicts the targets of each half of the composites with weights that were fitted to the other half.

    Args:
        family: name of these features.
        choices: at least two composites.
        level: confidence level of the interval, in (0, 1).
        seed: seed of the halves.
    """
    half = halves(len(choices.chosen), seed)
    utilities = np.zeros(choices.present.shape)
    for own in (half, ~half):
        learnt = choices.part(~own)
        values = learnt.features[learnt.present]
        scale = values.std(0)
        scale[scale < 1e-12] = 1.0
        middle = values.mean(0)
        weights = fit(Choices((learnt.features - middle) / scale, learnt.present, learnt.chosen))
        utilities[own] = (choices.features[own] - middle) / scale @ weights
    return judged(family, utilities, choices.present, choices.chosen, level)


def by_entity(family: str, entities: Sequence[Sequence[str]], chosen: Sequence[int], level: float, seed: int) -> Trial:
    """Predicts the entity with the highest rate of being the target, given that it is present, in the other half.

    Args:
        family: name of this predictor.
        entities: entities of each composite.
        chosen: index of the target in each composite.
        level: confidence level of the interval, in (0, 1).
        seed: seed of the halves.
    """
    half = halves(len(entities), seed)
    rates = []
    for own in (half, ~half):
        as_target: dict[str, float] = {}
        expected: dict[str, float] = {}
        for number in np.flatnonzero(~own).tolist():
            names = entities[number]
            as_target[names[chosen[number]]] = as_target.get(names[chosen[number]], 0.0) + 1
            for name in names:
                expected[name] = expected.get(name, 0.0) + 1 / len(names)
        rates.append({name: (as_target.get(name, 0.0) + _PRIOR) / (e + _PRIOR) for name, e in expected.items()})
    rows = [[[rates[not half[n]].get(name, 1.0)] for name in names] for n, names in enumerate(entities)]
    choices = Choices.of(rows, chosen)
    return judged(family, choices.features[..., 0], choices.present, choices.chosen, level)


def judged(
    family: str, utilities: Floats, present: NDArray[np.bool_], chosen: NDArray[np.int64], level: float
) -> Trial:
    """Scores the prediction of the object with the highest utility; m tied objects count 1 / m each.

    The interval is the normal approximation for the mean difference between hits and the chance of each composite.
    """
    utilities = np.where(present, utilities, -np.inf)
    ahead = utilities >= utilities.max(1, keepdims=True) - 1e-9
    hits = ahead[np.arange(len(chosen)), chosen] / ahead.sum(1)
    chances = 1 / present.sum(1)
    gains = hits - chances
    reach = NormalDist().inv_cdf((1 + level) / 2) * float(gains.std()) / len(gains) ** 0.5
    chance, accuracy = float(chances.mean()), float(hits.mean())
    return Trial(family, accuracy, chance, max(0.0, accuracy - reach), min(1.0, accuracy + reach), len(chosen))


def halves(num: int, seed: int) -> NDArray[np.bool_]:
    """Returns the mask of a random half of ``num`` items, ``[num]`` bool."""
    half = np.zeros(num, bool)
    half[np.random.default_rng(seed).permutation(num)[: num // 2]] = True
    return half
