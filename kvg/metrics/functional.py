"""Acc@threshold as a function of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from kvg.boxes import iou


def check_threshold(threshold: float) -> None:
    """Checks an IoU threshold.

    Raises:
        ValueError: it is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} must be above 0 and at most 1")


def overlap_and_unparsed(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The IoU of each pair ``[N]``, and whether the prediction is unparsed ``[N]`` bool.

    Args:
        preds: ``[N, 4]`` xyxy; a row with NaN is an unparsed answer, with an IoU of 0.
        target: ``[N, 4]`` true boxes in the same unit.

    Raises:
        ValueError: the shapes differ or are not ``[N, 4]``.
    """
    if preds.ndim != 2 or preds.shape != target.shape:
        raise ValueError(f"one target per prediction [N, 4], got {tuple(preds.shape)} and {tuple(target.shape)}")
    if preds.dtype in (torch.bfloat16, torch.float16):
        preds = preds.float()  # bfloat16 has 8 bits of precision: it rounds an IoU of 0.499 to 0.5
    return iou(preds, target), preds.isnan().any(dim=1)


def iou_accuracy(preds: Tensor, target: Tensor, threshold: float = 0.5) -> Tensor:
    """Share of predicted boxes whose IoU with their target reaches a threshold (DeepPerception, section 5.1).

    Args:
        preds: ``[N, 4]`` xyxy, in any unit; a row with NaN is an unparsed answer, which counts as wrong.
        target: ``[N, 4]`` true boxes in the same unit.
        threshold: smallest IoU that counts as correct (``>=``).

    Returns:
        A scalar in 0-1; NaN for N = 0.

    Raises:
        ValueError: the shapes differ or are not ``[N, 4]``, or the threshold is outside (0, 1].

    >>> nan = float("nan")
    >>> preds = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [nan, nan, nan, nan]])
    >>> iou_accuracy(preds, torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(3, 4))
    tensor(0.3333)
    """
    check_threshold(threshold)
    overlap, _ = overlap_and_unparsed(preds, target)
    return (overlap >= threshold).float().mean()
