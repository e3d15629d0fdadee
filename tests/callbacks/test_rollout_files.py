"""Rollouts in files: real runs of stage 2 on random weights, read again with pyarrow."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import lightning as L
import pyarrow.parquet
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from callbacks import RolloutFiles
from data_modules import GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.errors import ConfigError, DataError
from kvg.formats.rollout_files import RolloutRecord, read_rollouts, rollout_files, write_rollouts
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.combine import WeightedReward
from kvg.rewards.iou import IoUReward
from tests.modules.stage_2 import SpaceReward

RECORD = RolloutRecord(
    step=3, optimizer_step=6, rank=0, prompt=0, sample=1, key="a", entity="Merlin", category="bird", split="seen",
    image="0f", width=140, height=70, target=(100.0, 100.0, 400.0, 400.0), text="<answer>é</answer>", box=None,
    finish_reason="stop", num_tokens=4, entropy=0.5, parts={"iou": 0.0, "format": 0.5}, reward=0.25, advantage=-1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def four(tmp_path_factory, lab_shards):
    return lab_shards(tmp_path_factory.mktemp("four") / "set", 4, sizes=[(84, 84)], snap_px=None)


def fit(run: Path, data: Path, steps: int, *extra: Callback, ckpt: Path | None = None, **settings: int) -> GRPOModule:
    L.seed_everything(0, verbose=False)
    reward = WeightedReward({"iou": IoUReward(), "spaces": SpaceReward()}, weights={"spaces": 0.5})
    sgd = partial(torch.optim.SGD, lr=0.0)
    module = GRPOModule(
        Backbone("tiny"), reward, GRPOLoss(beta=0.0), sgd, group_size=2, max_new_tokens=6, export=False, **settings
    )
    datamodule = GRPODataModule(data, mode="direct", batch_size=2)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps * module.updates_per_batch(), max_epochs=-1, default_root_dir=run,
        use_distributed_sampler=False, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=list(extra),
    )  # fmt: skip
    datamodule.connect(module.backbone)
    trainer.fit(module, datamodule, ckpt_path=ckpt, weights_only=True)
    return module


def steps_of(run: Path) -> list[int]:
    return [file.step for file in rollout_files(run)]


class Batches(Callback):
    """Keeps what the module scored."""

    def __init__(self) -> None:
        self.scored = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.scored.append(pl_module.scored)


def test_every_rollout_is_written_with_its_rewards(tmp_path, four):
    batches = Batches()
    fit(tmp_path, four, 2, RolloutFiles(), batches, num_minibatches=2)
    table = pyarrow.parquet.read_table(tmp_path / "rollouts/step000001-rank0.parquet")
    assert str(table.schema.field("box").type) == "list<element: double>"  # although no answer of this model has a box
    rows = table.to_pylist()
    scored = batches.scored[1]
    assert [row["key"] for row in rows] == [s.key for s in scored.samples for _ in range(2)]
    assert [(row["prompt"], row["sample"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [row["text"] for row in rows] == [answer.completion.text for answer in scored.answers]
    for number, row in enumerate(rows):
        # Two optimizer steps a batch; the reward is iou + spaces / 2.
        assert (row["step"], row["optimizer_step"], row["rank"]) == (1, 2, 0)
        assert row["reward"] == pytest.approx(row["reward/iou"] + row["reward/spaces"] / 2)
        assert row["advantage"] == pytest.approx(float(scored.advantages[number]))
        sample = scored.samples[number // 2]
        assert row["target"] == pytest.approx([value * 1000 / 84 for value in sample.box_px])
        logprobs = scored.out.logprobs[number][scored.out.completion_mask[number]]
        assert row["num_tokens"] == len(logprobs)
        assert row["entropy"] == pytest.approx(-float(logprobs.mean()), rel=1e-5)
        assert row["finish_reason"] == ("length" if scored.out.truncated[number] else "stop")
        text = row["text"]
        assert row["reward/spaces"] == pytest.approx(text.count(" ") / len(text))
    assert [(r.step, r.prompt, r.sample, r.reward) for r in read_rollouts(tmp_path)][4:] == [
        (1, row["prompt"], row["sample"], row["reward"]) for row in rows
    ]


def test_a_resumed_run_writes_each_step_once(tmp_path, four):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(whole, four, 5, RolloutFiles())
    saving = ModelCheckpoint(parts, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    fit(parts, four, 3, RolloutFiles(), saving)  # the last checkpoint is older than the last file
    kept = (parts / "rollouts/step000001-rank0.parquet").stat().st_mtime_ns
    later = partial(fit, parts, four, ckpt=parts / "step=2.ckpt")
    write_rollouts(parts, [RolloutRecord(**{**vars(RECORD), "step": 9})])  # of a past that does not come again
    later(5, RolloutFiles())
    assert steps_of(parts) == steps_of(whole) == [0, 1, 2, 3, 4]
    assert (parts / "rollouts/step000001-rank0.parquet").stat().st_mtime_ns == kept
    assert list(read_rollouts(parts)) == list(read_rollouts(whole))


def test_files_are_bounded_and_spread_over_the_run(tmp_path, four):
    counts = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            counts.append(steps_of(tmp_path))

    fit(tmp_path, four, 9, RolloutFiles(keep=3, max_rollouts=3), Count())
    # Worked out by hand: with three files at most, the distance doubles at steps 3 and 6.
    assert counts == [
        [0], [0, 1], [0, 1, 2], [0, 2], [0, 2, 4], [0, 2, 4], [0, 4], [0, 4], [0, 4, 8]
    ]  # fmt: skip
    assert all(len([r for r in read_rollouts(tmp_path) if r.step == step]) == 2 for step in (0, 4, 8))  # whole groups
    assert list((tmp_path / "rollouts").glob("*.partial")) == []


def test_only_some_steps_or_none(tmp_path, four):
    fit(tmp_path / "some", four, 4, RolloutFiles(every=2))
    assert steps_of(tmp_path / "some") == [0, 2]
    fit(tmp_path / "none", four, 1, RolloutFiles(keep=0))
    assert not (tmp_path / "none/rollouts").exists()


def test_files_of_processes_that_are_gone_go_with_their_steps(tmp_path, four):
    for step, rank in ((0, 1), (7, 1)):
        write_rollouts(tmp_path, [RolloutRecord(**{**vars(RECORD), "step": step, "rank": rank})])
    fit(tmp_path, four, 1, RolloutFiles())
    assert [(file.step, file.rank) for file in rollout_files(tmp_path)] == [(0, 0)]


@pytest.mark.parametrize("name", ["every", "max_rollouts", "keep"])
def test_impossible_numbers(name):
    with pytest.raises(ConfigError, match=f"callbacks.RolloutFiles.{name}: -1 must be a whole number"):
        RolloutFiles(**{name: -1})


def test_records_come_back_and_damaged_files_are_named(tmp_path):
    path = write_rollouts(tmp_path, [RECORD])
    assert list(read_rollouts(tmp_path)) == [RECORD]
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop(["text"]), path)
    with pytest.raises(DataError, match="row 0: text: is missing or of another type"):
        list(read_rollouts(tmp_path))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="parquet: cannot be read"):
        list(read_rollouts(tmp_path))
