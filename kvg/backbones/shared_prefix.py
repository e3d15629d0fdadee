"""Attention over rows of [prompt | completion 1 | ... | completion G] in which each token is computed once.

All rows of a batch lie behind each other in one sequence without padding, which makes no difference to linear layers.
A prompt's tokens attend to the prompt up to themselves. A completion's tokens attend to their prompt and to their own
completion up to themselves, never to another completion. The attention is split as in Prefix Grouper (arXiv
2506.05433), so no N x N mask is built. On a CPU the two halves of a completion's attention, over the prompt and over
itself, are joined by their normalisers (log of the sum of exponentials), as blocks are in ring attention (arXiv
2310.01889).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kvg.devices import device_kind

log = logging.getLogger(__name__)
NAME = "shared_prefix"  # of the attention below, in transformers
_UNMASKED: ContextVar[bool] = ContextVar("unmasked", default=False)


@dataclass(frozen=True)
class Row:
    """A prompt and its completions, as places in the sequence.

    Attributes:
        start: first token of the prompt.
        ends: one past the last token of the prompt, and of each completion, in order; all lie behind each other.
    """

    start: int
    ends: tuple[int, ...]

    @property
    def prompt(self) -> slice:
        """The prompt's tokens."""
        return slice(self.start, self.ends[0])

    @property
    def answers(self) -> slice:
        """The tokens of all completions."""
        return slice(self.ends[0], self.ends[-1])

    @property
    def completions(self) -> list[slice]:
        """The tokens of each completion that has any."""
        return [slice(a, b) for a, b in zip(self.ends, self.ends[1:], strict=False) if b > a]


def make_rows(prompts: Sequence[int], completions: Sequence[Sequence[int]]) -> list[Row]:
    """Places of prompts and completions of these lengths.

    >>> make_rows([3, 2], [[1, 0], [2, 2]])
    [Row(start=0, ends=(3, 4, 4)), Row(start=4, ends=(6, 8, 10))]
    """
    rows, place = [], 0
    for prompt, lengths in zip(prompts, completions, strict=True):
        ends = [place + prompt]
        for length in lengths:
            ends.append(ends[-1] + length)
        rows.append(Row(place, tuple(ends)))
        place = ends[-1]
    return rows


def pack_rows(prompts: Sequence[int], completions: Sequence[Sequence[int]], max_tokens: int) -> list[list[Row]]:
    """Rows in sequences of at most ``max_tokens`` tokens; a longer row is alone in its own.

    >>> [[row.ends for row in pack] for pack in pack_rows([3, 2, 1], [[1], [2], [9]], 8)]
    [[(3, 4), (6, 8)], [(1, 10)]]
    """
    packs: list[tuple[list[int], list[Sequence[int]]]] = []
    total = 0
    for prompt, lengths in zip(prompts, completions, strict=True):
        size = prompt + sum(lengths)
        if not packs or total + size > max_tokens:
            packs.append(([], []))
            total = 0
        packs[-1][0].append(prompt)
        packs[-1][1].append(lengths)
        total += size
    return [make_rows(*pack) for pack in packs]


def install(language_model: Any) -> None:
    """Lets a text model take ``rows``, ``keep`` and ``state`` in its call; without them it does as before.

    A call with ``rows`` or ``state`` stands in a block of ``unmasked``: what sees what follows from them. ``keep`` and
    ``state`` are a ``kvg.backbones.group_state.GroupState``, which a pass over prompts fills, and a pass over single
    tokens reads and lengthens. The model must use the ``sdpa`` attention of transformers.
    """
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
    language_model.set_attn_implementation(NAME)


@contextmanager
def unmasked() -> Iterator[None]:
    """Within this block text models that went through ``install`` make no masks."""
    token = _UNMASKED.set(True)
    try:
        yield
    finally:
        _UNMASKED.reset(token)


