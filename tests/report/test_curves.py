from __future__ import annotations

import pytest

from kvg.errors import DataError
from kvg.report.curves import read_curves, smooth
from kvg.report.results import drawn_curves


def test_curves_of_real_event_files(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for version, steps in (("version_0", range(0, 30)), ("version_1", range(20, 50))):  # resumed at step 20
        with SummaryWriter(tmp_path / "lightning_logs" / version) as writer:
            for step in steps:
                writer.add_scalar("train/loss", step if version == "version_0" else 100 + step, step)
    curves = read_curves(tmp_path)
    assert list(curves) == ["train/loss"]
    assert [step for step, _ in curves["train/loss"]] == list(range(50))
    assert curves["train/loss"][19] == (19, 19.0)
    assert curves["train/loss"][20] == (20, 120.0)
    with pytest.raises(DataError, match="no such file below this folder"):
        read_curves(tmp_path / "nowhere")


def test_a_running_mean_keeps_what_is_constant():
    assert smooth([(i, 2.0) for i in range(100)]) == [(i, 2.0) for i in range(100)]
    assert smooth([(0, 1.0)]) == [(0, 1.0)]


def test_the_loss_of_stage_2_is_no_learning_curve():
    point = [(0, 1.0)]
    assert list(drawn_curves({"train/loss": point, "epoch": point})) == ["train/loss"]
    found = drawn_curves({"train/loss": point, "train/reward/iou": point, "train/reward/total": point, "train/kl": []})
    assert list(found) == ["train/reward/total", "train/reward/iou"]
