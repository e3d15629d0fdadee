"""The callbacks in real runs of a model with one weight."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

import callbacks.progress
import callbacks.throughput
from callbacks import BoxPictures, StageProgress, Throughput
from callbacks.pictures import ANSWER, TRUTH, caption, draw
from kvg.types import Sample, SceneObject


def white(width: int = 140, height: int = 140) -> Sample:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, "PNG")
    objects = (SceneObject("Kestrel", (10, 20, 60, 80)), SceneObject("Merlin", (70, 20, 130, 80)))
    return Sample("a-0", buffer.getvalue(), width, height, "bird", "seen", objects, 0, knowledge="known")


class OneWeight(L.LightningModule):
    def __init__(self, answer: Any = (100.0, 140.0, 420.0, 580.0)) -> None:
        super().__init__()
        self.weight, self.box = torch.nn.Parameter(torch.ones(1)), answer

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = (self.weight * 2).sum()
        self.log("train/loss", loss)
        self.log("train/reward/total", torch.tensor(0.25))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> list[dict[str, Any]]:
        self.log("val/iou_acc", torch.tensor(0.5), batch_size=1)
        return [{"answer": "<think>it hovers</think>", "box": self.box, "iou": 0.9} for _ in batch["samples"]]

    def test_step(self, batch: Any, batch_idx: int) -> list[dict[str, Any]]:
        return [{"set": "bench", "answer": "", "box": None, "iou": 0.0} for _ in batch["samples"]]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def loader(num_batches: int, samples: int = 2) -> DataLoader[Any]:
    batch = {"input_ids": torch.zeros(samples, 3), "samples": [white() for _ in range(samples)]}
    return DataLoader([batch] * num_batches, batch_size=None, collate_fn=lambda b: b)


def trainer(tmp_path: Path, *extra: L.Callback, **more: Any) -> L.Trainer:
    settings: dict[str, Any] = {"logger": TensorBoardLogger(tmp_path), "log_every_n_steps": 1, **more}
    return L.Trainer(
        accelerator="cpu",
        callbacks=list(extra),
        enable_checkpointing=False,
        enable_model_summary=False,
        max_epochs=1,
        num_sanity_val_steps=0,
        enable_progress_bar=any(isinstance(one, StageProgress) for one in extra),
        **settings,
    )


def test_picture_shows_both_boxes_enlarged() -> None:
    sample = white()
    picture = draw(sample, (500.0, 140.0, 930.0, 580.0))  # on the grid
    assert picture.shape == (280, 280, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[40 + 30, 20]) == TRUTH  # left edge of (10, 20, 60, 80), twice as large
    assert tuple(picture[40 + 30, 140]) == ANSWER  # left edge of the answer
    assert tuple(picture[200, 200]) == (255, 255, 255)


def test_picture_without_answer_has_the_truth_alone() -> None:
    colours = {tuple(pixel) for pixel in draw(white(), None).reshape(-1, 3)}
    assert colours == {(255, 255, 255), TRUTH}


def test_picture_survives_a_box_with_mixed_up_corners() -> None:
    assert tuple(draw(white(), (930.0, 580.0, 500.0, 140.0))[70, 140]) == ANSWER


def test_caption_tells_the_case() -> None:
    text = caption(white(), {"answer": "it `hovers`", "box": None})
    assert text == "**Kestrel** (bird, seen, known): no box, truth (10, 20, 60, 80)\n\n```\nit 'hovers'\n```"
    assert "box (14, 28, 42, 70), truth (10, 20, 60, 80), IoU 0.40" in caption(
        white(), {"answer": "", "box": [100, 200, 300, 500], "iou": 0.4}
    )
    chosen = caption(white(), {"answer": "B", "options": ["Kestrel", "Merlin"], "right": 0, "chosen": 1})
    assert "Merlin was chosen of Kestrel, Merlin" in chosen


def test_pictures_reach_tensorboard_and_stop_at_their_number(tmp_path: Path) -> None:
    run = trainer(tmp_path, BoxPictures(num=3), limit_train_batches=1)
    run.fit(OneWeight(), loader(1), loader(4))
    events = EventAccumulator(run.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["val/0/0", "val/0/1", "val/0/2"]
    shown = Image.open(io.BytesIO(events.Images("val/0/0")[0].encoded_image_string))
    assert shown.convert("RGB").getpixel((28, 70)) == ANSWER  # left edge at 14 px, twice as large
    assert sum("text_summary" in tag for tag in events.Tags()["tensors"]) == 3


def test_pictures_leave_other_loggers_alone(tmp_path: Path) -> None:
    trainer(tmp_path, BoxPictures(), logger=CSVLogger(tmp_path)).fit(OneWeight(), loader(1), loader(1))


def test_throughput_counts_samples_and_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock gives 1, 2, 3, ...: every look at it takes a second.

    Start of the epoch at t, waits end at t+1 and t+3, batches end at t+2 and t+4: 2 batches of 2 in 4 s, 2 s of it
    waiting (t to t+1, t+2 to t+3).
    """
    monkeypatch.setattr(callbacks.throughput, "perf_counter", itertools.count(1).__next__)
    run = trainer(tmp_path, Throughput(every=2))
    run.fit(OneWeight(), loader(2))
    assert run.callback_metrics["time/samples_per_s"] == pytest.approx(1.0)
    assert run.callback_metrics["time/data_share"] == pytest.approx(0.5)
    assert "time/peak_gib" not in run.callback_metrics


