"""Both stages, a resumed run and answers in bf16-mixed on one device: a CPU always, a GPU where there is one."""

from __future__ import annotations

import json

import pytest
import torch

from kvg.backbones.backbone import Backbone

DEVICES = [
    "cpu",
    pytest.param(
        "gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
    ),
]
EVERY_TWO_STEPS = (
    "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: "
    "{every_n_train_steps: 2, save_top_k: -1, filename: '{step}'}}]"
)
CHECKPOINT = "model__init_args__backbone__init_args__checkpoint"


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="module")
def four(root, lab_shards):
    return lab_shards(root / "data", 4, sizes=[(84, 84)], snap_px=None)


@pytest.fixture(scope="module")
def fit(device, root, four, kvg):
    """Runs a stage; returns its folder."""

    def run(stage, name, **settings):
        folder = root / f"{device}-{stage}-{name}"
        given = {
            "trainer__accelerator": device,
            "trainer__precision": "bf16-mixed",
            "trainer__max_steps": 4,
            "trainer__callbacks": EVERY_TWO_STEPS,
            "data__init_args__train": four,
            "data__init_args__batch_size": 2,
            "model__init_args__max_new_tokens": 8,
        }
        kvg("fit", stage, folder, **{**given, **settings})
        return folder

    return run


@pytest.fixture(scope="module")
def stage1(fit):
    return fit("cot_sft", "whole")


@pytest.fixture(scope="module")
def stage2(fit, stage1):
    return fit("grpo", "whole", model__init_args__group_size=2, **{CHECKPOINT: stage1 / "export"})


def test_stage_1_learns_and_exports(stage1, curves):
    losses = curves(stage1)["train/loss"]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert {value.dtype for value in Backbone(str(stage1 / "export")).state_dict().values()} == {torch.float32}


def test_stage_2_goes_on_from_stage_1(stage2, curves):
    logged = curves(stage2)
    assert len(logged["train/loss"]) == 4
    assert logged["train/kl"][0] == pytest.approx(0.0, abs=1e-4)
    assert (stage2 / "export/model.safetensors").is_file()


@pytest.mark.parametrize("stage", ["cot_sft", "grpo"])
def test_a_resumed_run_goes_on_with_the_same_losses(stage, fit, stage1, stage2, device, curves):
    whole, settings = (stage1, {}) if stage == "cot_sft" else (stage2, {"model__init_args__group_size": 2})
    if stage == "grpo":
        settings[CHECKPOINT] = stage1 / "export"
    saved = whole / "lightning_logs/version_0/checkpoints/step=2.ckpt"
    resumed = fit(stage, "resumed", ckpt_path=saved, **settings)
    expected, losses = (curves(folder)["train/loss"] for folder in (whole, resumed))
    assert losses == (expected[2:] if device == "cpu" else pytest.approx(expected[2:], rel=0.02, abs=1e-3))


def test_every_question_is_answered(stage2, root, four, kvg, device):
    folder = root / f"{device}-answers"
    given = {CHECKPOINT: stage2 / "export", "data__init_args__test": four, "model__init_args__max_new_tokens": 8}
    given |= {"trainer__accelerator": device, "trainer__precision": "bf16-mixed"}
    kvg("predict", "grpo", folder, "configs/data/lab_test.yaml", **given)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"s0-000000{number}" for number in range(4)]
    assert all(line["num_tokens"] for line in lines)
