"""Adapters as PEFT saves them: what a backbone makes of their folder is what PEFT's own model says."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from kvg.backbones.adapter_files import adapter_base
from kvg.backbones.backbone import Backbone
from kvg.backbones.fingerprint import fingerprint
from kvg.errors import ConfigError


@pytest.fixture
def batch(samples):
    backbone = Backbone("tiny")
    examples = [backbone.processor.encode(s, mode="direct", target="answer") for s in samples]
    return backbone.processor.collate(examples, samples)


@pytest.fixture
def saved(tmp_path):
    """A model's folder, a folder of adapters on it, and PEFT's model of both."""
    base = Backbone("tiny")
    base.export(tmp_path / "base")
    model = Backbone(str(tmp_path / "base"))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*\.(q_proj|down_proj)")
    model.model = get_peft_model(model.model, config)
    torch.manual_seed(0)
    for name, parameter in model.model.named_parameters():
        if "lora_B" in name:  # which begins as zeros, so that a fresh adapter does nothing
            parameter.data.normal_(std=0.2)
    model.model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "base", tmp_path / "adapter", model.model.eval()


@torch.no_grad()
def logits(backbone, batch):
    return backbone.logits(batch)[batch.attention_mask.bool()]


def test_a_folder_of_adapters_stands_for_its_model_with_them(saved, batch):
    base, adapter, peft_model = saved
    assert adapter_base(str(adapter)) == str(base)
    assert adapter_base(str(base)) is None
    found = Backbone(str(adapter)).eval()
    plain = Backbone(str(base)).eval()
    same = Backbone(str(base)).eval()
    same.model = peft_model.merge_and_unload()
    assert torch.equal(logits(found, batch), logits(same, batch))
    assert (logits(found, batch) - logits(plain, batch)).abs().max() > 0.01
    assert not any("lora_" in name for name, _ in found.named_parameters())


def test_names_of_older_transformers_are_understood(saved, batch):
    _, adapter, _ = saved
    wanted = logits(Backbone(str(adapter)).eval(), batch)
    weights = load_file(adapter / "adapter_model.safetensors")
    old = {name.replace(".model.model.language_model.", ".model.model."): value for name, value in weights.items()}
    assert old.keys() != weights.keys()
    save_file(old, adapter / "adapter_model.safetensors")
    assert torch.equal(logits(Backbone(str(adapter)).eval(), batch), wanted)


def test_other_weights_below_make_it_another_model(saved):
    base, adapter, _ = saved
    before = fingerprint(str(adapter))
    weights = load_file(base / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"})
    assert fingerprint(str(adapter)) != before


def change(adapter, **settings):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda a: change(a, peft_type="IA3"), "is not that of a LoRA"),
        (lambda a: change(a, base_model_name_or_path=None), "names no model"),
        (lambda a: change(a, base_model_name_or_path="/nowhere"), "'/nowhere' is no such folder"),
        (lambda a: change(a, r=3), "says rank 3 of .*down_proj, and its weights have 4"),
        (lambda a: (a / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (lambda a: (a / "adapter_model.safetensors").write_bytes(b"x"), "safetensors is damaged or cut off"),
        (lambda a: (a / "adapter_model.safetensors").rename(a / "adapter_model.bin"), "save .* as safetensors"),
        (lambda a: save_file({"base_model.model.x.lora_A.weight": torch.zeros(1)}, a / "adapter_model.safetensors"),
         "belongs to another model than .*, which has no layer x"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(saved, fault, message):
    _, adapter, _ = saved
    fault(adapter)
    with pytest.raises(ConfigError, match=message):
        Backbone(str(adapter))
