"""The metric: hand-worked shares, groups, and two processes that agree with one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from kvg.metrics.iou_accuracy import IoUAccuracy
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


def update(metric: IoUAccuracy, cases: list[tuple[Box | None, float, dict[str, str]]]) -> None:
    metric.update([case[0] for case in cases], [TRUTH] * len(cases), [case[2] for case in cases])


def values_of(metric: IoUAccuracy) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_by_hand(batch_size: int) -> None:
    metric = IoUAccuracy(GROUPS)
    for start in range(0, len(CASES), batch_size):
        update(metric, CASES[start : start + batch_size])
    assert values_of(metric) == pytest.approx(EXPECTED)


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    metric = IoUAccuracy(GROUPS)
    # Uneven on purpose: one process sees seen cases alone, and the other more of the rest.
    update(metric, CASES[:2] if rank == 0 else CASES[2:])
    torch.save(values_of(metric), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.start_processes(_work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(EXPECTED)


def test_reset_forgets_and_forward_scores_the_batch() -> None:
    metric = IoUAccuracy(GROUPS)
    update(metric, CASES)
    metric.reset()
    first = metric([CASES[0][0]], [TRUTH], [CASES[0][2]])
    second = metric([None], [TRUTH], [CASES[3][2]])
    assert (first["acc"].item(), second["acc"].item(), metric.compute()["acc"].item()) == (1.0, 0.0, 0.5)


def test_groups_without_cases_are_left_out() -> None:
    metric = IoUAccuracy(GROUPS)
    metric.update([TRUTH], [TRUTH])
    assert set(metric.compute()) == {"acc", "mean_iou", "unparsed", "n"}


def test_without_cases() -> None:
    metric = IoUAccuracy()
    metric.update([], [])
    metric._update_count = 1  # compute() warns before the first update
    result = values_of(metric)
    assert result["n"] == 0
    assert math.isnan(result["acc"])


def test_threshold() -> None:
    metric = IoUAccuracy(threshold=0.75)
    update(metric, CASES)
    assert metric.compute()["acc"].item() == pytest.approx(1 / 5)


def test_misuse_is_refused() -> None:
    metric = IoUAccuracy(GROUPS)
    with pytest.raises(ValueError, match="'near' is no value of 'split'"):
        metric.update([TRUTH], [TRUTH], [{"split": "near"}])
    with pytest.raises(ValueError, match="one target"):
        metric.update([TRUTH, None], [TRUTH])
    with pytest.raises(ValueError, match="one group mapping"):
        metric.update([TRUTH], [TRUTH], [])


def test_a_cast_to_half_precision_leaves_the_counts_exact():
    """In bfloat16 the count would stay at 256."""
    box = (0.0, 0.0, 2.0, 2.0)
    metric = IoUAccuracy().to(torch.bfloat16)
    for _ in range(300):
        metric.update([box], [box])
    assert metric.compute()["n"].item() == 300.0
    metric.reset()
    assert metric.count.dtype == torch.float32
