"""Sampling with a backbone: the prompts in one pass, then a token of each row at a time, or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from kvg.backbones.fixed_state import FixedState
from kvg.backbones.group_state import GroupState
from kvg.backbones.inputs import LanguageInputs
from kvg.backbones.language import LanguageModel
from kvg.backbones.token_pass import TokenPass
from kvg.errors import ConfigError


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


def prefill(
    language: LanguageModel, inputs: LanguageInputs, repeats: int, room: int | None = None
) -> tuple[Tensor, GroupState | RepeatedState]:
    """See ``kvg.rl.completions.Policy.prefill``.

    Args:
        language: the model.
        inputs: B left-padded prompts.
        repeats: completions of each.
        room: tokens of a completion at most, for a state of fixed shapes; None for one that grows.

    Raises:
        ConfigError: a state of fixed shapes is not possible for this model.
    """
    assert inputs.mask is not None, "prompts are padded"
    state: GroupState | RepeatedState
    if language.shares_prefix:
        rest = inputs.mask, inputs.following(), repeats
        state = GroupState(*rest) if room is None else FixedState(*rest, room)
        out = language.run(inputs, keep=state)
        if TokenPass.fits(language) and not language.sharded:
            state.token_pass = TokenPass(language, len(state.owner))
    else:
        if room is not None:
            raise ConfigError(
                "backbone.decoding", "fixed_shape needs a shared prefix; set attn: sdpa and share_prefix: true"
            )
        out = language.run(inputs, use_cache=True, past_key_values=DynamicCache())
        state = RepeatedState(inputs.mask, inputs.following(), repeats, out.past_key_values)
    return language.head(out.last_hidden_state[:, -1]).repeat_interleave(repeats, 0), state


def decode(language: LanguageModel, tokens: Tensor, state: GroupState | RepeatedState) -> Tensor:
    """See ``kvg.rl.completions.Policy.decode``."""
    if isinstance(state, GroupState):
        logits = _pass(language, tokens, state.begin(), state)
        state.accept()
        return logits
    state.mask = torch.cat([state.mask, state.mask.new_ones(len(tokens), 1)], -1)
    inputs = LanguageInputs(language.embed(tokens)[:, None], language.on_all_axes(state.position[:, None]))
    options = {"attention_mask": state.mask[:, None, None], "use_cache": True, "past_key_values": state.cache}
    states: Tensor = language.run(inputs, **options).last_hidden_state[:, -1]
    state.position = state.position + 1
    return _head(language, states)


def verify(language: LanguageModel, tokens: Tensor, widths: Sequence[int], state: GroupState) -> Tensor:
    """See ``kvg.rl.completions.Policy.verify``."""
    return _pass(language, tokens, state.begin(widths), state)


def _pass(language: LanguageModel, tokens: Tensor, positions: Tensor, state: GroupState) -> Tensor:
    """Logits ``[M, V]`` behind M tokens, which the state has made room for."""
    embeds = language.embed(tokens)
    if state.token_pass is not None:
        return state.token_pass(embeds, positions, state)
    # The model's own layers may be of any kind, and sharded ones are gathered when they are called.
    inputs = LanguageInputs(embeds[:, None], language.on_all_axes(positions[:, None]))
    return _head(language, language.run(inputs, state=state).last_hidden_state[:, -1])


def _head(language: LanguageModel, states: Tensor) -> Tensor:
    logits: Tensor = language.head(states)
    return logits
