"""Log-probabilities of given completions: with each prompt computed once for its group, or the plain way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvg.backbones.shared_prefix import make_rows, no_masks, pack_rows
from kvg.rl.logprobs import token_logprobs

if TYPE_CHECKING:
    from kvg.backbones.base import Backbone

PACK_TOKENS = 8192  # of one pass through the language model; on a CPU, larger ones wait for fresh memory


def shared_states(backbone: Backbone, batch: Mapping[str, Any], tokens: Tensor, completion_mask: Tensor) -> Tensor:
    """States that predict the completions' tokens; the prompt's tokens are computed once whatever the group's size.

    Args:
        backbone: one whose language model went through ``kvg.backbones.shared_prefix.install``.
        batch: B left-padded prompts.
        tokens: ``[N, T]``, N = B * G, the rows of a group side by side.
        completion_mask: ``[N, T]`` bool, True up to a completion's end.

    Returns:
        ``[M, hidden]`` for the M tokens under the mask, in their order.
    """
    embeds, positions, mask = backbone.prompt_inputs(batch)
    mask, device = mask.bool(), embeds.device
    prompts, lengths = mask.sum(1).tolist(), completion_mask.sum(1)
    sizes = lengths.view(len(prompts), -1).tolist()
    # Everything is first put as all prompts, then all completions; `order` brings each prompt before its own.
    steps = torch.arange(tokens.shape[1], device=device)
    after = (positions[0, :, -1].repeat_interleave(len(tokens) // len(prompts))[:, None] + 1 + steps)[completion_mask]
    order = _interleaved(prompts, [sum(group) for group in sizes]).to(device)
    answers = backbone.model.get_input_embeddings()(tokens[completion_mask])
    embeds = torch.cat([embeds[mask], answers]).index_select(0, order)
    positions = torch.cat([positions[:, mask], after.expand(3, -1)], 1)[:, order]
    # A completion's first token is predicted by the prompt's last, each other one by the token before it.
    before = [
        place
        for row in make_rows(prompts, sizes)
        for own in row.completions
        for place in (row.prompt.stop - 1, *range(own.start, own.stop - 1))
    ]
    out = _packed(backbone, prompts, sizes, embeds, positions)
    return out.index_select(0, torch.tensor(before, dtype=torch.long, device=device))


def _packed(
    backbone: Backbone, prompts: Sequence[int], sizes: Sequence[Sequence[int]], embeds: Tensor, positions: Tensor
) -> Tensor:
    """States ``[L, hidden]`` of rows that lie behind each other, in passes of at most ``PACK_TOKENS`` tokens."""
    model, states = backbone.model.model.language_model, []
    # Processes that share a sharded model must pass through it equally often, whatever their lengths.
    packs = [make_rows(prompts, sizes)] if backbone.sharded else pack_rows(prompts, sizes, PACK_TOKENS)
    totals = [rows[-1].ends[-1] for rows in packs]
    for rows, own, places in zip(packs, torch.split(embeds, totals), torch.split(positions, totals, 1), strict=True):
        out = model(
            inputs_embeds=own[None],
            position_ids=places[:, None],
            attention_mask=no_masks(model),
            use_cache=False,
            rows=rows,
        )
        states.append(out.last_hidden_state[0])
    return torch.cat(states)


def labelled_states(backbone: Backbone, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """States that predict labelled tokens, and those tokens; padding is not computed where prefixes are shared.

    Args:
        backbone: the model.
        batch: padded examples, see ``kvg.types.Processor.collate``.

    Returns:
        ``[M, hidden]`` and ``[M]``, in the order of rows and tokens.
    """
    learnt = batch["labels"][:, 1:] != -100
    labels: Tensor = batch["labels"][:, 1:][learnt]
    if not backbone.shares_prefix:
        return backbone.hidden(batch)[:, :-1][learnt], labels
    embeds, positions, mask = backbone.prompt_inputs(batch)
    mask = mask.bool()
    lengths = mask.sum(1).tolist()
    nothing: list[list[int]] = [[] for _ in lengths]  # no completions: each row is one causal sequence
    out = _packed(backbone, lengths, nothing, embeds[mask], positions[:, mask])
    place = (mask.flatten().cumsum(0) - 1).view_as(mask)[:, :-1][learnt]
    return out.index_select(0, place), labels


def _interleaved(first: list[int], second: list[int]) -> Tensor:
    """Order that takes spans of these lengths in turns from two lists that lie behind each other.

    >>> _interleaved([2, 1], [1, 2]).tolist()
    [0, 1, 3, 2, 4, 5]
    """
    lengths = torch.tensor([first, second])
    starts = lengths.flatten().cumsum(0).view_as(lengths) - lengths
    spans = zip(starts.T.flatten().tolist(), lengths.T.flatten().tolist(), strict=True)
    return torch.cat([torch.arange(start, start + length) for start, length in spans])


def repeated_states(backbone: Backbone, batch: Mapping[str, Any], tokens: Tensor, completion_mask: Tensor) -> Tensor:
    """The same with the prompt repeated for each completion and padding on both sides: for every backbone.

    Arguments and result: see ``shared_states``.
    """
    group, prompt_len = len(tokens) // len(batch["input_ids"]), batch["input_ids"].shape[1]
    embeds, positions, mask = backbone.prompt_inputs(batch)
    tail = positions[:, :, -1:] + torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    safe = tokens.masked_fill(~completion_mask, backbone.pad_token_id)
    answers = backbone.model.get_input_embeddings()(safe)
    out = backbone.model.model.language_model(
        inputs_embeds=torch.cat([embeds.repeat_interleave(group, 0), answers], 1),
        position_ids=torch.cat([positions, tail], -1).repeat_interleave(group, 1),
        attention_mask=torch.cat([mask.repeat_interleave(group, 0), completion_mask.to(mask.dtype)], -1),
        use_cache=False,
    ).last_hidden_state
    states: Tensor = out[:, prompt_len - 1 : -1][completion_mask]
    return states


def completion_logprobs(
    backbone: Backbone,
    batch: Mapping[str, Any],
    tokens: Tensor,
    completion_mask: Tensor,
    temperature: float,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """See ``kvg.backbones.base.Backbone.completion_logprobs``."""
    states = shared_states if backbone.shares_prefix else repeated_states
    found = states(backbone, batch, tokens, completion_mask)
    scores, entropies = token_logprobs(
        backbone.model.lm_head.weight, found, tokens[completion_mask], temperature, entropy_gradient=entropy_gradient
    )
    empty = torch.zeros(tokens.shape, device=scores.device, dtype=scores.dtype)
    return empty.masked_scatter(completion_mask, scores), empty.masked_scatter(completion_mask, entropies)
