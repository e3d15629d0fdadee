"""Adapters, export and reload, and folders that cannot be used."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from torch import nn
from transformers import AutoImageProcessor

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen2_5_vl import Qwen25VL
from kvg.backbones.find_family import family_of_type
from kvg.backbones.folders import trained_mode
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

TOLERANCE = 1e-5


@pytest.fixture
def batch(backbone, samples):
    examples = [backbone.processor.encode(s, mode="think", target="rationale") for s in samples]
    return backbone.processor.collate(examples, samples)


def stir(backbone, names="", scale=0.1):
    """Moves weights away from where they start; a fresh adapter does nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if names in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return backbone


@torch.no_grad()
def logits(backbone, batch):
    return backbone.logits(batch)[batch.attention_mask.bool()]


def num_adapters(backbone):
    """A and B on the four linear layers of attention and those of the MLP: three, two with one for both halves, or
    none where the MLPs are experts."""
    names = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")
    layers = backbone.language.text_model.layers
    return 2 * sum(4 + sum(isinstance(getattr(layer.mlp, name, None), nn.Module) for name in names) for layer in layers)


def test_export_and_reload(family, batch, tmp_path):
    backbone = stir(family("tiny", min_pixels=3136, max_pixels=12_544).eval(), scale=0.02)  # 2 x 2 tiles of 56 px
    backbone.export(tmp_path)
    again = family(str(tmp_path), max_pixels=None).eval()
    assert torch.equal(logits(again, batch), logits(backbone, batch))
    assert (again.processor.min_pixels, again.processor.max_pixels) == (3136, 12_544)
    assert again.end_token_ids == backbone.end_token_ids
    assert again.processor.chat("Who?") == backbone.processor.chat("Who?")
    assert (tmp_path / "model.safetensors").is_file()


def test_plain_transformers_reads_an_export(family, batch, samples, tmp_path):
    backbone = stir(family("tiny").eval(), scale=0.02)
    backbone.export(tmp_path)
    model, info = backbone.family.hf_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, backbone.model.state_dict()[name]), name
    image_processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    picture = backbone.processor.open(samples[1])
    theirs = image_processor(images=picture, return_tensors="pt")
    tensors = backbone.processor.picture(picture).tensors
    (pixels,) = (value for value in tensors.values() if value.dtype == torch.uint8)
    ours = backbone.processor.pictures.pixel_values(pixels)
    assert (theirs["pixel_values"] - ours).abs().max() < TOLERANCE


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


@pytest.mark.parametrize("what", ["vision", "projector"])
def test_visual_tokens_that_change_are_not_kept(what):
    with pytest.raises(ConfigError, match=r"feature_cache_mb: 64 keeps visual tokens, which change while the \w+"):
        Backbone("tiny", feature_cache_mb=64, **{f"freeze_{what}": False})


@pytest.mark.parametrize("value", [-1, 0.5, "64", True])
def test_memory_that_is_no_size(value):
    with pytest.raises(ConfigError, match=r"backbone\.feature_cache_mb: .* must be a whole number of at least 0"):
        Backbone("tiny", feature_cache_mb=value)


@pytest.mark.parametrize(
    "settings",
    [{"r": 0}, {"r": 1.5}, {"r": True}, {"dropout": 1.5}, {"dropout": 1}, {"dropout": -0.1}, {"dropout": math.nan},
     {"alpha": 0}, {"alpha": -1}, {"alpha": math.inf}, {"targets": ()}, {"targets": "q_proj"}, {"targets": ("",)}],
)  # fmt: skip
def test_impossible_adapter(settings):
    with pytest.raises(ConfigError, match=rf"backbone\.lora\.{next(iter(settings))}"):
        Backbone("tiny", lora=LoRASettings(**settings))


def test_gradient_checkpointing_computes_layers_twice_and_changes_nothing(family, batch):
    def run(**settings):
        backbone = family("tiny", **settings).train()
        calls = []
        backbone.language.text_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        backbone.label_loss(batch)[0].backward()
        gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
        return len(calls), gradients

    (once, plain), (twice, recomputed) = run(), run(gradient_checkpointing=True)
    assert (once, twice) == (1, 2)
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient)


def test_sampling_while_activations_are_recomputed(family, prompts):
    plain, recomputing = family("tiny").eval(), family("tiny", gradient_checkpointing=True).train()
    settings = SamplingSettings(6, temperature=0.0)
    with pytest.raises(RuntimeError, match=r"call eval\(\) before sampling"):
        rollout(recomputing, prompts(recomputing), settings)
    expected = rollout(plain, prompts(plain), settings).tokens
    assert torch.equal(rollout(recomputing.eval(), prompts(recomputing), settings).tokens, expected)


def test_reduced_precision(family, batch):
    backbone = family("tiny", dtype="bfloat16").eval()
    assert {p.dtype for p in backbone.parameters()} == {torch.bfloat16}
    gaps = (logits(backbone, batch) - logits(family("tiny").eval(), batch)).abs()
    assert gaps.mean() < 0.05
    # Rounding sends a token that stands between two experts to the other one.
    assert gaps.max() < 0.5 or backbone.family.model_type == "qwen3_vl_moe"


def test_unknown_precision():
    with pytest.raises(ConfigError, match=r"backbone\.dtype: 'float8' is not one of"):
        Backbone("tiny", dtype="float8")


# -- folders that cannot be used --------------------------------------------------------------------------------------
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


def test_every_weight_counts(family, batch):
    """Each tensor of an export takes part in the forward pass; a wrapper that skips a part would not notice a swap."""
    backbone = family("tiny", freeze_vision=False, freeze_projector=False).train()
    backbone.label_loss(batch)[0].backward()
    untouched = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # Key biases cancel in a softmax over keys; rounding leaves them a gradient or none.
    assert [n for n in untouched if not n.endswith("bias")] == []
    assert isinstance(backbone.model, nn.Module)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "its kvg.json cannot be read"), ("[]", "its kvg.json cannot be read"), ('{"mode": "x"}', "the mode 'x'")],
)
def test_a_damaged_note_on_how_to_ask_is_named(tmp_path, text, message):
    (tmp_path / "kvg.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        trained_mode(str(tmp_path))


def test_an_export_tells_how_to_ask(tmp_path):
    backbone = Backbone("tiny")
    assert backbone.trained_mode is None
    backbone.export(tmp_path, "think")
    assert Backbone(str(tmp_path)).trained_mode == "think"
    backbone.export(tmp_path)
    assert Backbone(str(tmp_path)).trained_mode is None


def test_an_export_of_an_earlier_version_loads(tmp_path):
    Backbone("tiny").export(tmp_path, "direct")
    (tmp_path / "kvg.json").write_text('{"mode": "think"}\n')
    assert Backbone(str(tmp_path)).trained_mode == "think"


def test_an_export_names_the_boxes_of_its_family(tmp_path):
    Backbone("tiny", family_of_type("qwen2_5_vl"), max_pixels=28 * 28 * 50).export(tmp_path)
    about = json.loads((tmp_path / "kvg.json").read_text())
    assert about["box"]["unit"] == "pixels of the resized picture"
    assert about["box"]["example"] == '{"bbox_2d": [250, 250, 750, 750]}'
    assert about["max_pixels"] == 39200
    assert about["mode"] is None
    assert about["prompt"].startswith("Find and give the bounding box of")
