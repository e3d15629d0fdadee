"""A conditional logit model: how well a few numbers about each object predict which object is the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_RIDGE: Final = 1.0  # keeps weights finite where one number tells everything
_STEPS: Final = 30
_PRIOR: Final = 2.0  # appearances that each entity is taken to have had at the rate of chance


@dataclass(frozen=True)
class Trial:
    """What came of guessing by one family of numbers alone.

    Attributes:
        family: its name.
        accuracy: share of composites whose object was found, by a predictor that had not seen them.
        chance: the mean of one over the number of objects.
        low: lower end of the interval of ``accuracy``.
        high: upper end.
        num: composites.
    """

    family: str
    accuracy: float
    chance: float
    low: float
    high: float
    num: int

    @property
    def warns(self) -> bool:
        """Whether it is better than chance beyond doubt."""
        return self.low > self.chance


@dataclass(frozen=True)
class Choices:
    """Composites as a matter of choice.

    Attributes:
        features: ``[composites, objects, features]``; anything where there is no object.
        present: ``[composites, objects]``, whether there is one.
        chosen: ``[composites]``, index of the one asked for.
    """

    features: Floats
    present: NDArray[np.bool_]
    chosen: NDArray[np.int64]

    @staticmethod
    def of(rows: Sequence[Sequence[Sequence[float]]], chosen: Sequence[int]) -> Choices:
        """Of lists: composites, their objects, their features."""
        widest, num_features = max(len(row) for row in rows), len(rows[0][0])
        features = np.zeros((len(rows), widest, num_features))
        present = np.zeros((len(rows), widest), bool)
        for number, row in enumerate(rows):
            features[number, : len(row)] = row
            present[number, : len(row)] = True
        return Choices(features, present, np.asarray(chosen))

    def part(self, which: NDArray[np.bool_]) -> Choices:
        """Some of the composites."""
        return Choices(self.features[which], self.present[which], self.chosen[which])


def fit(choices: Choices) -> Floats:
    """Weights of a conditional logit: the object with features x is chosen with a chance in proportion to exp(w x).

    Args:
        choices: with features of about unit deviation.

    Returns:
        ``[features]``, which make the choices most likely (less half the square of their length).
    """
    weights = np.zeros(choices.features.shape[-1])
    best = -np.inf
    step = np.zeros_like(weights)
    for _ in range(_STEPS):
        utility = np.where(choices.present, choices.features @ (weights + step), -np.inf)
        utility -= utility.max(1, keepdims=True)
        share = np.exp(utility)
        share /= share.sum(1, keepdims=True)
        own = share[np.arange(len(share)), choices.chosen]
        likelihood = np.log(np.maximum(own, 1e-300)).sum() - _RIDGE / 2 * ((weights + step) ** 2).sum()
        if likelihood < best - 1e-9:  # too far
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
    """Guesses each half of the composites by weights that were fitted to the other half.

    Args:
        family: name of these features.
        choices: at least two.
        level: of the interval, in (0, 1).
        seed: of the halves.
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
    """Guesses the entity that was asked for most often, given that it was there, in the other half.

    Args:
        family: name of this.
        entities: of each composite.
        chosen: index of the one asked for.
        level: of the interval, in (0, 1).
        seed: of the halves.
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
    """Whether the object with the highest utility is the one asked for; a tie is a draw by lot.

    The interval is that of the mean difference to the chance of each composite, by its normal approximation.
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
    """A random half of ``num`` things."""
    half = np.zeros(num, bool)
    half[np.random.default_rng(seed).permutation(num)[: num // 2]] = True
    return half
