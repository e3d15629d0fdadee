"""Sampling with each prompt kept once: what sampling with a repeated cache gives, through every change of its shape."""

from __future__ import annotations

import pytest
import torch

from kvg.backbones import group_state, token_pass
from kvg.backbones.lora import LoRASettings
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

FREE = SamplingSettings(max_new_tokens=20, temperature=0.8)


@pytest.mark.two_families
@pytest.mark.parametrize("group", [1, 3])
def test_samples_are_those_of_a_repeated_cache(family, prompts, monkeypatch, group):
    """Rows end at different steps, one group before all others, and the room of completions grows three times."""
    monkeypatch.setattr(group_state, "FIRST_ROOM", 3)
    found = []
    for share in (True, False):
        torch.manual_seed(0)
        backbone = family("tiny", share_prefix=share).eval()
        batch = prompts(backbone)
        free = rollout(backbone, batch, FREE, group, torch.Generator().manual_seed(3))
        first = free.tokens[:group]
        ends = [*first[:, 2].tolist(), *free.tokens[group::2, 6].tolist()]
        backbone.end_token_ids = tuple(ends)
        out = rollout(backbone, batch, FREE, group, torch.Generator().manual_seed(3))
        assert len(set(out.completion_mask.sum(1).tolist())) > 1
        found.append((free, out))
    for shared, repeated in zip(*found, strict=True):
        assert torch.equal(shared.tokens, repeated.tokens)
        assert torch.equal(shared.completion_mask, repeated.completion_mask)
        assert (shared.logprobs - repeated.logprobs).abs().max() < 1e-5


def test_prompts_without_rows_are_let_go(backbone, prompts):
    logits, state = backbone.prefill(prompts(backbone), 2)
    assert logits.shape[0] == 8
    backbone.select(state, torch.tensor([1, 4, 5]))  # of prompts 0 and 2
    assert len(state.mask) == 2
    assert all(len(key) == 2 for key, _ in state.prompts)
    assert state.owner.tolist() == [0, 1, 1]
    alone, alone_state = backbone.prefill(prompts(backbone), 1)
    tokens = alone.argmax(-1)
    expected = backbone.decode(tokens, alone_state)[[0, 2, 2]]
    torch.testing.assert_close(backbone.decode(tokens[[0, 2, 2]], state), expected, atol=1e-5, rtol=1e-5)


def test_attention_written_out_is_that_of_the_kernel():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 5, 24), torch.randn(3, 2, 40, 24), torch.randn(3, 2, 40, 24)
    mask = torch.arange(40)[None, None, None] >= torch.tensor([0, 7, 39])[:, None, None, None]
    for seen in (None, mask):
        ours = group_state.plain_attention(query, key, value, seen, 0.2)
        given = None if seen is None else group_state.as_mask(seen, query.dtype)
        for one, other in zip(ours, group_state._attention(query, key, value, given, 0.2), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("copied", [False, True], ids=["as they are", "copied"])
@pytest.mark.parametrize("lora", [None, LoRASettings(r=4, alpha=8)])
def test_a_token_written_out_gives_the_states_of_the_layers(family, prompts, lora, copied, monkeypatch):
    if not copied:  # as on a GPU
        monkeypatch.setattr(token_pass, "_copied", lambda rows: token_pass._as_they_are)
    torch.manual_seed(0)
    backbone = family("tiny", lora=lora).eval()
    if not backbone.family.plain_layers:
        pytest.skip("its layers are called")
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name or "bias" in name or "norm" in name:  # which are 0 or 1 at first
            torch.nn.init.normal_(parameter, std=0.5)
    outs = []
    for written_out in (True, False):
        logits, state = backbone.prefill(prompts(backbone), 2)
        assert state.token_pass is not None
        if not written_out:
            state.token_pass = None
        outs.append([logits])
        for step in range(3):
            outs[-1].append(backbone.decode(outs[0][step].argmax(-1), state))
    for one, other in zip(*outs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


def test_layers_that_are_not_known_are_called_as_they_are(backbone, prompts):
    layers = backbone.language.text_model.layers

    class Other(type(layers[0])):
        pass

    layers[1].__class__ = Other
    assert backbone.prefill(prompts(backbone), 2)[1].token_pass is None
