"""Reward for the box: its overlap with the truth, paid only above a gate (stage 2).

The published code gates at 0.8 (v2) and 0.65 (v3) with a strict ``>``; the text of v3 writes ``>=`` and gives no value.
The comparison here is strict, and each run names its own gate.
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
    """The IoU where it exceeds the gate, else 0.

    Only the first answer block is read, and in it the last box. A completion without a closed answer block earns 0,
    however good a box it mentions elsewhere: otherwise the rationale, which quotes every box, would be paid.

    Args:
        iou_threshold: tau in 0-1; the IoU must be strictly greater.
        binary: pay 1 instead of the IoU.
        require_tags: False for policies that answer without tags (prompt ``direct``): a text that holds none of the
            four tags is then read as an answer.

    Raises:
        ConfigError: the gate is outside 0-1.
    """

    def __init__(self, iou_threshold: float = 0.5, binary: bool = False, require_tags: bool = True) -> None:
        if not 0.0 <= iou_threshold < 1.0:
            raise ConfigError(
                "iou_threshold", f"{iou_threshold} would pay everything or nothing; choose a value in [0, 1)"
            )
        self.iou_threshold, self.binary, self.require_tags = iou_threshold, binary, require_tags

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; ``[N]`` in 0-1."""
        check_lengths(answers, samples)
        preds = [answer.box_px if answer.tagged or not self.require_tags else None for answer in answers]
        overlap = iou(box_rows(preds), box_rows([sample.box_px for sample in samples]))
        paid = torch.ones_like(overlap) if self.binary else overlap
        return torch.where(overlap > self.iou_threshold, paid, torch.zeros_like(overlap)).float()
