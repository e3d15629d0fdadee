"""Several rewards as one: a weighted sum, and the parts for the log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kvg.errors import ConfigError, TrainingError
from kvg.rewards.base import Reward, check_lengths
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.types import Sample


class WeightedReward:
    """Sum of rewards, each times its weight; the published total is IoU + format, both with weight 1.

    Args:
        parts: rewards by the name that they are logged under.
        weights: weight by the same names; a part that is not named weighs 1.

    Raises:
        ConfigError: there are no parts, or a weight belongs to none of them or is not finite.
    """

    def __init__(self, parts: dict[str, Reward], weights: dict[str, float] | None = None) -> None:
        if not parts:
            raise ConfigError("reward.parts", "is empty; name at least one reward")
        unknown = sorted(set(weights or {}) - set(parts))
        if unknown:
            raise ConfigError("reward.weights", f"{', '.join(unknown)}: no such part; parts are {', '.join(parts)}")
        for name, weight in (weights or {}).items():
            if not math.isfinite(weight):
                raise ConfigError("reward.weights", f"{name} has {weight}; give a finite number")
        self.parts: Mapping[str, Reward] = dict(parts)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in parts}

    def __call__(
        self, texts: Sequence[str], samples: Sequence[Sample], codec: BoxCodec, sizes: Sequence[ImageSize]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores completions.

        Args:
            texts: N completions.
            samples: the N samples they answer.
            codec: box convention of the policy's backbone.
            sizes: sizes of the N images.

        Returns:
            The total ``[N]`` float32, and the breakdown: each part's own ``[N]``, before its weight.

        Raises:
            ValueError: the lists differ in length.
            TrainingError: a part is NaN or infinite.
        """
        check_lengths(texts, samples, sizes)
        breakdown = {name: part(texts, samples, codec, sizes) for name, part in self.parts.items()}
        total = torch.zeros(len(texts))
        for name, scores in breakdown.items():
            if not bool(torch.isfinite(scores).all()):
                row = int((~torch.isfinite(scores)).nonzero()[0])
                remedy = f"is {float(scores[row])} for sample {samples[row].key}; mend this part"
                raise TrainingError(f"reward {name}", remedy)
            total = total + self.weights[name] * scores
        return total, breakdown
