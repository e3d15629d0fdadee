"""Ways to train a part of a model: gradients and merged weights are those of PEFT, and what is frozen stays."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from kvg.backbones.adapter_export import export_adapter, goes_alone
from kvg.backbones.backbone import Backbone
from kvg.backbones.find_family import family_of_type
from kvg.backbones.freezing import part_of
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

KINDS = {
    "lora": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "both": {"rslora": True, "dora": True},
    "tokens": {"tokens": (3, 40, 41)},
    "all": {"rslora": True, "dora": True, "tokens": (3, 40, 41), "targets": ("q_proj", "down_proj")},
}
QWEN2, QWEN3 = (partial(Backbone, "tiny", family_of_type(name)) for name in ("qwen2_vl", "qwen3_vl"))


def settings_of(kind, **more):
    return LoRASettings(**{"r": 4, "alpha": 8, **KINDS[kind], **more})


def stirred(model):
    """Every trained tensor differs from what it starts as."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * (0.01 if "magnitude" in name else 0.1))
    return model


def peft_model(base, lora):
    """The same adapters by PEFT itself, beside the weights of a model without adapters."""
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, use_rslora=lora.rslora, use_dora=lora.dora,
        target_modules=rf".*language_model.*\.({'|'.join(lora.targets)})",
        trainable_token_indices=list(lora.tokens) or None,
    )  # fmt: skip
    return get_peft_model(base.model, config)


def encoded(backbone, samples):
    examples = [backbone.processor.encode(s, mode="direct", target="answer") for s in samples]
    return backbone.processor.collate(examples, samples)


@pytest.fixture
def batch(samples):
    return encoded(QWEN2(), samples)


def loss_of(model, plain, labels):
    logits = model(**plain).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


@pytest.mark.parametrize(("build", "kind"), [*((QWEN2, kind) for kind in KINDS), (QWEN3, "all")])
def test_loss_and_gradients_are_those_of_peft(build, kind, samples):
    lora = settings_of(kind)
    backbone, base = build(lora=lora).train(), build()
    batch = encoded(base, samples)
    peft = peft_model(base, lora)
    theirs = {name.removeprefix("base_model.model."): p for name, p in peft.named_parameters() if p.requires_grad}
    stirred(backbone)
    ours = {name.removeprefix("model."): p for name, p in backbone.named_parameters() if p.requires_grad}
    assert ours.keys() == theirs.keys()
    for name, parameter in theirs.items():
        parameter.data.copy_(ours[name])
    loss, _ = backbone.label_loss(batch)
    loss.backward()
    tensors = batch.pictures.tensors
    plain = {
        "input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "image_grid_thw": tensors["grid"],
        "mm_token_type_ids": (batch.input_ids == backbone.processor.image_token_id).int(),
        "pixel_values": backbone.processor.pictures.pixel_values(tensors["patches"]),
    }  # fmt: skip
    expected = loss_of(peft.train(), plain, batch.labels)
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    for name, parameter in theirs.items():
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(ours[name].grad, parameter.grad, atol=2e-5, rtol=2e-3, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_export_is_that_of_peft(kind, tmp_path):
    lora = settings_of(kind)
    backbone, base = stirred(QWEN2(lora=lora)), QWEN2()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.export(tmp_path / "merged")
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    peft = peft_model(base, lora)
    ours = dict(backbone.model.named_parameters())
    for name, parameter in peft.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(ours[name.removeprefix("base_model.model.")])
    expected = peft.merge_and_unload().state_dict()
    found, bare = Backbone(str(tmp_path / "merged")).model.state_dict(), QWEN2().model.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    moved = {name for name, value in expected.items() if not torch.equal(value, bare[name])}
    assert moved == {name for name in found if not torch.equal(found[name], bare[name])}
    assert ("lm_head.weight" in moved) == bool(lora.tokens)  # it shares the embeddings


@pytest.mark.parametrize("kind", ["lora", "dora", "all"])
def test_peft_reads_the_adapters_alone(kind, batch, tmp_path):
    QWEN2().export(tmp_path / "base")
    backbone = stirred(Backbone(str(tmp_path / "base"), lora=settings_of(kind)).eval())
    export_adapter(backbone, tmp_path / "adapter")
    assert goes_alone(backbone) == (kind in ("lora", "rslora"))
    with torch.no_grad():
        expected = backbone.logits(batch)
        ours = Backbone(str(tmp_path / "adapter")).eval().logits(batch)
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=2e-4)
    peft = PeftModel.from_pretrained(Backbone(str(tmp_path / "base")).model, tmp_path / "adapter")
    theirs = {name.removeprefix("base_model.model."): value for name, value in peft.named_parameters()}
    for name, value in backbone.model.named_parameters():
        assert torch.equal(theirs[name], value), name


