"""Both stages, then the test, through the command line, on shards made here; each stage starts from the one before."""

from __future__ import annotations

import itertools
import json

import pytest

from kvg.backbones.backbone import Backbone
from kvg.cli.kvg import main

SMALL = {"data__init_args__batch_size": 2, "model__init_args__schedule": "constant", "model__init_args__warmup": 0.0}
RATE = "model__init_args__optimizer__init_args__lr"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def two(root, lab_shards):
    return lab_shards(root / "data", 2, sizes=[(84, 84)], snap_px=None)


@pytest.fixture(scope="module")
def stage1(root, two, kvg):
    """Stage 1 learns two rationales by heart."""
    kvg(
        "fit",
        "cot_sft",
        root / "cot_sft",
        trainer__max_steps=160,
        trainer__check_val_every_n_epoch=160,
        data__init_args__train=two,
        data__init_args__val=two,
        model__init_args__backbone__init_args__freeze_vision="false",
        **SMALL,
        **{RATE: 4e-3},
    )
    return root / "cot_sft"


@pytest.fixture(scope="module")
def stage2(root, two, kvg, stage1):
    """Stage 2 goes on from there, with the published rewards."""
    kvg(
        "fit",
        "grpo",
        root / "grpo",
        trainer__max_steps=3,
        trainer__check_val_every_n_epoch=3,
        data__init_args__train=two,
        data__init_args__val=two,
        model__init_args__backbone__init_args__checkpoint=stage1 / "export",
        model__init_args__group_size=3,
        **SMALL,
        **{RATE: 1e-4},
    )
    return root / "grpo"


def test_stage_1_learns_both_rationales(stage1, curves):
    logged = curves(stage1)
    losses = logged["train/loss"]
    assert len(losses) == 160
    assert all(later < earlier for earlier, later in itertools.pairwise(losses[:10]))
    assert losses[-1] < 0.05
    assert logged["val/iou_acc"] == [1.0]
    assert logged["val/unparsed"] == [0.0]
    assert logged["val/n"] == [2.0]


def test_stage_1_leaves_what_the_next_stage_needs(stage1):
    assert Backbone(str(stage1 / "export"), max_pixels=None).processor.max_pixels == 19_600
    assert (stage1 / "lightning_logs/version_0/checkpoints/last.ckpt").stat().st_size > 500_000
    assert (stage1 / "lightning_logs/version_0/config.yaml").is_file()


def test_stage_2_starts_where_stage_1_ended(stage2, curves):
    logged = curves(stage2)
    assert logged["train/reward/total"][0] > 0.5  # of 2; what was learnt by heart is mostly said at temperature 1, too
    assert logged["train/kl"][0] == pytest.approx(0.0, abs=1e-5)
    assert logged["train/unparsed"][0] < 0.5
    assert len(logged["train/loss"]) == 3
    assert logged["val/iou_acc"] == [1.0]
    for part in ("reward/iou", "reward/format", "entropy", "completion_length", "truncated", "advantage_std"):
        assert len(logged[f"train/{part}"]) == 3


def test_the_test_writes_every_answer(stage2, two, kvg, root):
    kvg(
        "test",
        "grpo",
        root / "test",
        "configs/data/lab_test.yaml",
        data__init_args__test=two,
        model__init_args__backbone__init_args__checkpoint=stage2 / "export",
    )
    lines = [json.loads(line) for line in (root / "test/predictions.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["s0-0000000", "s0-0000001"]
    assert all(line["iou"] > 0.9 and line["answer"].startswith("<think>Plan: the ") for line in lines)
    assert all(f"the {line['entity']} is" in line["answer"] for line in lines)
    assert all(line["mode"] == "think" for line in lines)  # as the checkpoint was trained


def test_same_seed_same_losses(root, two, kvg, curves):
    for stage in ("cot_sft", "grpo"):
        told = []
        for name in ("a", "b"):
            folder = root / f"{stage}-{name}"
            settings = {"model__init_args__max_new_tokens": 8, "trainer__max_steps": 3}
            kvg("fit", stage, folder, data__init_args__train=two, model__init_args__export="false", **SMALL, **settings)
            logged = curves(folder)
            clocks = [tag for tag in logged if tag.startswith("time/") or tag.endswith("_s")]
            told.append({tag: values for tag, values in logged.items() if tag not in clocks})
        assert told[0] == told[1]
        assert len(told[0]["train/loss"]) == 3


@pytest.mark.parametrize("stage", ["cot_sft", "grpo"])
def test_resumed_in_mid_epoch_nothing_is_lost_or_repeated(stage, tmp_path, lab_shards, kvg, curves):
    """Stopped after two of the five steps of an epoch: the other three are the same to the last bit."""
    data = lab_shards(tmp_path / "data", 10, sizes=[(84, 84)], snap_px=None)
    settings = {
        "data__init_args__train": data,
        "data__init_args__batch_size": 2,
        "trainer__max_steps": 5,
        "model__init_args__max_new_tokens": 8,
        "model__init_args__export": "false",
        "trainer__callbacks": "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: "
        "{every_n_train_steps: 2, save_top_k: -1, filename: '{step}'}}]",
    }
    kvg("fit", stage, tmp_path / "whole", **settings)
    saved = tmp_path / "whole/lightning_logs/version_0/checkpoints/step=2.ckpt"
    kvg("fit", stage, tmp_path / "resumed", ckpt_path=saved, **settings)
    whole, resumed = curves(tmp_path / "whole"), curves(tmp_path / "resumed")
    assert len(whole["train/loss"]) == 5
    keys = ["train/loss"] if stage == "cot_sft" else ["train/loss", "train/kl", "train/reward_std_in_group"]
    for key in keys:
        assert resumed[key] == whole[key][2:]


def test_adapters_and_other_rewards_are_settings(tmp_path, two, kvg, curves):
    """LoRA, no reference, groups of one, and a binary reward; one line each."""
    kvg(
        "fit",
        "grpo",
        tmp_path,
        data__init_args__train=two,
        trainer__max_steps=1,
        model__init_args__backbone__init_args__lora="{r: 2}",
        model__init_args__loss__init_args__beta=0.0,
        model__init_args__group_size=1,
        model__init_args__max_new_tokens=4,
        model__init_args__reward__init_args__parts__iou__init_args__binary="true",
        **SMALL,
    )
    logged = curves(tmp_path)
    assert logged["train/loss"] == [0.0]
    assert not any("lora" in name for name in Backbone(str(tmp_path / "export")).state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.init_args.backbone.init_args.checkpoint=/nowhere/model"], "'/nowhere/model' is no such folder"),
        (["--data.init_args.train=/nowhere/data"], "/nowhere/data"),
        (["--model.init_args.group_sice=3"], "group_sice"),
        (["--data.init_args.mode=thinking"], "'thinking' is not one of"),
        (["--trainer.gradient_clip_val=1.0"], "trainer.gradient_clip_val: this stage optimizes manually"),
        (["--trainer.accumulate_grad_batches=2"], "set model.microbatch_size"),
        (["--model.init_args.loss.init_args.kl=k4"], "Got value: k4"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_before_training(arguments, message, tmp_path, two, capsys):
    args = ["fit", "-c", "configs/stage/grpo.yaml", "-c", "configs/backbone/tiny.yaml", f"--data.init_args.train={two}"]
    assert main([*args, f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu", *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert not (tmp_path / "export").exists()
