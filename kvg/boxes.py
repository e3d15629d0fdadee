"""Box arithmetic on xyxy tensors: area and overlap.

A box is ``(x1, y1, x2, y2)``; any unit will do as long as both sides share it. A box with ``x2 <= x1`` or ``y2 <= y1``
has area 0 and an IoU of 0 with everything, itself included, so that a degenerate answer can never earn anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from kvg.types import Box

MISSING_BOX: Final = (0.0, 0.0, 0.0, 0.0)  # stands for "no box could be read"; degenerate, so its IoU is always 0


def area(boxes: Tensor) -> Tensor:
    """Area of each box, 0 for degenerate ones.

    Args:
        boxes: ``[..., 4]``.

    Returns:
        ``[...]``.

    >>> area(torch.tensor([[0.0, 0.0, 2.0, 3.0], [2.0, 0.0, 0.0, 3.0]]))
    tensor([6., 0.])
    """
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(preds: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of box ``i`` of one list with box ``i`` of the other.

    Args:
        preds: ``[N, 4]`` boxes of the model.
        target: ``[N, 4]`` true boxes in the same unit.

    Returns:
        ``[N]`` in 0-1; 0 where either box is degenerate or NaN.

    Raises:
        ValueError: the shapes differ or do not end in 4.

    >>> iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))  # 2 / (4 + 4 - 2)
    tensor([0.3333])
    """
    if preds.shape != target.shape:
        raise ValueError(f"one target per prediction, got {tuple(preds.shape)} and {tuple(target.shape)}")
    if preds.shape[-1] != 4:
        raise ValueError(f"boxes must end in 4 coordinates, got {tuple(preds.shape)}")
    if not preds.is_floating_point():
        preds = preds.float()
    target = target.to(preds)
    left_top = torch.maximum(preds[..., :2], target[..., :2])
    right_bottom = torch.minimum(preds[..., 2:], target[..., 2:])
    shared = area(torch.cat([left_top, right_bottom], dim=-1))
    union = area(preds) + area(target) - shared
    # A degenerate box can still have a positive "overlap" with nothing, and 0 / 0 where both are degenerate.
    valid = (area(preds) > 0) & (area(target) > 0)
    return torch.where(valid, shared / torch.where(valid, union, torch.ones_like(union)), torch.zeros_like(union))


def box_rows(boxes: Sequence[Box | None]) -> Tensor:
    """Boxes as one tensor, with a row of NaN for each None: a box that could not be read.

    Args:
        boxes: N boxes or None.

    Returns:
        ``[N, 4]`` float64 on the CPU.

    >>> box_rows([(0, 0, 2, 2), None])
    tensor([[0., 0., 2., 2.],
            [nan, nan, nan, nan]], dtype=torch.float64)
    """
    nothing = (math.nan,) * 4
    return torch.tensor([nothing if box is None else box for box in boxes], dtype=torch.float64).reshape(-1, 4)
