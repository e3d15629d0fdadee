"""Adapters inside a model: what they change, their base beside them, merged exports, and settings without a place."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError
from tests.backbones.stirred import logits, stir


def num_adapters(backbone):
    """A and B on the four linear layers of attention and those of the MLP: three, two with one for both halves, or
    none where the MLPs are experts."""
    names = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")
    layers = backbone.language.text_model.layers
    return 2 * sum(4 + sum(isinstance(getattr(layer.mlp, name, None), nn.Module) for name in names) for layer in layers)


def test_fresh_adapters_change_nothing_and_train_alone(family, backbone, batch):
    adapted = family("tiny", lora=LoRASettings(r=4)).eval()
    assert torch.equal(logits(adapted, batch), logits(backbone, batch))
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == num_adapters(adapted)
    assert all("lora_" in n and re.search("(language|text)_model", n) for n in trained)
    stir(adapted, "lora_B")
    adapted.label_loss(batch)[0].backward()
    assert all(p.grad.abs().sum() > 0 for n, p in adapted.named_parameters() if "lora_A" in n)


def test_base_weights_are_the_base_and_the_adapters_come_back(family, backbone, batch):
    adapted = stir(family("tiny", lora=LoRASettings(r=4)).eval(), "lora_B")
    before = logits(adapted, batch)
    assert (before - logits(backbone, batch)).abs().max() > 0.05
    with adapted.base_weights():
        assert torch.equal(logits(adapted, batch), logits(backbone, batch))
    assert torch.equal(logits(adapted, batch), before)
    assert sum(p.requires_grad for p in adapted.parameters()) == num_adapters(adapted)
    with pytest.raises(RuntimeError, match="on the way"), adapted.base_weights():
        raise RuntimeError("on the way")
    assert torch.equal(logits(adapted, batch), before)


def test_export_merges_adapters_and_leaves_the_model_alone(family, backbone, batch, tmp_path):
    adapted = stir(family("tiny", lora=LoRASettings(r=4, alpha=8)).eval(), "lora_B")
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    adapted.export(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())
    merged = family(str(tmp_path), max_pixels=None).eval()
    assert (logits(merged, batch) - logits(adapted, batch)).abs().max() < 1e-4
    assert not any("lora" in name or "base_layer" in name for name in merged.state_dict())
    inside = next(name for name, module in adapted.model.named_modules() if module is adapted.language.text_model)
    name = f"{inside}.layers.1.self_attn.v_proj"
    layer = adapted.model.get_submodule(name)
    by_hand = layer.base_layer.weight + 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(merged.model.get_submodule(name).weight, by_hand)


def test_adapters_on_an_adapted_model(family, batch, tmp_path):
    """Stage 2 with LoRA starts from the export of a stage 1 with LoRA."""
    stir(family("tiny", lora=LoRASettings(r=4)).eval(), "lora_B").export(tmp_path)
    merged = family(str(tmp_path), max_pixels=None).eval()
    again = stir(family(str(tmp_path), max_pixels=None, lora=LoRASettings(r=2)).eval(), "lora_B")
    with again.base_weights():
        assert torch.equal(logits(again, batch), logits(merged, batch))


def test_adapter_that_fits_no_layer():
    with pytest.raises(ConfigError, match=r"backbone\.lora\.targets: .*q_projection"):
        Backbone("tiny", lora=LoRASettings(targets=("q_projection",)))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("q_proj", "qkv"), "'qkv' names no linear layer of the language model; choose from down_proj, gate_proj"),
        (("embed_tokens",), "'embed_tokens' names no linear layer"),
        (("lm_head",), "'lm_head' names no linear layer"),
        (("mlp",), "'mlp' names no linear layer"),
        (("q_pro.",), "'q_pro.' names no linear layer"),
    ],
)
def test_adapters_on_what_has_no_place_for_them(targets, message):
    with pytest.raises(ConfigError, match=rf"backbone\.lora\.targets: {message}"):
        Backbone("tiny", lora=LoRASettings(targets=targets))


@pytest.mark.parametrize(
    "settings",
    [{"r": 0}, {"r": 1.5}, {"r": True}, {"dropout": 1.5}, {"dropout": 1}, {"dropout": -0.1}, {"dropout": math.nan},
     {"alpha": 0}, {"alpha": -1}, {"alpha": math.inf}, {"targets": ()}, {"targets": "q_proj"}, {"targets": ("",)}],
)  # fmt: skip
def test_impossible_adapter(settings):
    with pytest.raises(ConfigError, match=rf"backbone\.lora\.{next(iter(settings))}"):
        Backbone("tiny", lora=LoRASettings(**settings))
