"""Folders that are no model of this project: refused with the file and the reason."""

from __future__ import annotations

import json

import pytest

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen2_5_vl import Qwen25VL
from kvg.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    Backbone("tiny").export(tmp_path / "model")
    return tmp_path / "model"


def fault(path, **settings) -> str:
    with pytest.raises(ConfigError) as caught:
        Backbone(str(path), **settings)
    assert caught.value.field == "backbone.checkpoint"
    assert str(path) in str(caught.value)
    return caught.value.remedy


def test_checkpoint_of_another_architecture(folder):
    remedy = fault(folder, family=Qwen25VL())
    assert "holds a qwen2_vl model, not qwen2_5_vl" in remedy
    assert "leave backbone.family out" in remedy


def test_checkpoint_of_a_family_that_transformers_does_not_know(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "resnet_of_tomorrow"}))
    assert "resnet_of_tomorrow" in fault(folder)


def test_folder_without_config(tmp_path):
    assert "has no config.json" in fault(tmp_path)


def test_config_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    assert "cannot be read" in fault(folder)


def test_path_that_is_not_there(tmp_path):
    assert "no such folder" in fault(tmp_path / "nowhere")


def test_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in fault(folder)


def test_weights_cut_in_half(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "model.safetensors" in fault(folder)


def test_weights_of_another_size(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    assert "do not fit" in fault(folder)


def test_folder_without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in fault(folder)


@pytest.mark.parametrize("told", [None, 0])
def test_completions_end_where_the_turn_ends_whatever_the_folder_says(folder, told):
    """Base models, and folders without the file, only know the end of the text."""
    (folder / "generation_config.json").unlink()
    if told is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": told}))
    ends = Backbone(str(folder)).end_token_ids
    turn_end = Backbone("tiny").processor.ids("<|im_end|>")
    assert set(turn_end) <= set(ends)
    assert told is None or told in ends
