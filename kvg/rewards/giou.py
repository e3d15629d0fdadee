"""Reward by generalised IoU (arXiv 1902.09630), which also ranks boxes that do not overlap the true one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvg.boxes import area, box_rows, iou
from kvg.rewards.base import Reward, check_lengths
from kvg.text.answer import Answer
from kvg.types import Sample


class GIoUReward(Reward):
    """(1 + GIoU) / 2: 1 for the true box, 0.5 for a box beside it without a gap, and less farther away.

    A completion without a closed answer block or without a box gets 0.

    Args:
        require_tags: see ``IoUReward``.
    """

    def __init__(self, require_tags: bool = True) -> None:
        self.require_tags = require_tags

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; ``[N]`` in 0-1."""
        check_lengths(answers, samples)
        preds = box_rows([answer.box_px if answer.tagged or not self.require_tags else None for answer in answers])
        target = box_rows([sample.box_px for sample in samples])
        overlap = iou(preds, target)
        corners = torch.cat([torch.minimum(preds[:, :2], target[:, :2]), torch.maximum(preds[:, 2:], target[:, 2:])], 1)
        frame = area(corners)
        union = (area(preds) + area(target)) / (1 + overlap)  # since IoU = shared / union and shared = sum - union
        paid = (1 + overlap - (frame - union) / frame) / 2
        return torch.where(area(preds) > 0, paid, torch.zeros_like(paid)).float()
