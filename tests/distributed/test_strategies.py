"""Both stages with two processes: DDP, and FSDP2 which must say the same; sampling, export and resuming included."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen3_vl import Qwen3VL
from kvg.cli.kvg import main
from tests.by_heart import learn_by_heart

LOSS_TOLERANCE = 1e-4  # sums of gradients in another order
GRPO = {
    "data.init_args.mode": "direct",
    "model.init_args.reward.init_args.parts.iou.init_args.require_tags": "false",
    "model.init_args.reward.init_args.parts.iou.init_args.iou_threshold": 0.0,
    "model.init_args.group_size": 4,
    "model.init_args.max_new_tokens": 28,
}
SETTINGS = {"cot_sft": {"model.init_args.max_new_tokens": 6}, "grpo": GRPO}
DEEP = "model.model.visual.deepstack_merger_list.0.linear_fc1.weight"
RATE = "model.init_args.optimizer.init_args.lr"
GATHER = "trainer.strategy.init_args.gather"
LORA = "model.init_args.backbone.init_args.lora"


@pytest.fixture(scope="module")
def data(tmp_path_factory, lab_shards):
    """Five samples: the processes' shares are unequal."""
    return lab_shards(tmp_path_factory.mktemp("data") / "set", 5, per_shard=3, sizes=[(84, 84)], snap_px=None)


@pytest.fixture(scope="module")
def taught(tmp_path_factory, scenes):
    """A toy that has half learnt the answers by heart: it says boxes, now a better one, now a worse one."""
    backbone = Backbone("tiny", freeze_vision=False)
    samples = scenes(5, sizes=[(84, 84)], snap_px=None)
    examples = [backbone.processor.encode(s, mode="direct", target="answer") for s in samples]
    learn_by_heart(backbone, backbone.processor.collate(examples, samples), rate=4e-3, max_steps=40, until=0)
    folder = tmp_path_factory.mktemp("taught")
    backbone.export(folder)
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, data, taught, two_processes):
    """Runs each combination once: three steps of two batches of one, then a validation."""
    done = {}

    def fit(stage: str, strategy: str, **settings: object):
        key = (stage, strategy, *settings.items())
        if key not in done:
            folder = tmp_path_factory.mktemp(f"{stage}-{strategy}")
            two_processes(
                "fit",
                stage,
                strategy,
                folder,
                trainer__max_steps=3,
                trainer__val_check_interval=1,
                data__init_args__train=data,
                data__init_args__val=data,
                data__init_args__batch_size=1,
                **{
                    "model.init_args.backbone.init_args.checkpoint": taught,
                    RATE: 3e-4,
                    **SETTINGS[stage],
                    **settings,
                },
            )
            done[key] = folder
        return done[key]

    return fit


@pytest.mark.parametrize("stage", list(SETTINGS))
def test_fsdp2_says_what_ddp_says(stage, fitted, curves):
    ddp, fsdp2 = (curves(fitted(stage, strategy)) for strategy in ("ddp", "fsdp2"))
    assert len(ddp["train/loss"]) == 3
    assert fsdp2["train/loss"] == pytest.approx(ddp["train/loss"], abs=LOSS_TOLERANCE)
    assert ddp["val/n"] == fsdp2["val/n"] == [5.0] * len(ddp["val/n"])
    if stage == "grpo":
        for key in ("train/kl", "train/reward/iou", "train/completion_length", "train/entropy"):
            assert fsdp2[key] == pytest.approx(ddp[key], abs=LOSS_TOLERANCE)
        assert max(ddp["train/reward/iou"]) > 0.1
        assert max(ddp["train/advantage_std"]) > 0.1
        assert ddp["train/kl"][-1] > 1e-5  # it was 0 at the start


@pytest.mark.slow
def test_gathering_layer_by_layer_says_the_same(fitted, curves):
    """``fsdp2`` gathers once here (``auto``), and takes another number of passes in each process."""
    once, layer = (curves(fitted("grpo", "fsdp2", **more)) for more in ({}, {GATHER: "layer"}))
    assert len(once["train/loss"]) == 3
    for key in ("train/loss", "train/kl", "train/reward/iou", "train/completion_length", "val/iou_acc"):
        assert layer[key] == pytest.approx(once[key], abs=LOSS_TOLERANCE)
    assert layer["train/tokens_per_pass"] == once["train/tokens_per_pass"]
    assert max(once["train/tokens_per_pass"]) > 1


