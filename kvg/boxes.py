"""Box arithmetic on xyxy tensors: area, overlap, and the cells of a grid that boxes cover.

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


def cell_owners(boxes: Sequence[Box], width: float, height: float, rows: int, columns: int) -> Tensor:
    """Index of the box that covers the largest part of each cell of a grid over a picture, such as its visual tokens.

    Args:
        boxes: in pixels.
        width: of the picture, pixels.
        height: of the picture, pixels.
        rows: of the grid.
        columns: of the grid.

    Returns:
        ``[rows * columns]``, row by row; -1 where no box covers a fifth of the cell.

    >>> cell_owners([(0, 0, 10, 20), (12, 0, 40, 9)], 40, 20, 2, 4)  # cells of 10 x 10; 8 of 10 columns of the second
    tensor([ 0,  1,  1,  1,  0, -1, -1, -1])
    """
    if not boxes:
        return torch.full((rows * columns,), -1)
    corners = torch.tensor(boxes, dtype=torch.float64)
    cell_w, cell_h = width / columns, height / rows
    x, y = torch.arange(columns) * cell_w, torch.arange(rows) * cell_h
    wide = (torch.minimum(corners[:, 2, None], x + cell_w) - torch.maximum(corners[:, 0, None], x)).clamp(min=0)
    high = (torch.minimum(corners[:, 3, None], y + cell_h) - torch.maximum(corners[:, 1, None], y)).clamp(min=0)
    cover, owner = (high[:, :, None] * wide[:, None, :]).flatten(1).max(0)
    return torch.where(cover >= 0.2 * cell_w * cell_h, owner, -1)
