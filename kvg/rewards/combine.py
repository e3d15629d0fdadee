"""Several rewards as one: a weighted sum, and the parts for the log."""

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
        weights: weight by the same names; a part that is not named weighs 1.
        penalties: more parts. An overlay adds them without naming all ``parts`` again.

    Raises:
        ConfigError: there are no parts, a name stands twice, or a weight belongs to no part or is not finite.
    """

    def __init__(
        self,
        parts: dict[str, Reward],
        weights: dict[str, float] | None = None,
        penalties: dict[str, Reward] | None = None,
    ) -> None:
        if not parts:
            raise ConfigError("reward.parts", "is empty; name at least one reward")
        twice = sorted(set(parts) & set(penalties or {}))
        if twice:
            raise ConfigError("reward.penalties", f"{', '.join(twice)}: is a part already; give it another name")
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
        for part in self.parts.values():
            part.check_limit(max_new_tokens)

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores completions.

        Args:
            answers: N completions as they were read.
            samples: the N samples they answer.

        Returns:
            The total ``[N]`` float32, and the breakdown: each part's own ``[N]``, before its weight.

        Raises:
            ValueError: the lists differ in length.
            TrainingError: a part is NaN or infinite.
        """
        check_lengths(answers, samples)
        breakdown = {name: part(answers, samples) for name, part in self.parts.items()}
        total = torch.zeros(len(answers))
        for name, scores in breakdown.items():
            if not bool(torch.isfinite(scores).all()):
                row = int((~torch.isfinite(scores)).nonzero()[0])
                remedy = f"is {float(scores[row])} for sample {samples[row].key}; mend this part"
                raise TrainingError(f"reward {name}", remedy)
            total = total + self.weights[name] * scores
        return total, breakdown
