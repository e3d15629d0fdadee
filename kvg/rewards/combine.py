"""Combines rewards into a weighted sum, and keeps the components for the log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kvg.errors import ConfigError, TrainingError
from kvg.rewards.base import Reward, check_lengths
from kvg.text.answer import Answer
from kvg.types import Sample


class WeightedReward:
    """Sum of rewards, each times its weight; the published total is IoU + format, both with weight 1.

    Args:
        parts: rewards by the name that they are logged under.
        weights: weights by the same names; the default is 1.
        penalties: further parts. An overlay can add them without repeating ``parts``.
        constraints: rewards in 0-1 that the sum is multiplied by, so that nothing is paid where one of them is 0.

    Raises:
        ConfigError: there are no parts, a name occurs twice, or a weight has no part or is not finite.
    """

    def __init__(
        self,
        parts: dict[str, Reward],
        weights: dict[str, float] | None = None,
        penalties: dict[str, Reward] | None = None,
        constraints: dict[str, Reward] | None = None,
    ) -> None:
        if not parts:
            raise ConfigError("reward.parts", "is empty; name at least one reward")
        twice = sorted(set(parts) & set(penalties or {}))
        if twice:
            raise ConfigError("reward.penalties", f"{', '.join(twice)}: is already a part; rename it")
        self.constraints: Mapping[str, Reward] = constraints or {}
        if both := sorted({*parts, *(penalties or {})} & set(self.constraints)):
            raise ConfigError("reward.constraints", f"{', '.join(both)}: is already a part; rename it")
        parts = {**parts, **(penalties or {})}
        unknown = sorted(set(weights or {}) - set(parts))
        if unknown:
            raise ConfigError("reward.weights", f"{', '.join(unknown)}: no such part; parts are {', '.join(parts)}")
        for name, weight in (weights or {}).items():
            if not math.isfinite(weight):
                raise ConfigError("reward.weights", f"{name} has {weight}; give a finite number")
        self.parts: Mapping[str, Reward] = parts
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in parts}

    def check_limit(self, max_new_tokens: int) -> None:
        """See ``Reward.check_limit``, for each part."""
        for part in (*self.parts.values(), *self.constraints.values()):
            part.check_limit(max_new_tokens)

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores completions.

        Args:
            answers: N parsed completions.
            samples: the N samples that they answer.

        Returns:
            The total ``[N]`` float32, and the unweighted components ``[N]`` by name.

        Raises:
            ValueError: the lists differ in length.
            TrainingError: a component is NaN or infinite.
        """
        check_lengths(answers, samples)
        every = {**self.parts, **self.constraints}
        breakdown = {name: part(answers, samples) for name, part in every.items()}
        total = torch.zeros(len(answers))
        for name, scores in breakdown.items():
            if not bool(torch.isfinite(scores).all()):
                row = int((~torch.isfinite(scores)).nonzero()[0])
                remedy = f"is {float(scores[row])} for sample {samples[row].key}; correct this reward"
                raise TrainingError(f"reward {name}", remedy)
            if name in self.parts:
                total = total + self.weights[name] * scores
        for name in self.constraints:
            total = total * breakdown[name]
        return total, breakdown