def test_progress_prints_lines_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten seconds a look; the first line is due after 30, and the last step has one always."""
    monkeypatch.setattr(callbacks.progress, "monotonic", itertools.count(0, 10).__next__)
    trainer(tmp_path, StageProgress(line_every_s=30.0)).fit(OneWeight(), loader(6), loader(1))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("step", "validation"))]
    assert lines[0] == "step 3 of 6, 50 s left: reward 0.25, loss 2"  # seen at 50 s, half of the way
    assert lines[-2].startswith("step 6 of 6, done in ")
    assert lines[-1] == "validation: accuracy 50%"


def test_progress_of_a_test_is_told_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten seconds a batch from the end of the first on: lines after 30 s each, of what is left of nine batches."""
    monkeypatch.setattr(callbacks.progress, "monotonic", itertools.count(0, 10).__next__)
    trainer(tmp_path, StageProgress(line_every_s=30.0)).test(OneWeight(), loader(9), verbose=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("batch")]
    assert lines == ["batch 4 of 9, 50 s left", "batch 7 of 9, 20 s left"]


def test_pictures_of_a_test_stand_under_the_names_of_their_sets(tmp_path: Path) -> None:
    run = trainer(tmp_path, BoxPictures(num=3))
    run.test(OneWeight(), loader(4), verbose=False)
    events = EventAccumulator(run.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["test/bench/0", "test/bench/1", "test/bench/2"]


def test_progress_counts_all_steps_of_a_stage_that_takes_several_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(callbacks.progress, "monotonic", itertools.count(0, 10).__next__)
    monkeypatch.setattr(OneWeight, "total_steps", lambda self: 12, raising=False)
    trainer(tmp_path, StageProgress(line_every_s=30.0)).fit(OneWeight(), loader(6))
    assert capsys.readouterr().out.splitlines()[0].startswith("step 3 of 12")


class Totals(L.Callback):
    """Keeps the bar's number of batches of each epoch; saves a checkpoint after some batches of the first one."""

    def __init__(self, bar: StageProgress, save: Path | None = None) -> None:
        self.bar, self.save, self.totals = bar, save, list[float]()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.totals.append(self.bar.total_train_batches)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        if not self.totals:  # an epoch that is resumed does not start; the bar begins with its next batch
            self.totals.append(self.bar.total_train_batches)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        if self.save and trainer.global_step == 2:
            trainer.save_checkpoint(self.save)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_epochs": 2}, [6, 6]),
        ({"max_epochs": 2, "max_steps": 8}, [6, 2]),
        ({"max_epochs": 1, "max_steps": 2, "accumulate_grad_batches": 2}, [4]),
        ({"max_epochs": -1, "max_steps": 7}, [6, 1]),
    ],
)
def test_the_bar_ends_where_the_run_ends(tmp_path: Path, settings: dict[str, Any], expected: list[float]) -> None:
    bar = StageProgress()
    totals = Totals(bar)
    run = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", callbacks=[bar, totals], logger=False,
        enable_checkpointing=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    run.fit(OneWeight(), loader(6))
    assert totals.totals == expected


def test_the_bar_of_a_stage_with_several_steps_a_batch_counts_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OneWeight, "total_steps", lambda self: 7, raising=False)
    monkeypatch.setattr(OneWeight, "updates_per_batch", lambda self: 2, raising=False)
    bar = StageProgress()
    totals = Totals(bar)
    trainer(tmp_path, bar, totals, max_steps=7).fit(OneWeight(), loader(6))
    assert totals.totals == [4]  # 7 steps are 3 batches and a half


def test_the_bar_of_a_resumed_epoch_keeps_its_total(tmp_path: Path) -> None:
    bar = StageProgress()
    trainer(tmp_path, bar, Totals(bar, tmp_path / "a.ckpt"), max_steps=4).fit(OneWeight(), loader(6))
    bar = StageProgress()
    totals = Totals(bar)
    trainer(tmp_path, bar, totals, max_steps=5).fit(OneWeight(), loader(6), ckpt_path=tmp_path / "a.ckpt")
    assert totals.totals == [5]  # 2 batches were done, 3 are left


def test_progress_shows_what_was_logged_under_short_names(tmp_path: Path) -> None:
    bar = StageProgress(keys={"r": "train/reward/total", "acc": "val/iou_acc", "kl": "train/kl"})
    run = trainer(tmp_path, bar)
    module = OneWeight()
    run.fit(module, loader(1), loader(1))
    assert bar.get_metrics(run, module) == {"r": "0.25", "acc": "50%"}


def test_progress_can_be_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(tmp_path, StageProgress(refresh_rate=0)).fit(OneWeight(), loader(1))
    assert "step" not in capsys.readouterr().out
