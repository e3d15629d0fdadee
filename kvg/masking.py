"""Sums and means over the tokens that count.

One convention everywhere: a mask is ``bool`` and True means "counts". Values under False are never read, so a NaN in
the padding cannot reach a loss.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the values that count.

    Args:
        values: ``[...]``.
        mask: bool, same shape, True = counts.
        dim: axis to sum over; None sums everything.

    Returns:
        A scalar, or ``values`` without axis ``dim``; 0 where nothing counts.

    Raises:
        TypeError: ``mask`` is not bool.

    >>> masked_sum(torch.tensor([[1.0, 2.0], [3.0, float("nan")]]), torch.tensor([[True, True], [True, False]]), dim=1)
    tensor([3., 3.])
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"a mask is bool with True = counts, got {mask.dtype}")
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the values that count.

    Args:
        values: ``[...]``.
        mask: bool, same shape, True = counts.
        dim: axis to average over; None averages everything.

    Returns:
        A scalar, or ``values`` without axis ``dim``; 0 where nothing counts.

    Raises:
        TypeError: ``mask`` is not bool.

    >>> masked_mean(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]))
    tensor(1.5000)
    """
    total = masked_sum(values, mask, dim)
    count = mask.sum() if dim is None else mask.sum(dim)
    return total / count.clamp(min=1)
