"""Two processes take the step that one takes: all labelled tokens weigh alike, and all processes stop together."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from kvg.backbones.backbone import Backbone
from kvg.rl.experience import TrainingBatch

NUM, RATE = 8, 0.5
SLOW = pytest.mark.slow
CHECKPOINT = "model.init_args.backbone.init_args.checkpoint"
SGD = {
    "model.init_args.optimizer": json.dumps(
        {"class_path": "torch.optim.SGD", "init_args": {"lr": RATE, "fused": False}}
    ),
    "model.init_args.warmup": 0.0,
    "model.init_args.schedule": "constant",
    "trainer.max_epochs": 1,
}


@pytest.fixture(scope="module")
def samples(scenes):
    return scenes(NUM, sizes=[(84, 84)], snap_px=None)


@pytest.fixture(scope="module")
def data(tmp_path_factory, lab_shards):
    """The same as shards."""
    return lab_shards(tmp_path_factory.mktemp("data") / "set", NUM, sizes=[(84, 84)], snap_px=None)


def one_step(samples, limit):
    """Loss and weights after the step of all samples at once, by hand."""
    backbone = Backbone("tiny")
    examples = [backbone.processor.encode(s, mode="think", target="rationale") for s in samples]
    loss, _ = backbone.label_loss(backbone.processor.collate(examples, samples))
    learnt = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(learnt.values()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    factor = min(1.0, limit / float(norm)) if limit else 1.0
    with torch.no_grad():
        for parameter, gradient in zip(learnt.values(), gradients, strict=True):
            parameter -= RATE * factor * gradient
    return float(loss), {name: p.detach() for name, p in learnt.items()}


@pytest.mark.parametrize(
    ("strategy", "batch_size", "limit"),
    [
        ("ddp", 4, "null"),
        ("ddp", 1, 0.05),
        ("fsdp2", 1, 0.05),
        *(pytest.param(*case, marks=SLOW) for case in [("ddp", 2, "null"), ("fsdp2", 4, "null"), ("fsdp2", 2, "null")]),
    ],
)
def test_two_processes_take_the_step_of_all_tokens(
    strategy, batch_size, limit, data, samples, two_processes, curves, tmp_path
):
    """Eight samples in one step: two processes with four each, in one batch, two or four."""
    settings = {
        **SGD,
        "data.init_args.train": data,
        "data.init_args.batch_size": batch_size,
        "trainer.accumulate_grad_batches": 4 // batch_size,
        "trainer.gradient_clip_val": limit,
    }
    two_processes("fit", "cot_sft", strategy, tmp_path, **settings)
    loss, expected = one_step(samples, None if limit == "null" else limit)
    logged = curves(tmp_path)
    assert logged["train/loss"] == pytest.approx([loss], rel=1e-5)
    (num_tokens,) = logged["train/labelled_tokens"]
    assert num_tokens == int(num_tokens) > 1000
    start, ours = (dict(Backbone(name).named_parameters()) for name in ("tiny", str(tmp_path / "export")))
    moved = torch.cat([(expected[name] - start[name]).flatten() for name in expected])
    off = torch.cat([(expected[name] - ours[name]).flatten() for name in expected])
    assert float(off.norm()) < 1e-4 * float(moved.norm())


@pytest.fixture(scope="module")
def unsound(tmp_path_factory):
    """A checkpoint with one element that is NaN."""
    folder = tmp_path_factory.mktemp("unsound")
    Backbone("tiny").export(folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("command", "strategy"),
    [
        ("fit", "ddp"),
        ("predict", "ddp"),
        pytest.param("fit", "fsdp2", marks=SLOW),
        pytest.param("predict", "fsdp2", marks=SLOW),
    ],
)
def test_both_processes_refuse_a_model_that_is_not_sound(command, strategy, unsound, data, two_processes, tmp_path):
    settings = {**SGD, CHECKPOINT: unsound, "data.init_args.train": data, "data.init_args.batch_size": 1}
    message = f"kvg: start from {unsound}: weights"
    if command == "predict":
        settings = {CHECKPOINT: unsound, "data": "data_modules.EvaluationDataModule", "data.init_args.batch_size": 1}
        settings |= {"data.init_args.test": data, "data.init_args.mode": "direct"}
        message = f"kvg: sampling from {unsound}: logits are not finite"
    logs = two_processes(command, "cot_sft", strategy, tmp_path, exit_code=2, **settings)
    assert any(message in log for log in logs)
    assert all(("kvg: " in log and "not finite" in log) or message in log for log in logs)
    assert not any("Traceback" in log for log in logs)
    assert not (tmp_path / "export").exists()
    assert not (tmp_path / "predictions.jsonl").exists()


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=SLOW)])
def test_both_processes_stop_before_the_step_and_keep_their_batches(strategy, data, two_processes, tmp_path):
    """The first step throws the weights away; at the second one the loss is none."""
    optimizer = json.dumps({"class_path": "torch.optim.SGD", "init_args": {"lr": 1e25, "fused": False}})
    settings = {**SGD, "model.init_args.optimizer": optimizer, "data.init_args.train": data}
    logs = two_processes(
        "fit", "cot_sft", strategy, tmp_path, exit_code=2, **settings, **{"data.init_args.batch_size": 2}
    )
    assert all("kvg: step 1: loss" in log and "not finite here or in another process" in log for log in logs)
    paths = sorted((tmp_path / "failed").iterdir())
    assert [path.name for path in paths] == ["step1-rank0-part0.pt", "step1-rank1-part0.pt"]
    assert all(len(TrainingBatch.load(path).batch.samples) == 2 for path in paths)
    assert not (tmp_path / "export").exists()
