"""Masked sums and means: only True counts, and nothing leaks from padding, forwards or backwards."""

from __future__ import annotations

import pytest
import torch

from kvg.masking import masked_mean, masked_sum

VALUES = torch.tensor([[1.0, 2.0, 6.0], [5.0, float("nan"), float("inf")]])
MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_by_hand() -> None:
    assert masked_sum(VALUES, MASK).item() == 14.0
    assert masked_sum(VALUES, MASK, dim=1).tolist() == [9.0, 5.0]
    assert masked_mean(VALUES, MASK).item() == 3.5  # 14 / 4
    assert masked_mean(VALUES, MASK, dim=1).tolist() == [3.0, 5.0]


def test_nothing_counts() -> None:
    assert masked_mean(VALUES, torch.zeros_like(MASK)).item() == 0.0


def test_gradient_ignores_padding() -> None:
    values = VALUES.clone().requires_grad_()
    masked_mean(values, MASK).backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[0.25, 0.25, 0.25], [0.25, 0.0, 0.0]]


def test_refuses_number_masks() -> None:
    with pytest.raises(TypeError, match="True = counts"):
        masked_sum(VALUES, MASK.long())
