"""The metric: hand-worked shares, groups, and two processes that agree with one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pycocotools import mask as coco
from torchmetrics import MetricCollection

from kvg.boxes import box_rows
from kvg.metrics.functional import iou_accuracy
from kvg.metrics.iou_accuracy import GroupedIoUAccuracy, IoUAccuracy
from kvg.types import Box

GROUPS = {"split": ("seen", "unseen"), "knowledge": ("known", "unknown")}
TRUTH: Box = (0.0, 0.0, 100.0, 100.0)
# prediction, IoU by hand, groups
CASES: list[tuple[Box | None, float, dict[str, str]]] = [
    ((0.0, 0.0, 100.0, 100.0), 1.0, {"split": "seen", "knowledge": "known"}),
    ((0.0, 0.0, 50.0, 100.0), 0.5, {"split": "seen", "knowledge": "unknown"}),  # 0.5 counts as right
    ((0.0, 0.0, 49.0, 100.0), 0.49, {"split": "unseen", "knowledge": "known"}),
    (None, 0.0, {"split": "unseen", "knowledge": ""}),  # unparsed: wrong, not absent
    ((90.0, 90.0, 10.0, 10.0), 0.0, {"split": "unseen", "knowledge": "unknown", "category": "dog"}),
]
EXPECTED = {
    "acc": 2 / 5,
    "mean_iou": 1.99 / 5,
    "unparsed": 1 / 5,
    "n": 5,
    "acc/split=seen": 1.0,
    "mean_iou/split=seen": 0.75,
    "unparsed/split=seen": 0.0,
    "n/split=seen": 2,
    "acc/split=unseen": 0.0,
    "mean_iou/split=unseen": 0.49 / 3,
    "unparsed/split=unseen": 1 / 3,
    "n/split=unseen": 3,
    "acc/knowledge=known": 1 / 2,
    "mean_iou/knowledge=known": 1.49 / 2,
    "unparsed/knowledge=known": 0.0,
    "n/knowledge=known": 2,
    "acc/knowledge=unknown": 1 / 2,
    "mean_iou/knowledge=unknown": 0.25,
    "unparsed/knowledge=unknown": 0.0,
    "n/knowledge=unknown": 2,
}


def update(metric: GroupedIoUAccuracy, cases: list[tuple[Box | None, float, dict[str, str]]]) -> None:
    preds = box_rows([case[0] for case in cases])
    metric.update(preds, box_rows([TRUTH] * len(cases)), [case[2] for case in cases])


def values_of(metric: GroupedIoUAccuracy) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_by_hand(batch_size: int) -> None:
    metric = GroupedIoUAccuracy(GROUPS)
    for start in range(0, len(CASES), batch_size):
        update(metric, CASES[start : start + batch_size])
    assert values_of(metric) == pytest.approx(EXPECTED)


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    metric = GroupedIoUAccuracy(GROUPS)
    # Uneven on purpose: one process sees seen cases alone, and the other more of the rest.
    update(metric, CASES[:2] if rank == 0 else CASES[2:])
    torch.save(values_of(metric), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.start_processes(_work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(EXPECTED)


def test_reset_forgets_and_forward_scores_the_batch() -> None:
    metric = GroupedIoUAccuracy(GROUPS)
    update(metric, CASES)
    metric.reset()
    truth = box_rows([TRUTH])
    first = metric(box_rows([CASES[0][0]]), truth, [CASES[0][2]])
    second = metric(box_rows([None]), truth, [CASES[3][2]])
    assert (first["acc"].item(), second["acc"].item(), metric.compute()["acc"].item()) == (1.0, 0.0, 0.5)


def test_groups_without_cases_are_left_out() -> None:
    metric = GroupedIoUAccuracy(GROUPS)
    metric.update(box_rows([TRUTH]), box_rows([TRUTH]), [{}])
    assert set(metric.compute()) == {"acc", "mean_iou", "unparsed", "n"}


def test_without_cases() -> None:
    metric = GroupedIoUAccuracy(GROUPS)
    metric.update(torch.zeros(0, 4), torch.zeros(0, 4), [])
    metric._update_count = 1  # compute() warns before the first update
    result = values_of(metric)
    assert result["n"] == 0
    assert math.isnan(result["acc"])


def test_threshold() -> None:
    metric = GroupedIoUAccuracy(GROUPS, threshold=0.75)
    update(metric, CASES)
    assert metric.compute()["acc"].item() == pytest.approx(1 / 5)


def test_misuse_is_refused() -> None:
    metric, truth = GroupedIoUAccuracy(GROUPS), box_rows([TRUTH])
    with pytest.raises(ValueError, match="'near' is not a value of 'split'"):
        metric.update(truth, truth, [{"split": "near"}])
    with pytest.raises(ValueError, match="one target"):
        metric.update(box_rows([TRUTH, None]), truth, [{}, {}])
    with pytest.raises(ValueError, match="one group mapping"):
        metric.update(truth, truth, [])
    with pytest.raises(ValueError, match="threshold 50 must be"):
        IoUAccuracy(threshold=50)


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.75])
def test_the_metric_of_tensors_equals_its_function_over_batches(threshold: float) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 60, 2, 2, generator=generator) * torch.tensor([100.0, 40.0])
    preds, target = torch.cat([corners.amin(2), corners.amax(2)], dim=-1)
    preds = torch.where(torch.rand(60, 1, generator=generator) < 0.5, target + 1, preds)
    preds[7] = float("nan")
    metric = IoUAccuracy(threshold)
    for rows in torch.arange(60).split(17):
        metric.update(preds[rows], target[rows])
    right = [iou >= threshold for iou in map(_iou_by_hand, preds.tolist(), target.tolist())]
    assert 5 < sum(right) < 55  # the comparison is about something
    assert metric.compute().item() == pytest.approx(sum(right) / 60)
    assert iou_accuracy(preds, target, threshold).item() == pytest.approx(sum(right) / 60)


def _iou_by_hand(one: list[float], other: list[float]) -> float:
    if math.isnan(one[0]):
        return 0.0
    xywh = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (one, other)]
    return float(coco.iou(xywh[:1], xywh[1:], [0])[0, 0])


def test_the_function_takes_the_shapes_of_torchmetrics_alone() -> None:
    assert math.isnan(iou_accuracy(torch.zeros(0, 4), torch.zeros(0, 4)).item())
    assert iou_accuracy(torch.tensor([[0, 0, 5, 10]]), torch.tensor([[0, 0, 10, 10]])).item() == 1.0
    for preds, target in (((4,), (4,)), ((2, 3), (2, 3)), ((2, 4), (3, 4)), ((1, 2, 4), (1, 2, 4))):
        with pytest.raises(ValueError, match="got"):
            iou_accuracy(torch.zeros(preds), torch.zeros(target))


def test_boxes_of_half_precision_are_compared_in_single() -> None:
    """In bfloat16 an IoU of 0.499 is rounded to 0.5."""
    preds = torch.tensor([[0.0, 0.0, 255.0, 256.0]])
    target = torch.tensor([[0.0, 0.0, 512.0, 256.0]])  # IoU 255 / 512
    metric = IoUAccuracy()
    metric.update(preds.bfloat16(), target.bfloat16())
    assert metric.compute().item() == 0.0


def test_a_metric_collection_takes_it_and_it_can_be_drawn() -> None:
    collection = MetricCollection({"at_50": IoUAccuracy(0.5), "at_75": IoUAccuracy(0.75)})
    collection.update(torch.tensor([[0.0, 0.0, 6.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    assert {name: value.item() for name, value in collection.compute().items()} == {"at_50": 1.0, "at_75": 0.0}
    pytest.importorskip("matplotlib")
    collection["at_50"].plot()


def test_a_cast_to_half_precision_leaves_the_counts_exact() -> None:
    """In bfloat16 the count would stay at 256."""
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    metric = IoUAccuracy().to(torch.bfloat16)
    for _ in range(300):
        metric.update(box, box)
    assert metric.count.item() == 300.0
    metric.reset()
    assert metric.count.dtype == torch.float32
