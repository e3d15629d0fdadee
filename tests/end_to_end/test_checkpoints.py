"""Which checkpoint a fit goes on from: of which stage, of which model, and how far it has come."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.end_to_end.short_fits import LAST, SAVED, SAVING, fit, refused


@pytest.mark.parametrize(
    ("written_by", "stage"),
    [
        ("cot_sft", "grpo"),
        ("grpo", "cot_sft"),
        ("cot_sft", "direct_sft"),
        ("direct_sft", "cot_sft"),
        ("direct_sft", "grpo"),
        ("grpo", "direct_sft"),
    ],
)
def test_a_checkpoint_of_another_stage_is_refused(here, capsys, written_by, stage):
    said = refused(capsys, stage, f"--ckpt_path={written_by}/{SAVED}", "--trainer.max_steps=9")
    name = {
        "cot_sft": "CoTSFTModule with data.target rationale",
        "direct_sft": "CoTSFTModule with data.target answer",
        "grpo": "GRPOModule",
    }
    assert f"written by another stage ({name[written_by]}), and this is {name[stage]}" in said
    assert f"give --model.backbone.checkpoint {here / written_by / 'export'}" in said


def without_record(path: Path, out: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["kvg_run"]
    torch.save(content, out)


def test_older_checkpoints_are_told_apart_too(here, capsys):
    for stage in ("cot_sft", "direct_sft", "grpo"):
        without_record(here / stage / SAVED, here / f"{stage}.ckpt")
    longer = "--trainer.max_steps=9"
    assert "another stage (a stage with CoTSFTDataModule)" in refused(
        capsys, "grpo", "--ckpt_path=cot_sft.ckpt", longer
    )
    assert "another stage (a stage with GRPODataModule)" in refused(capsys, "cot_sft", "--ckpt_path=grpo.ckpt", longer)
    assert "trained with data.mode direct, not think" in refused(
        capsys, "cot_sft", "--ckpt_path=direct_sft.ckpt", longer
    )
    assert fit("cot_sft", "--ckpt_path=cot_sft.ckpt", out="new") == 0  # its own: the second step


@pytest.mark.parametrize("stage", ["cot_sft", "grpo"])
def test_more_steps_go_on_in_the_midst_of_an_epoch(here, stage):
    steady = ("--model.schedule=constant", "--model.warmup=0", f"--trainer.callbacks={SAVING}")
    steady += ("--trainer.max_epochs=2",)
    assert fit(stage, *steady, "--trainer.max_steps=7", out="whole") == 0  # four batches an epoch, so into the second
    assert fit(stage, *steady, "--trainer.max_steps=2", out="parts") == 0
    for steps in (3, 7):  # in the first epoch, and into the second
        assert fit(stage, *steady, "--ckpt_path=last", f"--trainer.max_steps={steps}", out="parts") == 0
    whole, parts = (load_file(f"{out}/export/model.safetensors") for out in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--data.mode=cot",), "was trained with data.mode think, not cot"),
        (
            ("--trainer.max_steps=1",),
            "is complete (step 1 of trainer.max_steps 1), so nothing is left to train; its model",
        ),
    ],
)
def test_another_training_of_the_same_stage(here, capsys, more, message):
    assert message in refused(capsys, "cot_sft", f"--ckpt_path=cot_sft/{SAVED}", *more, out="cot_sft")


def test_another_backbone(here, capsys):
    longer = (f"--ckpt_path=cot_sft/{SAVED}", "--trainer.max_steps=9")
    other = "--model.backbone.family=kvg.backbones.families.qwen2_5_vl.Qwen25VL"
    said = refused(capsys, "cot_sft", *longer, other)
    assert "contains a qwen2_vl model, not a qwen2_5_vl model; choose that backbone's config" in said
    # The same class, and a model of another size: the lab's has 192 where the toy has fewer.
    args = (*longer, "--model.backbone.checkpoint=lab")
    assert fit("cot_sft", *args, out="new") == 2
    assert "ckpt_path: does not fit this model" in capsys.readouterr().err
    # The same shapes, and a frozen tower that was trained elsewhere.
    assert "its frozen ones are not those of grpo/export" in refused(
        capsys, "cot_sft", *longer, "--model.backbone.checkpoint=grpo/export"
    )
    # Adapters are other tensors.
    assert fit("cot_sft", *longer, "--model.backbone.lora={r: 2}", out="new") == 2
    assert "ckpt_path: does not fit this model" in capsys.readouterr().err


def test_a_finished_run_has_nothing_left_to_train(here, capsys):
    said = refused(capsys, "cot_sft", f"--ckpt_path=cot_sft/{LAST}", out="cot_sft")
    assert f"(step 2 of trainer.max_steps 2), so nothing is left to train; its model is {here}/cot_sft/export" in said
    assert "(step 2 of" in refused(capsys, "cot_sft", "--ckpt_path=last", out="cot_sft")
    epochs = ("--trainer.max_epochs=1", "--trainer.max_steps=-1")
    assert fit("cot_sft", *epochs, out="epoch") == 0
    assert "(epoch 1 of trainer.max_epochs 1)" in refused(capsys, "cot_sft", "--ckpt_path=last", *epochs, out="epoch")
    # Killed between its last step and the export: that is what is left.
    whole = (here / "cot_sft/export/model.safetensors").read_bytes()
    shutil.rmtree(here / "cot_sft/export")
    assert fit("cot_sft", "--ckpt_path=last", out="cot_sft") == 0
    assert (here / "cot_sft/export/model.safetensors").read_bytes() == whole
    assert fit("cot_sft", "--ckpt_path=last", "--trainer.max_steps=4", out="cot_sft") == 0  # to train on
    assert (here / "cot_sft/export/model.safetensors").read_bytes() != whole


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.ckpt", "'none.ckpt' does not exist"),
        ("data", "is damaged or not a checkpoint of this project"),
        ("cot_sft/export", "is a model, not the state of a training; start from it: --model.backbone.checkpoint"),
        ("damaged.ckpt", "is damaged or not a checkpoint of this project"),
        ("tensors.ckpt", "is damaged or not a checkpoint of this project"),
        ("list.ckpt", "is damaged or not a checkpoint of this project"),
        ("text.ckpt", "is damaged or not a checkpoint of this project"),
        ("pickled.ckpt", "is damaged or not a checkpoint of this project"),
        ("odd.ckpt", "is damaged or not a checkpoint of this project"),
        ("sharded", "is a sharded checkpoint of FSDP; use that strategy"),
        ("best", "'best' is available only within one run"),
        ("last", "there is no last checkpoint in new"),
        ("hpc", "there is no hpc_ckpt_*.ckpt in new"),
    ],
)
def test_what_is_no_checkpoint(here, capsys, path, message):
    whole = (here / "cot_sft" / SAVED).read_bytes()
    (here / "damaged.ckpt").write_bytes(whole[: len(whole) // 2])
    (here / "text.ckpt").write_text("weights")
    torch.save({"a": torch.zeros(2)}, here / "tensors.ckpt")
    torch.save([1, 2], here / "list.ckpt")
    torch.save({"state_dict": {}, "hook": Path("x")}, here / "pickled.ckpt")  # not to be unpickled
    content = torch.load(here / "cot_sft" / SAVED, weights_only=True)
    torch.save({**content, "loops": {"fit_loop": 3}, "global_step": None}, here / "odd.ckpt")
    (here / "sharded").mkdir()
    torch.save({**content, "state_dict": {}}, here / "sharded/meta.pt")
    assert message in refused(capsys, "cot_sft", f"--ckpt_path={path}")
