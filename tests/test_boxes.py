"""Boxes: hand-worked overlaps, degenerate cases, and parity with pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from kvg.boxes import area, box_rows, iou

SQUARE = (0.0, 0.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("pred", "target", "expected"),
    [
        (SQUARE, SQUARE, 1.0),
        ((0, 0, 5, 10), SQUARE, 0.5),  # half inside: 50 / 100
        ((5, 5, 15, 15), SQUARE, 25 / 175),  # 25 shared, 100 + 100 - 25
        ((2, 2, 4, 4), SQUARE, 0.04),  # 4 / 100
        ((10, 0, 20, 10), SQUARE, 0.0),  # they only touch
        ((50, 50, 60, 60), SQUARE, 0.0),
        ((8, 8, 2, 2), SQUARE, 0.0),  # corners swapped: degenerate
        ((3, 3, 3, 9), SQUARE, 0.0),  # no width
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),  # 0 / 0
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),
    ],
)
def test_iou_by_hand(pred: tuple[float, ...], target: tuple[float, ...], expected: float) -> None:
    pred_box, target_box = torch.tensor([pred]), torch.tensor([target])
    assert iou(pred_box, target_box).item() == pytest.approx(expected)
    assert iou(target_box, pred_box).item() == pytest.approx(expected)


def test_iou_agrees_with_pycocotools() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, 2, generator=generator, dtype=torch.float64) * 100
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).numpy()
    preds, target = boxes[:25], boxes[25:]
    reference = coco.iou(xywh[:25], xywh[25:], np.zeros(15))
    pairs = torch.cartesian_prod(torch.arange(25), torch.arange(15))
    ours = iou(preds[pairs[:, 0]], target[pairs[:, 1]])
    assert (ours > 0).sum() > 50  # the comparison is about something
    np.testing.assert_allclose(ours.numpy(), reference.ravel(), rtol=1e-12)


def test_iou_of_integers_is_not_rounded() -> None:
    assert iou(torch.tensor([[0, 0, 5, 10]]), torch.tensor([[0, 0, 10, 10]])).item() == 0.5


def test_iou_of_nothing() -> None:
    assert iou(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
    assert box_rows([]).shape == (0, 4)


def test_iou_refuses_unequal_lists() -> None:
    with pytest.raises(ValueError, match="one target per prediction"):
        iou(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="4 coordinates"):
        iou(torch.zeros(3, 3), torch.zeros(3, 3))


def test_area() -> None:
    assert area(torch.tensor([[1.0, 1.0, 4.0, 3.0], [4.0, 3.0, 1.0, 1.0]])).tolist() == [6.0, 0.0]


def test_a_box_that_could_not_be_read_overlaps_nothing() -> None:
    rows = box_rows([SQUARE, None])
    assert iou(rows, box_rows([SQUARE, SQUARE])).tolist() == [1.0, 0.0]
