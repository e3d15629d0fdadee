"""What a folder must not do or be: code, pickles, parts of another model. Refused before weights are loaded."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import build_model
from kvg.backbones.families.qwen2_5_vl import Qwen25VL
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.errors import ConfigError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    Backbone("tiny").export(folder, "think")
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture
def fault(monkeypatch):
    """The reason for which a folder is refused, without a single weight read."""
    for family in (Qwen2VL, Qwen25VL):
        monkeypatch.setattr(family.hf_class, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))

    def reason(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            Backbone(str(path))
        assert caught.value.field == "backbone.checkpoint"
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 900
        return caught.value.remedy

    return reason


def change(path: Path, **settings) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


class Payload:
    """Makes a file as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


# -- code --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "auto_map"),
    [
        ("config.json", {"AutoConfig": "own.Own", "AutoModel": "own.Own"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["own.Own", None]}),
        ("preprocessor_config.json", {"AutoImageProcessor": "own.Own"}),
        ("processor_config.json", {"AutoProcessor": "somebody/elsewhere--own.Own"}),
    ],
)
def test_code_of_a_folder_is_refused_whichever_file_names_it(folder, fault, name, auto_map):
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n\n\nclass Own:\n    pass\n")
    path = folder / name
    if not path.exists():
        path.write_text("{}")
    change(path, auto_map=auto_map)
    remedy = fault(folder)
    assert f"its {name} wants code of its own to be run" in remedy
    assert "own.Own" in remedy
    assert "give the checkpoint in the form of transformers itself" in remedy
    assert not (folder / "ran").exists()


def test_code_in_a_folder_of_adapters_is_refused(folder, adapter, fault):
    (adapter / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": "own.Own"}}))
    assert "its tokenizer_config.json wants code of its own" in fault(adapter)


@pytest.mark.parametrize("form", ["archive", "plain"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "pytorch_model-00001-of-00001.bin"])
def test_pickles_are_refused_whatever_they_are_called(folder, fault, name, form):
    (folder / "model.safetensors").unlink()
    payload = {"weight": Payload(folder / "ran")}
    if form == "archive":
        torch.save(payload, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(payload))
    if name.endswith("-00001.bin"):
        index = {"metadata": {}, "weight_map": {"weight": name}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    remedy = fault(folder)
    assert "could run code as it is read" in remedy
    assert "as safetensors" in remedy
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_pickled_adapters_are_refused(adapter, fault, name):
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / name).write_bytes(pickle.dumps(Payload(adapter / "ran")))
    assert "as safetensors" in fault(adapter)
    assert not (adapter / "ran").exists()


# -- parts of another model --------------------------------------------------------------------------------------------
def test_settings_of_one_family_with_weights_of_another(folder, fault, tmp_path):
    """Their layers of language are called alike; the towers differ."""
    Backbone("tiny", Qwen25VL()).export(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    remedy = fault(folder)
    assert "lacks" in remedy
    assert "model.visual." in remedy
    assert "give a folder whose files belong together" in remedy


def test_a_family_that_a_config_names_and_a_checkpoint_of_another(folder, monkeypatch):
    monkeypatch.setattr(Backbone, "describe", lambda *_: pytest.fail("read on"))
    with pytest.raises(ConfigError, match=r"holds a qwen2_vl model, not qwen2_5_vl; leave backbone\.family out"):
        Backbone(str(folder), Qwen25VL())


def parts(folder: Path, num: int = 3) -> list[Path]:
    """Puts the weights into files of their own, with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, files = sorted(weights), []
    index = {}
    for number in range(num):
        files.append(folder / f"model-{number + 1:05}-of-{num:05}.safetensors")
        own = names[number::num]
        save_file({name: weights[name] for name in own}, files[-1], {"format": "pt"})
        index |= {name: files[-1].name for name in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return files


def test_a_missing_part(folder, fault):
    parts(folder)[1].unlink()
    assert "has no model-00002-of-00003.safetensors, which its model.safetensors.index.json names" in fault(folder)


def test_a_missing_index(folder, fault):
    parts(folder)
    (folder / "model.safetensors.index.json").unlink()
    assert "model-00001-of-00003.safetensors is a part of the weights, and their model.safetensors.index.json is" in (
        fault(folder)
    )


def test_a_part_that_is_a_copy_of_another(folder, fault):
    first, second, _ = parts(folder)
    shutil.copy(first, second)
    remedy = fault(folder)
    assert "names 1" in remedy or "names 2" in remedy
    assert "weights that are in none of its files" in remedy


def test_weights_without_those_of_a_projector(folder, fault):
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "merger" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert "lacks 6 weights of the model in its config.json (model.visual.merger.ln_q.bias, ...)" in fault(folder)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_one_of_two_tied_weights_is_enough(folder, name):
    weights = load_file(folder / "model.safetensors")
    (stored,) = (name for name in weights if name.endswith("embed_tokens.weight"))
    tensor = weights.pop(stored)
    save_file({**weights, name: tensor}, folder / "model.safetensors", {"format": "pt"})
    model = Backbone(str(folder)).model
    assert torch.equal(model.lm_head.weight, tensor)
    assert torch.equal(model.get_input_embeddings().weight, tensor)
    theirs = AutoModelForImageTextToText.from_pretrained(folder)
    assert torch.equal(theirs.lm_head.weight, tensor)


# -- tokenizers --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("token", ["<|box_start|>", "<|object_ref_end|>", "<|endoftext|>"])
def test_a_tokenizer_that_cuts_what_should_be_one_token(folder, fault, token):
    """Such a model would write boxes and marks in pieces that it was never shown."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text().replace(token, token.replace("_", "-").replace("endof", "end-of-")))
    remedy = fault(folder)
    assert f"its tokenizer cuts {token} into " in remedy
    assert "copy the tokenizer files that belong to it into the folder" in remedy


# -- adapters ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def adapter(folder, tmp_path) -> Path:
    """Adapters on the folder's model."""
    model = Backbone(str(folder)).model
    config = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|down_proj)")
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"intermediate_size": 96}, "down_proj.lora_A.weight is made for 128 and meets 96"),
        ({"num_hidden_layers": 1, "layer_types": ["full_attention"]},
         "has no layer model.language_model.layers.1.mlp.down_proj"),
    ],
)  # fmt: skip
def test_adapters_of_a_model_of_another_size(folder, adapter, fault, tmp_path, settings, message):
    base = Backbone("tiny")
    config = base.family.tiny_config(base.processor.tokenizer)
    for name, value in settings.items():
        setattr(config.text_config, name, value)
    base.model = build_model(base.family.hf_class, config)
    base.export(tmp_path / "other")
    change(adapter / "adapter_config.json", base_model_name_or_path=str(tmp_path / "other"))
    remedy = fault(adapter)
    assert f"belongs to another model than '{tmp_path / 'other'}'" in remedy
    assert message in remedy
    assert "give the model that the adapters were trained on" in remedy
