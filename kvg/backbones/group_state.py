"""The state of sampling that keeps each prompt once for its group.

A token attends to its prompt and to its own completion apart, and joins both results by their normalisers (see
``kvg.backbones.shared_prefix``); so nothing is repeated over the group, nothing is copied from step to step, and only
prompts of different length need a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvg.backbones.token_table import TokenTable
from kvg.devices import device_kind

FIRST_ROOM = 64  # tokens of a completion that there is room for at first; doubled as it fills


@dataclass(frozen=True)
class Layout:
    """The tokens of a pass; M in all, those of a row side by side.

    Attributes:
        own: the tokens by their rows.
        prompts: the tokens by their prompts.
        row: ``[M]`` row of each token; None where each row has one, and all completions are of one length.
        at: ``[M]`` place of each token in its row's completion; None as ``row``.
    """

    own: TokenTable
    prompts: TokenTable
    row: Tensor | None = None
    at: Tensor | None = None


class GroupState:
    """Prompts, once each, and the completions that follow them.

    Attributes:
        mask: ``[B, P]`` bool, which of a prompt's tokens count.
        position: ``[N]`` M-RoPE position of each row's next token.
        owner: ``[N]`` the prompt of each row; never falling.
        lengths: ``[N]`` tokens of each row's completion so far; None while all rows have ``longest``.
        longest: the largest of the lengths, or more.
        room: tokens of a completion that there is room for at first.
    """

    def __init__(self, mask: Tensor, position: Tensor, repeats: int) -> None:
        self.mask = mask
        self.position = position.repeat_interleave(repeats, 0)
        self.owner = torch.arange(len(mask), device=mask.device).repeat_interleave(repeats)
        self.prompts: list[tuple[Tensor, Tensor]] = []  # of each layer: keys and values [B, groups of heads, P, D]
        self.own: list[tuple[Tensor, Tensor]] = []  # [N, groups of heads, room, D]
        self.room = FIRST_ROOM
        self.longest = 0
        self.lengths: Tensor | None = None
        # Tokens from embeddings and positions to logits, where the model's layers are written out.
        self.token_pass: Callable[[Tensor, Tensor, GroupState], Tensor] | None = None
        self._visible: Tensor | None = None
        self._prompt_seen: Tensor | None = None  # which tokens of a prompt count, as attention takes it
        self._even: Layout  # of a pass with one token of each row, while all completions are of one length
        self._layout: Layout
        self._place()

    def keep_prompts(self, key: Tensor, value: Tensor) -> None:
        """Takes the next layer's keys and values of all prompts."""
        self.prompts.append((key, value))
        shape = (len(self.owner), key.shape[1], self.room, key.shape[3])
        # Zeros: what has not been written yet is masked, which NaN would survive.
        self.own.append((key.new_zeros(shape), value.new_zeros(shape)))

    # -- a pass ----------------------------------------------------------------------------------------------------
    def begin(self, widths: Sequence[int] | None = None) -> Tensor:
        """Prepares a pass; returns the positions of its tokens, ``[M]``.

        Args:
            widths: how many tokens each row has in it; None for one each.
        """
        self._visible = None
        if widths is None and self.lengths is None:
            self._layout = self._even
            return self.position
        if self.lengths is None:
            self.lengths = torch.full_like(self.position, self.longest)
        device = self.position.device
        pairs = [(row, offset) for row, num in enumerate(widths or [1] * len(self.position)) for offset in range(num)]
        row, offset = torch.tensor(pairs, device=device).T.contiguous()
        tables = TokenTable(row, len(self.position)), TokenTable(self.owner[row], len(self.mask))
        self._layout = Layout(*tables, row, self.lengths[row] + offset)
        positions: Tensor = self.position[row] + offset
        return positions

    def accept(self, counts: Tensor | None = None) -> None:
        """Ends a pass: the first ``counts`` ``[N]`` of each row's tokens count; None for the one that each had."""
        if self.lengths is None:
            self.longest += 1
            self.position = self.position + 1
            return
        gained = torch.ones_like(self.lengths) if counts is None else counts
        self.lengths, self.position = self.lengths + gained, self.position + gained
        shortest, self.longest = torch.stack(self.lengths.aminmax()).tolist()
        if shortest == self.longest:  # the layout of even rows costs less
            self.lengths = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Adds the tokens of a pass; each attends to its prompt and to its completion up to itself.

        Args:
            layer: which.
            query: ``[M, heads, D]``.
            key: ``[M, groups of heads, D]``.
            value: as ``key``.
            scale: of the scores.

        Returns:
            ``[M, heads, D]``.
        """
        layout = self._layout
        keys, values = self._store(layer, key, value)
        queries = query.view(len(query), key.shape[1], -1, query.shape[2])  # [M, groups, heads of a group, D]
        table = layout.own.arrange(queries)
        seen = self._seen(table, keys.shape[2])
        out, own_norm = layout.own.take(*_attention(table, keys, values, seen, scale))
        table = layout.prompts.arrange(queries)
        if self._prompt_seen is None and not self._prompts_complete:
            self._prompt_seen = as_mask(self.mask[:, None, None], query.dtype)
        from_prompt, norm = layout.prompts.take(*_attention(table, *self.prompts[layer], self._prompt_seen, scale))
        out = out.lerp(from_prompt, torch.sigmoid(norm - own_norm)[..., None].to(out.dtype))
        heads: Tensor = out.transpose(1, 2).flatten(1, 2)
        return heads

    def _store(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the keys and values of a pass; returns those of all completions, ``[N, groups, tokens, D]``."""
        layout = self._layout
        now = self.longest + layout.own.size
        while self.own[layer][0].shape[2] < now:
            self.own[layer] = (_widened(self.own[layer][0]), _widened(self.own[layer][1]))
        keys, values = self.own[layer]
        if layout.row is None:
            keys[:, :, self.longest], values[:, :, self.longest] = key, value
        else:
            keys[layout.row, :, layout.at], values[layout.row, :, layout.at] = key, value
        return keys[:, :, :now], values[:, :, :now]

    def _seen(self, queries: Tensor, now: int) -> Tensor | None:
        """Which tokens of a completion each query sees, as ``_attention`` takes it; the same for all layers."""
        if self.lengths is None:
            return None
        if self._visible is None:
            last = self.lengths[:, None] + torch.arange(self._layout.own.size, device=queries.device)  # [N, size]
            seen = torch.arange(now, device=queries.device) <= last[..., None]
            heads = queries.shape[2] // self._layout.own.size
            self._visible = as_mask(seen.repeat_interleave(heads, 1)[:, None], queries.dtype)
        return self._visible

    # -- rows ------------------------------------------------------------------------------------------------------
    def select(self, rows: Tensor) -> None:
        """Keeps only these rows, in this order, and the prompts that still have one."""
        alive, owner = torch.unique(self.owner[rows], return_inverse=True)
        if len(alive) < len(self.mask):
            self.mask = self.mask[alive]
            self.prompts = [(key[alive], value[alive]) for key, value in self.prompts]
        self.own = [(key[rows], value[rows]) for key, value in self.own]
        self.position, self.owner = self.position[rows], owner
        if self.lengths is not None:
            self.lengths = self.lengths[rows]
            self.longest = int(self.lengths.max())
        self._place()

    def _place(self) -> None:
        rows = torch.arange(len(self.owner), device=self.owner.device)
        self._even = self._layout = Layout(TokenTable(rows, len(rows)), TokenTable(self.owner, len(self.mask)))
        self._prompts_complete = bool(self.mask.all())
        self._prompt_seen = None


def _widened(values: Tensor) -> Tensor:
    return torch.cat([values, torch.zeros_like(values)], 2)


def as_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as ``_attention`` takes it, from one of bool, True = seen: numbers on a CPU."""
    if device_kind(seen) != "cpu":
        return seen
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention ``[B, H, L, D]`` and the log of the sum of its exponentials ``[B, H, L]``, float32."""
    if device_kind(query) == "cpu":
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out: tuple[Tensor, Tensor] = flash(query, key, value, 0.0, False, attn_mask=mask, scale=scale)
        return out
    return plain_attention(query, key, value, mask, scale)


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The same written out, for any device; a mask is bool ``[B, 1, 1, S]``, True = seen."""
    scores = (query * scale) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    norm = scores.float().logsumexp(-1)
    return (scores.float() - norm[..., None]).exp().to(value.dtype) @ value, norm
