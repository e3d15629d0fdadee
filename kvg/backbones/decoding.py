"""Sampling with a backbone: the prompts in one pass, then a token of each row at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from kvg.backbones.group_state import GroupState
from kvg.backbones.inputs import LanguageInputs
from kvg.backbones.language import LanguageModel
from kvg.backbones.token_pass import TokenPass


class RepeatedState:
    """A plain cache whose prompts are repeated over their groups: for every backbone."""

    def __init__(self, mask: Tensor, position: Tensor, repeats: int, cache: Any) -> None:
        if repeats > 1:
            cache.batch_repeat_interleave(repeats)
        self.cache = cache
        self.mask = mask.repeat_interleave(repeats, 0)
        self.position = position.repeat_interleave(repeats, 0)

    def select(self, rows: Tensor) -> None:
        """Keeps only these rows, in this order."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]


def prefill(language: LanguageModel, inputs: LanguageInputs, repeats: int) -> tuple[Tensor, GroupState | RepeatedState]:
    """See ``kvg.rl.rollout.Policy.prefill``.

    Args:
        language: the model.
        inputs: B left-padded prompts.
        repeats: completions of each.
    """
    assert inputs.mask is not None, "prompts are padded"
    state: GroupState | RepeatedState
    if language.shares_prefix:
        state = GroupState(inputs.mask, inputs.following(), repeats)
        out = language.run(inputs, keep=state)
        if TokenPass.fits(language) and not language.sharded:
            state.token_pass = TokenPass(language, len(state.owner))
    else:
        out = language.run(inputs, use_cache=True, past_key_values=DynamicCache())
        state = RepeatedState(inputs.mask, inputs.following(), repeats, out.past_key_values)
    return language.head(out.last_hidden_state[:, -1]).repeat_interleave(repeats, 0), state


def decode(language: LanguageModel, tokens: Tensor, state: GroupState | RepeatedState) -> Tensor:
    """See ``kvg.rl.rollout.Policy.decode``."""
    embeds = language.embed(tokens)
    if isinstance(state, GroupState) and state.token_pass is not None:
        logits = state.token_pass(embeds, state.position, state)
    else:
        logits = language.head(_through_modules(language, embeds, state))
    if isinstance(state, GroupState):
        state.length += 1
    state.position = state.position + 1
    return logits


def _through_modules(language: LanguageModel, embeds: Tensor, state: GroupState | RepeatedState) -> Tensor:
    """The same as ``TokenPass`` by the model's own layers: of any kind, and sharded ones are gathered when called."""
    inputs = LanguageInputs(embeds[:, None], language.on_all_axes(state.position[:, None]))
    if isinstance(state, GroupState):
        out = language.run(inputs, state=state)
    else:
        state.mask = torch.cat([state.mask, state.mask.new_ones(len(embeds), 1)], -1)
        mask = state.mask[:, None, None]
        out = language.run(inputs, attention_mask=mask, use_cache=True, past_key_values=state.cache)
    states: Tensor = out.last_hidden_state[:, -1]
    return states