def _mask(*args: Any, **kwargs: Any) -> Any:
    return None if _UNMASKED.get() else ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](*args, **kwargs)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    rows: Sequence[Row] | None = None,
    keep: Any = None,
    state: Any = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention of transformers with three more ways: over rows, into a state of sampling, and out of it."""
    # Under autocast values come in half precision, while rotation has brought queries and keys back to float32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if rows is not None:
        if options.get("dropout"):
            raise ValueError("attention over shared prefixes has no dropout; set attention_dropout to 0")
        return shared_prefix_attention(query, key, value, rows, options["scaling"]), None
    if state is not None:
        now = (x[:, :, 0] for x in (query, key, value))
        return state.attend(module.layer_idx, *now, options["scaling"])[:, None], None
    if keep is not None:
        keep.keep_prompts(key, value)
    out: tuple[Tensor, None] = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **options)
    return out


def shared_prefix_attention(query: Tensor, key: Tensor, value: Tensor, rows: Sequence[Row], scale: float) -> Tensor:
    """The attention of the module's head.

    Args:
        query: ``[1, heads, L, D]``.
        key: ``[1, groups of heads, L, D]``.
        value: as ``key``.
        rows: cover L.
        scale: of the scores.

    Returns:
        ``[1, L, heads, D]``.
    """
    if device_kind(query) == "cpu":
        _log_once("two passes of the CPU's flash attention, joined by their normalisers")
        joined: Tensor = _JoinedAttention.apply(query, key, value, rows, scale)  # type: ignore[no-untyped-call]
        return joined
    _log_once(f"scaled_dot_product_attention with a mask for each prompt ({query.device.type})")
    return masked_attention(query, key, value, rows, scale)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, rows: Sequence[Row], scale: float) -> Tensor:
    """The same through PyTorch's public function, for any device: the prompt's keys repeated over the completions.

    Arguments and result: see ``shared_prefix_attention``.
    """
    parts: list[Tensor] = []
    options: dict[str, Any] = {"scale": scale, "enable_gqa": query.shape[1] != key.shape[1]}
    for row in rows:
        seen, total = row.prompt, row.answers.stop - row.answers.start
        q, k, v = (x[:, :, seen] for x in (query, key, value))
        parts.append(scaled_dot_product_attention(q, k, v, is_causal=True, **options)[0].transpose(0, 1))
        if not total:
            continue
        lengths = torch.tensor([c.stop - c.start for c in row.completions], device=query.device)
        longest, num = int(lengths.max()), len(row.completions)
        filled = torch.arange(longest, device=query.device) < lengths[:, None]  # [G, T]
        place = torch.zeros_like(filled, dtype=torch.long).masked_scatter(filled, torch.arange(total, device=q.device))
        own = [x[0, :, row.answers][:, place].transpose(0, 1) for x in (query, key, value)]  # [G, heads, T, D]
        # Padding lies behind each completion, where the causal triangle hides it.
        mask = torch.ones(longest, longest, dtype=torch.bool, device=query.device).tril()
        mask = torch.cat([mask.new_ones(longest, q.shape[2]), mask], 1)
        keys, values = (torch.cat([x.expand(num, -1, -1, -1), y], 2) for x, y in ((k, own[1]), (v, own[2])))
        out = scaled_dot_product_attention(own[0], keys, values, attn_mask=mask, **options)
        parts.append(out.transpose(1, 2)[filled])
    return torch.cat(parts)[None]


class _JoinedAttention(torch.autograd.Function):
    """Two flash attentions, one over the prompt and one over the completion itself.

    With the output and the normaliser of the whole softmax, the backward pass of each half is exact on its own.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rows: Sequence[Row], scale: float) -> Tensor:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        q, k, v = _heads(query, key, value)
        out = q.new_empty(q.shape[2], q.shape[0], q.shape[1], q.shape[3])  # [L, groups, heads of a group, D]
        to = out.permute(1, 2, 0, 3)
        total = q.new_empty(q.shape[:3], dtype=torch.float32)
        for row in rows:
            for own in (row.prompt, *row.completions):
                at = (slice(None), slice(None), own)
                to[at], total[at] = flash(q[at], k[at], v[at], 0.0, True, scale=scale)
            if row.completions:
                at, seen = (slice(None), slice(None), row.answers), (slice(None), slice(None), row.prompt)
                from_prompt, norm = flash(q[at], k[seen], v[seen], 0.0, False, scale=scale)
                share = torch.sigmoid(norm - total[at])  # of the prompt in the whole softmax
                to[at] = to[at].lerp(from_prompt, share[..., None].to(from_prompt.dtype))
                total[at] = torch.logaddexp(total[at], norm)
        ctx.save_for_backward(query, key, value, out, total)
        ctx.rows, ctx.scale = rows, scale
        return out.flatten(1, 2)[None]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        query, key, value, out, total = ctx.saved_tensors
        q, k, v = _heads(query, key, value)
        to = out.permute(1, 2, 0, 3)
        grad_out = grads[0].view(out.shape).permute(1, 2, 0, 3)
        grad_q, grad_k, grad_v = torch.empty_like(q), k.new_empty(key.shape[1:]), v.new_empty(key.shape[1:])
        for row in ctx.rows:
            for own in (row.prompt, *row.completions):
                at = (slice(None), slice(None), own)
                grads_in = flash(grad_out[at], q[at], k[at], v[at], to[at], total[at], 0.0, True, scale=ctx.scale)
                grad_q[at], grad_k[:, own], grad_v[:, own] = grads_in[0], grads_in[1].sum(1), grads_in[2].sum(1)
            if row.completions:
                at, seen = (slice(None), slice(None), row.answers), (slice(None), slice(None), row.prompt)
                grads_in = flash(grad_out[at], q[at], k[seen], v[seen], to[at], total[at], 0.0, False, scale=ctx.scale)
                grad_q[at] += grads_in[0]
                grad_k[:, row.prompt] += grads_in[1].sum(1)
                grad_v[:, row.prompt] += grads_in[2].sum(1)
        return grad_q.view(query.shape), grad_k[None], grad_v[None], None, None


def _heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three as ``[groups, heads of a group, L, D]``; keys and values are expanded to each head without a copy."""
    groups = key.shape[1]
    q = query[0].view(groups, query.shape[1] // groups, *query.shape[2:])
    return q, key[0][:, None].expand(-1, q.shape[1], -1, -1), value[0][:, None].expand(-1, q.shape[1], -1, -1)


@cache
def _log_once(kernel: str) -> None:
    log.info("attention over shared prefixes: %s", kernel)
