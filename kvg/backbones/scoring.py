"""Log-probabilities of given completions: with each prompt computed once for its group, or the plain way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvg.backbones.inputs import LanguageInputs
from kvg.backbones.language import LanguageModel
from kvg.backbones.shared_prefix import make_rows, pack_rows

PACK_TOKENS = 8192  # of one pass through the language model; on a CPU, larger ones wait for fresh memory


def completion_states(
    language: LanguageModel, prompts: LanguageInputs, tokens: Tensor, completion_mask: Tensor, pad_token_id: int
) -> Tensor:
    """States that predict the completions' tokens.

    Args:
        language: the model.
        prompts: B left-padded ones.
        tokens: ``[N, T]``, N = B * G, the rows of a group side by side.
        completion_mask: ``[N, T]`` bool, True up to a completion's end.
        pad_token_id: stands where the mask is False.

    Returns:
        ``[M, hidden]`` for the M tokens under the mask, in their order.
    """
    if language.shares_prefix:
        return _shared_states(language, prompts, tokens, completion_mask)
    return _repeated_states(language, prompts, tokens.masked_fill(~completion_mask, pad_token_id), completion_mask)


def _shared_states(language: LanguageModel, prompts: LanguageInputs, tokens: Tensor, completion_mask: Tensor) -> Tensor:
    """A prompt's tokens are computed once whatever the group's size."""
    assert prompts.mask is not None, "prompts are padded"
    device = tokens.device
    lengths, own_lengths = prompts.mask.sum(1).tolist(), completion_mask.sum(1)
    sizes = own_lengths.view(len(lengths), -1).tolist()
    # Everything is first put as all prompts, then all completions; `order` brings each prompt before its own.
    steps = torch.arange(tokens.shape[1], device=device)
    start = prompts.following().repeat_interleave(len(tokens) // len(lengths))
    after = (start[:, None] + steps)[completion_mask]
    order = _interleaved(lengths, [sum(group) for group in sizes]).to(device)
    inputs = prompts.flat().followed_by(language.embed(tokens[completion_mask])[None], after[None]).ordered(order)
    # A completion's first token is predicted by the prompt's last, each other one by the token before it.
    before = [
        place
        for row in make_rows(lengths, sizes)
        for own in row.completions
        for place in (row.prompt.stop - 1, *range(own.start, own.stop - 1))
    ]
    out = _packed(language, lengths, sizes, inputs)
    return out.index_select(0, torch.tensor(before, dtype=torch.long, device=device))


def _packed(
    language: LanguageModel, prompts: Sequence[int], sizes: Sequence[Sequence[int]], inputs: LanguageInputs
) -> Tensor:
    """States ``[L, hidden]`` of rows that lie behind each other, in passes of at most ``PACK_TOKENS`` tokens."""
    # Processes that share a sharded model must pass through it equally often, whatever their lengths.
    packs = [make_rows(prompts, sizes)] if language.sharded else pack_rows(prompts, sizes, PACK_TOKENS)
    parts = inputs.split([rows[-1].ends[-1] for rows in packs])
    states = [language.run(own, rows=rows).last_hidden_state[0] for rows, own in zip(packs, parts, strict=True)]
    return torch.cat(states)


def labelled_states(language: LanguageModel, inputs: LanguageInputs, labels: Tensor) -> tuple[Tensor, Tensor]:
    """States that predict labelled tokens, and those tokens; padding is not computed where prefixes are shared.

    Args:
        language: the model.
        inputs: of padded examples.
        labels: ``[B, L]``, -100 where nothing is learnt.

    Returns:
        ``[M, hidden]`` and ``[M]``, in the order of rows and tokens.
    """
    assert inputs.mask is not None, "examples are padded"
    learnt = labels[:, 1:] != -100
    targets: Tensor = labels[:, 1:][learnt]
    if not language.shares_prefix:
        states: Tensor = language.run(inputs).last_hidden_state
        return states[:, :-1][learnt], targets
    lengths = inputs.mask.sum(1).tolist()
    nothing: list[list[int]] = [[] for _ in lengths]  # no completions: each row is one causal sequence
    out = _packed(language, lengths, nothing, inputs.flat())
    place = (inputs.mask.flatten().cumsum(0) - 1).view_as(inputs.mask)[:, :-1][learnt]
    return out.index_select(0, place), targets


def _interleaved(first: list[int], second: list[int]) -> Tensor:
    """Order that takes spans of these lengths in turns from two lists that lie behind each other.

    >>> _interleaved([2, 1], [1, 2]).tolist()
    [0, 1, 3, 2, 4, 5]
    """
    lengths = torch.tensor([first, second])
    starts = lengths.flatten().cumsum(0).view_as(lengths) - lengths
    spans = zip(starts.T.flatten().tolist(), lengths.T.flatten().tolist(), strict=True)
    return torch.cat([torch.arange(start, start + length) for start, length in spans])


def _repeated_states(
    language: LanguageModel, prompts: LanguageInputs, tokens: Tensor, completion_mask: Tensor
) -> Tensor:
    """The same with the prompt repeated for each completion and padding on both sides: for every model."""
    group, prompt_len = len(tokens) // len(prompts.embeds), prompts.embeds.shape[1]
    rows = prompts.repeated(group)
    after = rows.following()[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
    inputs = rows.followed_by(language.embed(tokens), after, completion_mask)
    states: Tensor = language.run(inputs).last_hidden_state[:, prompt_len - 1 : -1][completion_mask]
    return states
