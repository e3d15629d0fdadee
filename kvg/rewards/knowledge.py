"""IoU reward scaled by how well the model knows the entity (KARL, DeepPerception v3, equation 1).

Entities with a low probe accuracy get a larger reward for a hit and no penalty for a miss; well-known entities get a
smaller reward and a penalty. All completions of a group have the same entity, so dividing advantages by the group's
standard deviation cancels most of the scale (README, "Knowledge-aware reward"): use ``advantage: batch_std`` or
``none``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvg.benchmark import KNOWLEDGE, LEVEL_BOUNDS
from kvg.errors import ConfigError, DataError
from kvg.rewards.accuracies import read_accuracies
from kvg.rewards.iou import IoUReward
from kvg.text.answer import Answer
from kvg.text.names import clean_name
from kvg.types import Sample


@dataclass(frozen=True)
class Level:
    """A mastery level, with its effect on the reward.

    Attributes:
        name: display name.
        min_accuracy: smallest probe accuracy of this level, in 0-1.
        scale: factor of the IoU where it exceeds the threshold; the product is clipped at 1.
        penalty: reward where the IoU does not exceed the threshold.
    """

    name: str
    min_accuracy: float
    scale: float
    penalty: float


_PAYMENTS = ((0.65, -0.6), (0.85, -0.5), (1.0, -0.4), (1.2, -0.2), (1.4, 0.0))  # scale and penalty
# As published (v3, table 6, the last search), highest level first.
PUBLISHED = tuple(Level(*level, *pay) for level, pay in zip(LEVEL_BOUNDS.items(), _PAYMENTS, strict=True))


class KnowledgeReward(IoUReward):
    """The IoU reward, scaled by the mastery level of the entity.

    As published: an entity that is not in the table has the lowest level, and a completion without an answer block gets
    0, not the penalty.

    Args:
        accuracies: JSON file, an object of entity: probe accuracy in 0-1. None uses the samples' own ``knowledge``:
            ``known`` is the highest level, everything else the lowest.
        levels: highest level first.
        iou_threshold: see ``IoUReward``.
        require_tags: see ``IoUReward``.

    Raises:
        ConfigError: the file cannot be read, or the levels are not in order.
    """

    def __init__(
        self,
        accuracies: str | None = None,
        levels: Sequence[Level] = PUBLISHED,
        iou_threshold: float = 0.65,
        require_tags: bool = True,
    ) -> None:
        super().__init__(iou_threshold, False, require_tags)
        self.levels = tuple(levels)
        bounds = [level.min_accuracy for level in self.levels]
        if not bounds or bounds != sorted(bounds, reverse=True) or bounds[-1] > 0:
            raise ConfigError("reward.levels", f"min_accuracy {bounds}: must fall, and end with 0")
        self.accuracies = None if accuracies is None else _read(accuracies)

    def level(self, sample: Sample) -> Level:
        """The mastery level of the sample's entity."""
        if self.accuracies is None:
            return self.levels[0] if sample.knowledge == KNOWLEDGE[0] else self.levels[-1]
        accuracy = self.accuracies.get(clean_name(sample.entity), 0.0)
        return next(level for level in self.levels if accuracy >= level.min_accuracy)

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; ``[N]`` from the largest penalty to 1."""
        paid = super().__call__(answers, samples)
        levels = [self.level(sample) for sample in samples]
        scaled = (paid * torch.tensor([level.scale for level in levels])).clamp(max=1.0)
        missed = torch.tensor([level.penalty for level in levels])
        answered = torch.tensor([not self.require_tags or answer.tagged for answer in answers])
        return torch.where(paid > 0, scaled, torch.where(answered, missed, torch.zeros_like(missed)))


def _read(path: str) -> dict[str, float]:
    try:
        return read_accuracies(path)
    except DataError as error:
        raise ConfigError("reward.accuracies", f"{error}; give the file of `kvg-data probe`") from error
