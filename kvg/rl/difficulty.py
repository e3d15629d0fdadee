"""Advantages weighted by difficulty: a group counts more or less by the share of its completions that hit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvg.ranges import check_number


@dataclass(frozen=True)
class DifficultyWeight:
    """A factor of all advantages of a group: ``hard + (easy - hard) * p``, p the group's pass rate in 0-1.

    The pass rate is that of the present policy, so a group becomes easier while it is learnt. Both factors above 0 keep
    the sign of each advantage, and their mean in a group stays 0.

    Attributes:
        hard: factor where no completion hits.
        easy: factor where all do.
        iou_threshold: smallest IoU of a hit.

    Raises:
        ConfigError: a value is out of range.
    """

    hard: float = 1.5
    easy: float = 0.5
    iou_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_number("model.difficulty.hard", self.hard, 0)
        check_number("model.difficulty.easy", self.easy, 0)
        check_number("model.difficulty.iou_threshold", self.iou_threshold, 0, 1, above=True)

    def factors(self, overlaps: Tensor, group_size: int) -> Tensor:
        """Factors of the advantages.

        Args:
            overlaps: ``[N]``, the IoU of each completion, 0 where no box can be read; the rows of a group side by side.
            group_size: rows of a group.

        Returns:
            ``[N]``, the same for all rows of a group.

        >>> DifficultyWeight().factors(torch.tensor([0.9, 0.0, 0.2, 0.4, 0.5, 1.0, 0.7, 0.6]), 4)
        tensor([1.2500, 1.2500, 1.2500, 1.2500, 0.5000, 0.5000, 0.5000, 0.5000])
        """
        hits = (overlaps.reshape(-1, group_size) >= self.iou_threshold).to(torch.float32)
        rates = hits.mean(dim=1, keepdim=True)
        return (self.hard + (self.easy - self.hard) * rates).expand_as(hits).reshape(-1)
