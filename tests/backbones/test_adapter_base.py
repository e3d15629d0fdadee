"""Adapters know the weights that they were trained on: others of the same shapes are refused before any is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kvg.backbones.backbone import Backbone
from kvg.backbones.base_weights import weights_identity
from kvg.backbones.stored_weights import stored_tensors
from kvg.errors import ConfigError
from kvg.runs.checkpoint_record import RECORD
from tests.cli.test_export import LORA, exported, main, trained

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    Backbone("tiny").export(folder)
    return folder


@pytest.fixture(scope="module")
def trained_run(base, tmp_path_factory) -> Path:
    return trained(base, tmp_path_factory.mktemp("run"), LORA)[0]


@pytest.fixture
def adapter(trained_run, tmp_path) -> Path:
    """What ``kvg export --adapter`` writes."""
    assert main(["export", str(trained_run), "--out", str(tmp_path / "adapter"), "--adapter"]) == 0
    return tmp_path / "adapter"


@pytest.fixture
def other(base, tmp_path) -> Path:
    """A model of the same shapes, whose settings are the same, too: one number of its tower differs."""
    folder = shutil.copytree(base, tmp_path / "other")
    weights = load_file(folder / WEIGHTS)
    weights["visual.merger.ln_q.bias"][0] += 1.0
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return folder


def put_on(adapter: Path, base: Path, **more: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(base), **more}))


def refused(adapter: Path, monkeypatch) -> str:
    monkeypatch.setattr(Backbone, "load", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(ConfigError) as caught:
        Backbone(str(adapter))
    assert caught.value.field == "backbone.checkpoint"
    return caught.value.remedy


def test_the_model_that_they_were_trained_on_is_taken_wherever_it_lies(adapter, base, tmp_path):
    """Also in several files, and stored in another type that holds the same numbers."""
    Backbone(str(adapter))
    moved = shutil.copytree(base, tmp_path / "moved")
    weights = load_file(moved / WEIGHTS)
    (moved / WEIGHTS).unlink()
    files: dict[str, str] = {}
    for number, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name].double() for name in names}, moved / file, {"format": "pt"})
        files |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": files}
    (moved / "model.safetensors.index.json").write_text(json.dumps(index))
    (moved / "notes.json").write_text("{}")
    put_on(adapter, moved)
    Backbone(str(adapter))


def test_another_model_of_the_same_shapes_is_refused(adapter, base, other, monkeypatch):
    put_on(adapter, other)
    remedy = refused(adapter, monkeypatch)
    assert f"was trained on '{base}', and the weights of '{other}' are others, though of the same shapes" in remedy
    assert "write the folder of that model into base_model_name_or_path of its adapter_config.json" in remedy


def test_a_command_says_it_in_one_line(adapter, other, tmp_path, capsys):
    put_on(adapter, other)
    assert main(["export", str(adapter), "--out", str(tmp_path / "merged")]) == 2
    said = capsys.readouterr().err
    assert "are others, though of the same shapes" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "merged").exists()


def test_a_damaged_record_is_refused(adapter, monkeypatch):
    about = adapter / "kvg.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "base": {"weights": 3}}))
    assert "its kvg.json: base is {'weights': 3}; copy it anew" in refused(adapter, monkeypatch)


def test_adapters_of_other_programs_are_taken_as_they_are(adapter, other):
    """PEFT records no weights, so that there is nothing to compare."""
    (adapter / "kvg.json").unlink()
    put_on(adapter, other)
    Backbone(str(adapter))


def test_a_revision_of_a_model_on_the_hub_is_not_replaced_by_its_newest(adapter, monkeypatch):
    put_on(adapter, "Qwen/Qwen2-VL-2B-Instruct", revision="895c3a4")
    remedy = refused(adapter, monkeypatch)
    assert "names revision '895c3a4' of 'Qwen/Qwen2-VL-2B-Instruct', and only its newest is loaded here" in remedy
    assert "hf download Qwen/Qwen2-VL-2B-Instruct --revision '895c3a4'" in remedy


def test_prompt_mode_and_picture_budget_of_the_training_go_with_adapters(trained_run, base, tmp_path):
    exported_to = tmp_path / "adapter"
    assert main(["export", str(trained_run), "--out", str(exported_to), "--adapter", "--mode", "direct"]) == 0
    backbone = Backbone(str(exported_to))
    assert backbone.trained_mode == "direct"
    assert backbone.stored_pixels == Backbone(str(base)).stored_pixels


def test_a_training_s_checkpoint_and_another_base(trained_run, base, other, tmp_path, capsys):
    """A checkpoint holds what was trained; the frozen rest has to be what it was."""
    from kvg.backbones.fingerprint import identity

    content = torch.load(trained_run, weights_only=True)
    run = shutil.copytree(trained_run.parent.parent.parent.parent, tmp_path / "run")
    path = run / "lightning_logs/version_0/checkpoints/last.ckpt"
    adapters = {name: value for name, value in content["state_dict"].items() if "lora_" in name}
    torch.save({**content, "state_dict": adapters, RECORD: {"base": identity(str(base))}}, path)
    assert main(["export", str(path), "--out", str(tmp_path / "out"), "--base", str(other)]) == 2
    said = capsys.readouterr().err
    assert f"was not trained on the files of '{other}'; give the model that its training began with" in said
    assert not (tmp_path / "out").exists()
    assert exported(path, tmp_path / "out", "--base", shutil.copytree(base, tmp_path / "moved"))


def test_base_is_for_trainings(adapter, base, tmp_path, capsys):
    assert main(["export", str(adapter), "--out", str(tmp_path / "out"), "--base", str(base)]) == 2
    assert "write base_model_name_or_path into the adapter_config.json" in capsys.readouterr().err


def test_identity_is_of_names_shapes_and_numbers(base, other):
    own = weights_identity(stored_tensors(str(base)))
    assert len(own) == 32
    assert own != weights_identity(stored_tensors(str(other)))
    fewer = dict(list(stored_tensors(str(base)).items())[1:])
    assert own != weights_identity(fewer)