@pytest.mark.parametrize("kind", ["lora", "all"])
def test_the_reference_is_the_adapter_switched_off(kind, batch):
    backbone, base = stirred(QWEN2(lora=settings_of(kind)).eval()), QWEN2().eval()
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    with torch.no_grad():
        before, bare = backbone.logits(batch), base.logits(batch)
        assert (before - bare).abs().max() > 0.05
        with backbone.base_weights():
            assert torch.equal(backbone.logits(batch), bare)
        assert torch.equal(backbone.logits(batch), before)
    assert [name for name, p in backbone.named_parameters() if p.requires_grad] == trained


@pytest.mark.parametrize(("kind", "share_prefix"), [*((kind, True) for kind in KINDS), ("all", False)])
def test_what_is_sampled_is_what_is_scored(kind, share_prefix, prompts):
    backbone = stirred(QWEN2(lora=settings_of(kind), share_prefix=share_prefix).eval())
    batch = prompts(backbone)
    with torch.no_grad():
        out = rollout(backbone, batch, SamplingSettings(12), 3, torch.Generator().manual_seed(0))
        scores, _ = backbone.completion_logprobs(batch, out.tokens, out.completion_mask)
    torch.testing.assert_close(out.logprobs, scores, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, ["language", "embeddings"]),
        ({"freeze_embeddings": True}, ["language"]),
        ({"freeze_language": True, "freeze_projector": False}, ["merger"]),
        ({"freeze_language": True, "freeze_vision": False, "freeze_projector": False}, ["vision", "merger"]),
        ({"lora": LoRASettings(r=2)}, ["adapters"]),
        ({"lora": LoRASettings(r=2, tokens=(3,)), "freeze_projector": False}, ["adapters", "merger"]),
    ],
    ids=str,
)
def test_parts_that_are_trained(settings, parts, samples, family):
    backbone = family("tiny", **settings)
    batch = encoded(backbone, samples)
    where = part_of(backbone.family, backbone.model)
    assert {where[name] for name, p in backbone.model.named_parameters() if p.requires_grad} == set(parts)
    backbone.label_loss(batch)[0].backward()
    learnt = {name for name, p in backbone.model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert {where[name] for name in learnt} == set(parts)
    assert sum(p.numel() for p in backbone.model.parameters()) == sum(
        p.numel() for name, p in backbone.model.named_parameters() if where[name]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": (3, 3)}, r"backbone\.lora\.tokens: names a token twice"),
        ({"tokens": (-1,)}, r"backbone\.lora\.tokens: -1 must be a whole number of at least 0"),
        ({"tokens": (10**7,)}, r"backbone\.lora\.tokens: 10000000 is no token; the model has \d+"),
        ({"bits": 8}, r"backbone\.lora\.bits: 8 is not 4 or 16"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        QWEN2(lora=LoRASettings(**settings))


def test_adapters_that_would_be_frozen():
    with pytest.raises(ConfigError, match=r"backbone\.freeze_language: leaves nothing for the adapters"):
        QWEN2(lora=LoRASettings(), freeze_language=True)
