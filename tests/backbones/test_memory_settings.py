"""Settings that save memory: recomputed activations, weights in bfloat16, and a cache that must not be stale."""

from __future__ import annotations

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.errors import ConfigError
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from tests.backbones.stirred import logits


@pytest.mark.parametrize("what", ["vision", "projector"])
def test_visual_tokens_that_change_are_not_kept(what):
    with pytest.raises(ConfigError, match=r"feature_cache_mb: 64 keeps visual tokens, which change while the \w+"):
        Backbone("tiny", feature_cache_mb=64, **{f"freeze_{what}": False})


@pytest.mark.parametrize("value", [-1, 0.5, "64", True])
def test_memory_that_is_no_size(value):
    with pytest.raises(ConfigError, match=r"backbone\.feature_cache_mb: .* must be a whole number of at least 0"):
        Backbone("tiny", feature_cache_mb=value)


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
