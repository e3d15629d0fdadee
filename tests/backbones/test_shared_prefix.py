"""Groups scored with their prompt computed once: the same numbers and gradients as with the prompt repeated."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from kvg.backbones.lora import LoRASettings
from kvg.backbones.shared_prefix import make_rows, masked_attention, shared_prefix_attention
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

# Prompt lengths, and lengths of each group's completions: none, empty ones, and one beyond the kernel's block of keys.
LENGTHS = ([7, 5, 300, 1], [[3, 0, 4], [0, 0, 0], [70, 33, 1], [2]])


def dense_mask(prompts: list[int], groups: list[list[int]]) -> torch.Tensor:
    """Who sees whom, written out token by token."""
    owner = []
    for number, (prompt, lengths) in enumerate(zip(prompts, groups, strict=True)):
        owner += [(number, 0)] * prompt
        for own, length in enumerate(lengths, start=1):
            owner += [(number, own)] * length
    sees = [
        [j <= i and owner[j][0] == owner[i][0] and owner[j][1] in (0, owner[i][1]) for j in range(len(owner))]
        for i in range(len(owner))
    ]
    return torch.tensor(sees)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("attention", [shared_prefix_attention, masked_attention])
def test_attention_is_that_of_the_whole_mask(attention, groups):
    rows, mask = make_rows(*LENGTHS), dense_mask(*LENGTHS)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, len(mask), 24) for heads in (4, groups, groups))
    weight = torch.randn(1, len(mask), 4, 24)
    found = []
    for way in ("ours", "whole"):
        tensors = [t.clone().requires_grad_() for t in (query, key, value)]
        if way == "ours":
            out = attention(*tensors, rows, 0.3)
        else:
            repeated = [tensors[0], *(t.repeat_interleave(4 // groups, 1) for t in tensors[1:])]
            out = scaled_dot_product_attention(*repeated, attn_mask=mask, scale=0.3).transpose(1, 2)
        (out * weight).sum().backward()
        found.append([out.detach(), *(t.grad for t in tensors)])
    for ours, whole in zip(*found, strict=True):
        torch.testing.assert_close(ours, whole, atol=1e-5, rtol=1e-5)


@pytest.fixture
def scored(family, prompts):
    """Scores, entropies and the gradient of a weighted sum of scores, of a backbone made with these options."""

    def run(tokens=None, mask=None, group=3, num=4, **options):
        torch.manual_seed(0)
        backbone = family("tiny", freeze_vision=False, freeze_projector=False, **options)
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:  # zeros at first: then nothing of an adapter would be seen
                torch.nn.init.normal_(parameter, std=0.1)
        batch = prompts(backbone, num)
        generator = torch.Generator().manual_seed(1)
        if tokens is None:
            tokens = torch.randint(0, 900, (num * group, 11), generator=generator)
            lengths = torch.randint(1, 12, (num * group, 1), generator=generator)
            lengths[1] = 0
            mask = torch.arange(11) < lengths
        scores, entropies = backbone.completion_logprobs(batch, tokens, mask, 0.7)
        (scores * torch.randn(scores.shape, generator=generator)).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None])
        return backbone, scores.detach(), entropies, gradient, tokens, mask

    return run


@pytest.mark.two_families
@pytest.mark.parametrize("lora", [None, LoRASettings(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize(("group", "num"), [(3, 4), (1, 4), (8, 1)])
def test_scores_and_gradients_are_those_of_repeated_prompts(scored, lora, group, num):
    shared, scores, entropies, gradient, *_ = scored(group=group, num=num, lora=lora)
    plain, expected, expected_entropies, expected_gradient, *_ = scored(
        group=group, num=num, lora=lora, share_prefix=False
    )
    assert shared.shares_prefix
    assert not plain.shares_prefix
    assert (scores - expected).abs().max() < 1e-5
    assert (entropies - expected_entropies).abs().max() < 1e-4
    assert (gradient - expected_gradient).norm() < 1e-5 * expected_gradient.norm()
    assert expected_gradient.norm() > 1


def test_recomputed_activations_change_nothing(scored):
    _, scores, _, gradient, *_ = scored()
    _, again, _, gradient_again, *_ = scored(gradient_checkpointing=True)
    assert torch.equal(scores, again)
    torch.testing.assert_close(gradient, gradient_again, atol=1e-6, rtol=1e-5)


def test_siblings_are_not_seen(scored):
    _, scores, *_, tokens, mask = scored()
    changed = tokens.clone()
    changed[0] = (changed[0] + 1) % 900
    _, others, *_ = scored(changed, mask)
    assert not torch.equal(scores[0], others[0])
    torch.testing.assert_close(scores[1:], others[1:], atol=1e-6, rtol=1e-6)


def test_other_attentions_repeat_the_prompt(family):
    assert not family("tiny", attn="eager").shares_prefix


def test_dropout_is_refused(family, prompts):
    """Transformers hands it over in training only; the joined attention would leave it out without a word."""
    backbone = family("tiny").train()
    for layer in backbone.language.text_model.layers:
        layer.self_attn.attention_dropout = 0.1
    tokens = torch.zeros(4, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="attention_dropout"):
        backbone.completion_logprobs(prompts(backbone), tokens, tokens == 0)


def test_several_passes_are_as_one(scored, monkeypatch):
    _, scores, _, gradient, *_ = scored()
    monkeypatch.setattr("kvg.backbones.scoring.PACK_TOKENS", 200)  # one or two prompts each
    _, again, _, gradient_again, *_ = scored()
    torch.testing.assert_close(scores, again, atol=1e-5, rtol=1e-5)
    assert (gradient - gradient_again).norm() < 1e-5 * gradient.norm()


def test_mixed_precision_goes_through_every_kernel(scored, family, prompts):
    """Weights in float32, products in bfloat16: near the plain numbers, with gradients in float32."""
    exact = scored(share_prefix=True)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = scored(share_prefix=True)
        backbone = family("tiny").eval()
        out = rollout(backbone, prompts(backbone), SamplingSettings(8), 2, torch.Generator().manual_seed(0))
    assert out.logprobs.isfinite().all()
    for one, other in zip(mixed[1:4], exact[1:4], strict=True):  # scores, entropies, gradient
        assert one.dtype == other.dtype == torch.float32
        assert (one - other).norm() < 0.05 * other.norm()
