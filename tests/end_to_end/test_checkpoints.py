"""Which checkpoint a fit goes on from, where it may write, and that both are settled before a model is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kvg.cli.kvg import main

# A backbone of the user's own in the working folder, which tells when it is loaded where it must not be.
BACKBONE = """
from pathlib import Path
from kvg.backbones.backbone import Backbone

class Loud(Backbone):
    def load(self, *args):
        if Path("forbidden").exists():
            Path("loaded").touch()
            raise RuntimeError("the weights have been asked for")
        return super().load(*args)
"""
SAVING = (
    "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
    "init_args: {every_n_train_steps: 1, save_top_k: -1, save_last: link, filename: 'step{step}', "
    "auto_insert_metric_name: false}}]"
)
SAVED = "lightning_logs/version_0/checkpoints/step1.ckpt"
LAST = "lightning_logs/version_0/checkpoints/step2.ckpt"


@pytest.fixture(scope="module")
def home(tmp_path_factory, lab_shards):
    """A working folder with data and a finished run of each stage."""
    folder = tmp_path_factory.mktemp("home")
    lab_shards(folder / "data", 8, sizes=[(84, 84)], snap_px=None)
    (folder / "mine.py").write_text(BACKBONE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("cot_sft", "direct_sft", "grpo"):
            assert fit(stage, f"--trainer.callbacks={SAVING}", out=stage) == 0
            assert Path(stage, SAVED).is_file()
    return folder


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(home, tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def fit(stage: str, *more: str, out: str, backbone: str = "mine.Loud") -> int:
    args = ["fit", "-c", f"configs/stage/{stage}.yaml", "-c", "configs/backbone/tiny.yaml"]
    args += [f"--model.backbone={backbone}", "--trainer.log_every_n_steps=1"]
    args += ["--data.train=data", "--data.batch_size=2", "--model.max_new_tokens=4", "--trainer.accelerator=cpu"]
    args += [f"--trainer.default_root_dir={out}", "--trainer.max_steps=2", "--trainer.max_epochs=-1"]
    args += ["--model.group_size=2"] if stage == "grpo" else []
    return main([*args, *more])


def files() -> dict[Path, int]:
    paths = (path for path in Path().rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in paths}


def refused(capsys, stage: str, *more: str, out: str = "new", backbone: str = "mine.Loud") -> str:
    """The one line that a fit ends with; its backbone would tell if it were loaded."""
    Path("forbidden").touch()
    before = files()
    capsys.readouterr()
    assert fit(stage, *more, out=out, backbone=backbone) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kvg: ")]
    assert len(lines) == 1
    assert files() == before, "something was loaded or written"
    Path("forbidden").unlink()
    return lines[0]


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
