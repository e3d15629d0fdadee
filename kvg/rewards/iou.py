"""IoU reward of stage 2: the IoU of the predicted and the true box where it exceeds a threshold.

The published code uses thresholds of 0.8 (v2) and 0.65 (v3) with a strict ``>``; the text of v3 writes ``>=`` without a
value. The comparison here is strict, and each config sets its own threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvg.boxes import box_rows, iou
from kvg.errors import ConfigError
from kvg.rewards.base import Reward, check_lengths
from kvg.text.answer import Answer
from kvg.types import Sample


class IoUReward(Reward):
    """The IoU where it exceeds the threshold, else 0.

    The box is the last one in the first answer block. A completion without a closed answer block gets 0: otherwise the
    boxes that a rationale quotes would be rewarded.

    Args:
        iou_threshold: tau in [0, 1); the IoU must be strictly greater.
        binary: reward 1 instead of the IoU.
        require_tags: False for policies that answer without tags (prompt ``direct``): a text with none of the four tags
            is then read as an answer.

    Raises:
        ConfigError: the threshold is outside [0, 1).
    """

    def __init__(self, iou_threshold: float = 0.5, binary: bool = False, require_tags: bool = True) -> None:
        if not 0.0 <= iou_threshold < 1.0:
            raise ConfigError(
                "iou_threshold", f"{iou_threshold} would reward everything or nothing; choose a value in [0, 1)"
            )
        self.iou_threshold, self.binary, self.require_tags = iou_threshold, binary, require_tags

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; ``[N]`` in 0-1."""
        check_lengths(answers, samples)
        preds = [answer.box_px if answer.tagged or not self.require_tags else None for answer in answers]
        overlap = iou(box_rows(preds), box_rows([sample.box_px for sample in samples]))
        paid = torch.ones_like(overlap) if self.binary else overlap
        return torch.where(overlap > self.iou_threshold, paid, torch.zeros_like(overlap)).float()
