"""Text models with plain RoPE, whose masks come from transformers alone: prompts shared and repeated give the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from kvg.backbones.decoding import decode, prefill
from kvg.backbones.inputs import LanguageInputs
from kvg.backbones.language import LanguageModel
from kvg.backbones.scoring import completion_states
from kvg.backbones.shared_prefix import install

SIZE = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, LlamaDecoderLayer),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, Qwen3DecoderLayer),  # norms of queries and keys
}


@pytest.fixture(params=MODELS)
def make(request):
    """The model with prompts shared or repeated, its layers written out for single tokens or called."""
    hf_class, config_class, layer = MODELS[request.param]

    def build(shares_prefix: bool, written_out: bool = False) -> LanguageModel:
        torch.manual_seed(0)
        model = hf_class(config_class(**SIZE, initializer_range=0.2)).eval()
        if shares_prefix:
            install(model.get_decoder())
        family = SimpleNamespace(
            position_axes=1,
            plain_layers=(layer,) if written_out else (),
            language=lambda model: model.get_decoder(),
            extra_inputs=lambda inputs: {},
        )
        return LanguageModel(family, model, shares_prefix, sharded=False)

    return build


def prompts(language: LanguageModel) -> LanguageInputs:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[None]
    return LanguageInputs(language.embed(torch.arange(10).view(2, 5)), positions, mask)


@torch.no_grad()
def test_scores(make):
    tokens = torch.arange(20, 44).view(6, 4)
    mask = torch.arange(4) < torch.tensor([4, 1, 3, 2, 4, 0])[:, None]
    shared, repeated = (
        completion_states(language, prompts(language), tokens, mask, 0) for language in (make(True), make(False))
    )
    assert shared.std() > 0.1
    torch.testing.assert_close(shared, repeated, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sampling(make):
    steps = []
    for language in (make(True), make(True, written_out=True), make(False)):
        logits, state = prefill(language, prompts(language), 2)
        assert bool(language.family.plain_layers) == (getattr(state, "token_pass", None) is not None)
        steps.append([logits])
        for token in (50, 60, 70):
            steps[-1].append(decode(language, torch.arange(token, token + 4), state))
    for called, written_out, repeated in zip(*steps, strict=True):
        torch.testing.assert_close(called, repeated, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(written_out, repeated, atol=1e-5, rtol=1e-5)
