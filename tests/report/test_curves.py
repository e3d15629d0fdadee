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


def test_curves_of_csv_files(tmp_path):
    """As Lightning's CSVLogger writes them: a column a tag, empty where it was not logged."""
    for version, text in (("version_0", "epoch,step,train/loss,val/iou_acc\n0,0,2.5,\n0,1,2.0,\n0,1,,0.25\n"),):
        (tmp_path / version).mkdir()
        (tmp_path / version / "metrics.csv").write_text(text)
    curves = read_curves(tmp_path)
    assert curves["train/loss"] == [(0, 2.5), (1, 2.0)]
    assert curves["val/iou_acc"] == [(1, 0.25)]
    (tmp_path / "version_0/metrics.csv").write_text("epoch,train/loss\n0,2.5\n")
    with pytest.raises(DataError, match=r"metrics.csv: step: is not a log of numbers by step"):
        read_curves(tmp_path)


def test_a_running_mean_keeps_what_is_constant():
    assert smooth([(i, 2.0) for i in range(100)]) == [(i, 2.0) for i in range(100)]
    assert smooth([(0, 1.0)]) == [(0, 1.0)]


def test_the_loss_of_stage_2_is_no_learning_curve():
    point = [(0, 1.0)]
    assert list(drawn_curves({"train/loss": point, "epoch": point})) == ["train/loss"]
    found = drawn_curves({"train/loss": point, "train/reward/iou": point, "train/reward/total": point, "train/kl": []})
    assert list(found) == ["train/reward/total", "train/reward/iou"]
