"""Every family through both stages, a resumed run, predictions, the filter and its exports, by its own config file.

``-c configs/backbone/NAME.yaml`` is all that differs: the checkpoint in it is a random toy here, read from a folder as
a downloaded one is, so that its ``model_type`` alone says which family it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kvg.backbones.backbone import Backbone
from kvg.backbones.find_family import family_of_type, known_families
from kvg.cli.kvg_data import main as kvg_data
from kvg.evaluation.records.prediction import read_predictions
from tests.configs.toys import family_of_name

CONFIGS = Path("configs/backbone")
FAST = {"internvl"}  # what the other tests of the stages, which are all of Qwen2-VL, know least of
INIT = "model__init_args__backbone__init_args__"
SAVE = "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {every_n_train_steps: 1, save_top_k: -1, "


def config_of(family: str) -> Path:
    """The file of ``configs/backbone`` whose checkpoint is of this family."""
    for path in sorted(CONFIGS.glob("q*.yaml")) + sorted(CONFIGS.glob("*.yaml")):
        init = yaml.safe_load(path.read_text())["model"]["init_args"]["backbone"]["init_args"]
        if "/" in init["checkpoint"] and family_of_name(init["checkpoint"]) == family:
            return path
    raise AssertionError(f"no file in {CONFIGS} is of {family}")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in known_families()],
)
def runs(request, tmp_path_factory, lab_shards, kvg) -> dict[str, Any]:
    """Everything once: the checkpoint, stage 1, the same resumed after its first step, stage 2, and predictions."""
    root, family = tmp_path_factory.mktemp(request.param), request.param
    toy = Backbone("tiny", family_of_type(family))
    toy.export(root / "base")
    data = lab_shards(root / "data", 4, sizes=[(84, 84), (112, 56)], snap_px=None)
    config = str(config_of(family))

    def run(command: str, stage: str, name: str, checkpoint: Path, *more: str, **settings: object) -> None:
        common = {f"{INIT}checkpoint": checkpoint, f"{INIT}max_pixels": toy.processor.max_pixels,
                  f"{INIT}gradient_checkpointing": "false", "model__init_args__max_new_tokens": 6,
                  "trainer__precision": "32-true"}  # fmt: skip
        if command == "fit":
            common |= {"data__init_args__train": data, "data__init_args__batch_size": 2, "trainer__max_steps": 2,
                       "trainer__callbacks": SAVE + "filename: '{step}'}}]",
                       "model__init_args__schedule": "constant", "model__init_args__warmup": 0.0,
                       "model__init_args__optimizer__init_args__lr": 1e-3}  # fmt: skip
        kvg(command, stage, root / name, config, *more, **common, **settings)

    run("fit", "cot_sft", "sft", root / "base")
    saved = root / "sft/lightning_logs/version_0/checkpoints/step=1.ckpt"
    run("fit", "cot_sft", "resumed", root / "base", ckpt_path=saved)
    run("fit", "grpo", "grpo", root / "sft/export", model__init_args__group_size=2)
    run("predict", "grpo", "answers", root / "grpo/export", "configs/data/lab_test.yaml", data__init_args__test=data)
    return {"root": root, "family": family, "data": data}


def test_stage_1(runs, curves):
    losses = curves(runs["root"] / "sft")["train/loss"]
    assert len(losses) == 2
    assert 3 < losses[0] < 12  # log(1024) is 6.9
    moved = changed(runs["root"] / "base", runs["root"] / "sft/export")
    backbone = Backbone(str(runs["root"] / "base"))
    assert moved == {name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}


def test_a_resumed_run_is_the_same(runs, curves):
    whole, resumed = (curves(runs["root"] / name)["train/loss"] for name in ("sft", "resumed"))
    assert resumed == whole[1:]
    exports = [Backbone(str(runs["root"] / name / "export")).model.state_dict() for name in ("sft", "resumed")]
    assert all(torch.equal(value, exports[1][name]) for name, value in exports[0].items())


def test_stage_2(runs, curves):
    logged = curves(runs["root"] / "grpo")
    assert logged["train/kl"][0] == pytest.approx(0.0, abs=1e-5)
    assert len(logged["train/reward/total"]) == len(logged["train/loss"]) == 2
    assert logged["train/completion_length"][0] > 1


def test_predictions(runs):
    cases = read_predictions(runs["root"] / "answers")
    assert len(cases) == 4
    about = json.loads((runs["root"] / "answers/predictions.json").read_text("utf-8"))
    assert about["num_bad"] == 0
    codec = json.loads((runs["root"] / "grpo/export/kvg.json").read_text())["box"]["codec"]
    assert codec == family_of_type(runs["family"]).codec.name


def test_an_export_is_read_by_plain_transformers_with_the_same_logits(runs):
    folder = str(runs["root"] / "grpo/export")
    ours = Backbone(folder).eval()
    theirs, report = ours.family.hf_class.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.model.state_dict()[name]), name
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        assert torch.equal(theirs.eval()(input_ids=ids).logits, ours.model(input_ids=ids).logits)


def test_the_filter(runs, tmp_path):
    command = ["filter", "--in", runs["data"], "--out", tmp_path / "kept", "--checkpoint", runs["root"] / "sft/export"]
    assert kvg_data([*map(str, command), "--max-new-tokens", "2", "--keep-min", "0", "--keep-max", "4"]) == 0
    assert json.loads((tmp_path / "kept/manifest.json").read_text())["num_samples"] == 4


def changed(before: Path, after: Path) -> set[str]:
    """Names of weights, as the model has them, that differ between two exports."""
    start, end = (Backbone(str(folder)).model for folder in (before, after))
    stored, later = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert stored.keys() == later.keys()
    state = end.state_dict()
    return {name for name, value in start.named_parameters() if not torch.equal(value, state[name])}
