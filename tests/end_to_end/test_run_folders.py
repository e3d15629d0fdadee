"""Where a fit may write, what data it may have, and that all of it is settled before a model is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from kvg.cli.kvg import main
from tests.end_to_end.short_fits import SAVED, SAVING, files, fit, refused


def test_a_folder_that_holds_a_run_is_refused(here, capsys):
    said = refused(capsys, "cot_sft", out="cot_sft")
    assert (
        "cot_sft contains the result of an earlier run (export); give --ckpt_path cot_sft/lightning_logs/version_0/"
        in said
    )
    assert "another trainer.default_root_dir, or --overwrite to remove it" in said
    # Another run's checkpoint goes on somewhere else than in the first one's folder.
    assert "contains the result" in refused(capsys, "cot_sft", f"--ckpt_path=cot_sft/{SAVED}", out="grpo")
    shutil.rmtree(here / "cot_sft/export")
    assert "cot_sft contains an unfinished run" in refused(capsys, "cot_sft", out="cot_sft")
    shutil.rmtree(here / "cot_sft/lightning_logs/version_0/checkpoints")
    assert "cot_sft contains the curves of an earlier run" in refused(capsys, "cot_sft", out="cot_sft")
    (here / "file").touch()
    assert "file is not a folder" in refused(capsys, "cot_sft", out="file/run")


def test_an_earlier_run_is_removed_when_that_is_asked(here, capsys):
    (here / "cot_sft/notes.txt").write_text("mine")
    (here / "cot_sft/predictions.jsonl").write_text("{}\n")
    assert "would remove cot_sft/export" in refused(
        capsys, "cot_sft", "--overwrite=true", "--model.backbone.checkpoint=cot_sft/export", out="cot_sft"
    )
    other = ("--trainer.max_steps=1", "--seed_everything=7")
    assert fit("cot_sft", *other, "--overwrite=true", out="cot_sft") == 0
    assert (here / "cot_sft/notes.txt").read_text() == "mine"
    assert (here / "cot_sft/predictions.jsonl").exists()
    assert not (here / "cot_sft" / SAVED).exists()
    assert "overwrite: false" in (here / "cot_sft/lightning_logs/version_0/config.yaml").read_text()
    assert fit("cot_sft", *other, out="fresh") == 0
    weights = "export/model.safetensors"
    assert (here / "cot_sft" / weights).read_bytes() == (here / "fresh" / weights).read_bytes()


def test_a_run_is_overwritten_by_a_switch_alone(here):
    assert fit("cot_sft", "--overwrite", out="cot_sft") == 0
    assert not (here / "cot_sft" / SAVED).exists()
    assert not (here / "cot_sft" / "lightning_logs/version_1").exists()
    assert fit("cot_sft", "--overwrite", "false", out="cot_sft") == 2


def test_a_path_that_is_no_checkpoint_is_told_before_the_folder(here, capsys):
    message = refused(capsys, "cot_sft", "--ckpt_path=cot_sft/nothing.ckpt", out="cot_sft")
    assert "ckpt_path: 'cot_sft/nothing.ckpt' does not exist" in message
    message = refused(capsys, "cot_sft", "--ckpt_path=cot_sft/export/model.safetensors", out="cot_sft")
    assert "is a model, not the state of a training" in message
    assert message.endswith("--model.backbone.checkpoint cot_sft/export")


@pytest.mark.parametrize("command", ["test", "predict"])
def test_data_that_has_nothing_for_a_command_is_refused(here, capsys, command):
    args = [command, "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml", "--data.train=data"]
    assert main([*args, "--model.backbone=mine.Loud", "--trainer.default_root_dir=new"]) == 2
    message = f"kvg: data: CoTSFTDataModule has no data for kvg {command}; give an EvaluationDataModule"
    assert message in capsys.readouterr().err


def test_data_of_an_evaluation_is_not_trained_on(here, capsys):
    evaluation = ("--data=data_modules.EvaluationDataModule", "--data.test=data")
    args = ["fit", "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml", *evaluation]
    assert main([*args, "--trainer.default_root_dir=new"]) == 2
    assert "kvg: data: EvaluationDataModule has no data for kvg fit" in capsys.readouterr().err


def test_a_dry_run_may_be_anywhere_and_leaves_nothing(here):
    before = files()
    assert fit("cot_sft", "--trainer.fast_dev_run=true", f"--trainer.callbacks={SAVING}", out="cot_sft") == 0
    assert {path for path in files() if path.suffix != ".0"} == {path for path in before if path.suffix != ".0"}
    assert fit("cot_sft", "--trainer.fast_dev_run=true", out="new") == 0
    assert fit("cot_sft", out="new") == 0


@pytest.mark.parametrize(
    ("stage", "more", "message"),
    [
        ("cot_sft", ("--data.train=nowhere",), "nowhere: folder: does not exist"),
        ("cot_sft", ("--data.val=nowhere",), "nowhere: folder: does not exist"),
        ("cot_sft", ("--data.replay=nowhere.jsonl", "--data.replay_ratio=0.5"), "nowhere.jsonl: "),
        ("cot_sft", ("--data.mode=loud",), "data.mode: 'loud' is not one of"),
        ("cot_sft", ("--data.target=poem",), "data.target: 'poem' is none of rationale, answer_first, answer"),
        ("cot_sft", ("--model.optimizer.lr=-1",), "model.optimizer: Invalid learning rate"),
        ("cot_sft", ("--model.warmup=1.5",), "model.warmup: 1.5 must be a number of at least 0 and below 1"),
        ("cot_sft", ("--trainer.precision=16-mixed",), "trainer.precision: '16-mixed' is not supported in training"),
        ("cot_sft", ("--trainer.gradient_clip_val=-1",), "trainer.gradient_clip_val: -1.0 must not be negative"),
        ("cot_sft", ("--trainer.accelerator=cuda",), "trainer: "),
        ("cot_sft", ("--trainer.limit_val_batches=-3",), "trainer: "),
        ("grpo", ("--data.train=nowhere",), "nowhere: folder: does not exist"),
        ("grpo", ("--model.group_size=0",), "model.group_size: 0 must be a whole number of at least 1"),
        ("grpo", ("--model.reward.parts.iou.init_args.iou_threshold=7",), "iou_threshold"),
        ("grpo", ("--model.loss.init_args.beta=-1",), "beta"),
        ("grpo", ("--trainer.accumulate_grad_batches=2",), "set model.microbatch_size"),
    ],
)
def test_all_else_is_looked_at_before_the_weights(here, capsys, monkeypatch, stage, more, message):
    if "--trainer.accelerator=cuda" in more and torch.cuda.is_available():
        pytest.skip("this machine has what is asked for")
    assert message in refused(capsys, stage, *more)


def test_and_then_the_weights_are_read(here, capsys):
    Path("forbidden").touch()
    assert fit("cot_sft", out="new") == 2
    assert "the weights have been asked for" in capsys.readouterr().err
    assert Path("loaded").exists()
