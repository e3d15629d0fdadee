"""Box arithmetic on xyxy tensors: overlap, clipping, scaling.

A box is ``(x1, y1, x2, y2)``; any unit will do as long as both sides share it. A box with ``x2 <= x1`` or ``y2 <= y1``
has area 0 and an IoU of 0 with everything, itself included, so that a degenerate answer can never earn anything.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

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


def _overlap(preds: Tensor, target: Tensor) -> Tensor:
    if preds.shape[-1] != 4 or target.shape[-1] != 4:
        raise ValueError(f"boxes must end in 4 coordinates, got {tuple(preds.shape)} and {tuple(target.shape)}")
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


def iou(preds: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of box ``i`` of one list with box ``i`` of the other.

    Args:
        preds: ``[N, 4]`` boxes of the model.
        target: ``[N, 4]`` true boxes in the same unit.

    Returns:
        ``[N]`` in 0-1; 0 where either box is degenerate.

    Raises:
        ValueError: the shapes differ or do not end in 4.

    >>> iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))  # 2 / (4 + 4 - 2)
    tensor([0.3333])
    """
    if preds.shape != target.shape:
        raise ValueError(f"one target per prediction, got {tuple(preds.shape)} and {tuple(target.shape)}")
    return _overlap(preds, target)


def pairwise_iou(preds: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of every box of one list with every box of the other.

    Args:
        preds: ``[N, 4]``.
        target: ``[M, 4]`` in the same unit.

    Returns:
        ``[N, M]`` in 0-1.

    >>> pairwise_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 2.0]]))
    tensor([[1.0000, 0.5000]])
    """
    return _overlap(preds[:, None], target[None])


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """Boxes cut off at the borders of an image.

    Args:
        boxes: ``[..., 4]`` in the unit of ``width`` and ``height``.
        width: right border.
        height: lower border.

    Returns:
        ``[..., 4]``.

    >>> clip(torch.tensor([-5.0, 2.0, 30.0, 9.0]), width=20, height=8)
    tensor([ 0.,  2., 20.,  8.])
    """
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def scale(boxes: Tensor, factor_x: float, factor_y: float) -> Tensor:
    """Boxes after the image was stretched by ``factor_x`` and ``factor_y``.

    Args:
        boxes: ``[..., 4]``.
        factor_x: new width / old width.
        factor_y: new height / old height.

    Returns:
        ``[..., 4]``.

    >>> scale(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2.0, 0.5)
    tensor([2., 1., 6., 2.])
    """
    return boxes * boxes.new_tensor([factor_x, factor_y, factor_x, factor_y])