@pytest.mark.parametrize("stage", list(SETTINGS))
def test_exports_hold_the_same_weights(stage, fitted, taught):
    ddp, fsdp2 = (Backbone(str(fitted(stage, s) / "export")).state_dict() for s in ("ddp", "fsdp2"))
    start = Backbone(str(taught)).state_dict()
    assert ddp.keys() == fsdp2.keys() == start.keys()
    for name, value in ddp.items():
        torch.testing.assert_close(fsdp2[name], value, atol=1e-4, rtol=1e-3)
        assert torch.equal(value, start[name]) == ("visual" in name), name


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_checkpoint_is_exported_as_its_run_exported_it(strategy, fitted, tmp_path, capsys):
    """``kvg export`` of a file, and of a folder with a part of each process."""
    run = fitted("cot_sft", strategy)
    assert main(["export", f"{run}/lightning_logs/version_0/checkpoints/last.ckpt", "--out", f"{tmp_path}/out"]) == 0
    print(capsys.readouterr().out)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", run / "export"))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_adapters_under_fsdp2_are_their_own_reference_and_are_merged(fitted, curves, taught):
    folder = fitted("grpo", "fsdp2", **{LORA: "{r: 2}", RATE: 1e-2})
    logged = curves(folder)
    assert logged["train/kl"][0] == pytest.approx(0.0, abs=1e-6)
    assert logged["train/kl"][-1] > 1e-5
    start, merged = (Backbone(str(path)).state_dict() for path in (taught, folder / "export"))
    assert merged.keys() == start.keys()
    moved = {name for name, value in merged.items() if not torch.equal(value, start[name])}
    assert len(moved) == 14
    assert all("language_model.layers" in name for name in moved)


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(SETTINGS))
def test_norms_and_rows_of_tokens_learn_in_shards(stage, fitted, curves, taught):
    """DoRA and single tokens: the losses of DDP, the base as their reference, and the same weights when merged."""
    settings = {LORA: "{r: 2, rslora: true, dora: true, tokens: [3, 40]}", RATE: 1e-3}
    ddp, fsdp2 = (fitted(stage, strategy, **settings) for strategy in ("ddp", "fsdp2"))
    assert curves(fsdp2)["train/loss"] == pytest.approx(curves(ddp)["train/loss"], abs=LOSS_TOLERANCE)
    if stage == "grpo":
        assert curves(fsdp2)["train/kl"][0] == pytest.approx(0.0, abs=1e-6)
    one, other, start = (Backbone(str(path)).state_dict() for path in (ddp / "export", fsdp2 / "export", taught))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=2e-4, rtol=1e-3)
    rows = next(name for name in start if name.endswith("embed_tokens.weight"))
    assert (other[rows] != start[rows]).any(1).nonzero().flatten().tolist() == [3, 40]
    assert sum(not torch.equal(value, start[name]) for name, value in other.items() if "layers" in name) == 14


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(SETTINGS))
def test_a_tower_that_learns_through_deep_visual_tokens(stage, fitted, curves, tmp_path):
    """Qwen3-VL with nothing frozen: the losses of DDP, and the same weights, those of the tower among them."""
    toy, freeze = tmp_path / "toy", "model.init_args.backbone.init_args.freeze"
    Backbone("tiny", Qwen3VL()).export(toy)
    settings = {"model.init_args.backbone.init_args.checkpoint": toy, RATE: 1e-3}
    settings |= {f"{freeze}_vision": "false", f"{freeze}_projector": "false"}
    ddp, fsdp2 = (fitted(stage, strategy, **settings) for strategy in ("ddp", "fsdp2"))
    assert curves(fsdp2)["train/loss"] == pytest.approx(curves(ddp)["train/loss"], abs=LOSS_TOLERANCE)
    one, other, start = (Backbone(str(path)).state_dict() for path in (ddp / "export", fsdp2 / "export", toy))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=2e-4, rtol=1e-3)
    assert stage == "grpo" or not torch.equal(one[DEEP], start[DEEP])


def resumed(stage, strategy, folder, data, two_processes, curves, again=None, **more):
    """Losses of two steps, and of the second one alone in a run that goes on after the first, with ``again``."""
    settings = {
        "trainer__max_steps": 2,
        "data__init_args__train": data,
        "data__init_args__batch_size": 1,
        "model__init_args__export": "false",
        RATE: 1e-3,
        "trainer__callbacks": "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: "
        "{every_n_train_steps: 1, save_top_k: -1, filename: '{step}'}}]",
        **more,
    }
    two_processes("fit", stage, strategy, folder / "whole", **settings)
    saved = folder / "whole/lightning_logs/version_0/checkpoints/step=1.ckpt"
    two_processes("fit", stage, strategy, folder / "resumed", ckpt_path=saved, **settings, **(again or {}))
    return [curves(folder / name)["train/loss"] for name in ("whole", "resumed")]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_resumed_run_goes_on(strategy, data, two_processes, curves, tmp_path):
    whole, later = resumed("cot_sft", strategy, tmp_path, data, two_processes, curves)
    assert later == pytest.approx(whole[1:], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("again", ["once", "layer"])
def test_adapters_go_on_with_a_base_that_is_whole_or_sharded(again, data, taught, two_processes, curves, tmp_path):
    more = {**GRPO, LORA: "{r: 2}", "model.init_args.backbone.init_args.checkpoint": taught, RATE: 1e-2}
    whole, later = resumed("grpo", "fsdp2", tmp_path, data, two_processes, curves, {GATHER: again}, **more)
    assert later == pytest.approx(whole[1:], abs=0 if again == "once" else LOSS_TOLERANCE)
    assert whole[1] != whole[0]
