"""The state of sampling that keeps each prompt once for its group.

A token attends to its prompt and to its own completion apart, and joins both results by their normalisers (see
``kvg.backbones.shared_prefix``); so nothing is repeated over the group, nothing is copied from step to step, and only
prompts of different length need a mask.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FIRST_ROOM = 64  # tokens of a completion that there is room for at first; doubled as it fills


class GroupState:
    """Prompts, once each, and the completions that follow them.

    Attributes:
        mask: ``[B, P]`` bool, which of a prompt's tokens count.
        position: ``[N]`` M-RoPE position of each row's next token.
        owner: ``[N]`` the prompt of each row; never falling.
    """

    def __init__(self, mask: Tensor, position: Tensor, repeats: int) -> None:
        self.mask = mask
        self.position = position.repeat_interleave(repeats, 0)
        self.owner = torch.arange(len(mask), device=mask.device).repeat_interleave(repeats)
        self.prompts: list[tuple[Tensor, Tensor]] = []  # of each layer: keys and values [B, groups of heads, P, D]
        self.own: list[tuple[Tensor, Tensor]] = []  # [N, groups of heads, room, D]
        self.length = 0  # of the completions so far
        # One token of each row from embeddings and positions to logits, where the model's layers are written out.
        self.token_pass: Callable[[Tensor, Tensor, GroupState], Tensor] | None = None
        self._place()

    def keep_prompts(self, key: Tensor, value: Tensor) -> None:
        """Takes the next layer's keys and values of all prompts."""
        self.prompts.append((key, value))
        shape = (len(self.owner), key.shape[1], FIRST_ROOM, key.shape[3])
        self.own.append((key.new_empty(shape), value.new_empty(shape)))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Adds one token to each row; it attends to its prompt and to its completion.

        Args:
            layer: which.
            query: ``[N, heads, D]``.
            key: ``[N, groups of heads, D]``.
            value: as ``key``.
            scale: of the scores.

        Returns:
            ``[N, heads, D]``.
        """
        room = self.own[layer][0].shape[2]
        if self.length == room:
            self.own[layer] = (_widened(self.own[layer][0]), _widened(self.own[layer][1]))
        keys, values = self.own[layer]
        keys[:, :, self.length], values[:, :, self.length] = key, value
        now = self.length + 1
        queries = query.view(len(query), key.shape[1], -1, query.shape[2])  # [N, groups, heads of a group, D]
        own, own_norm = _attention(queries, keys[:, :, :now], values[:, :, :now], None, scale)
        prompt, norm = self._from_prompts(layer, queries, scale)
        out = own.lerp(prompt, torch.sigmoid(norm - own_norm)[..., None].to(own.dtype))
        return out.flatten(1, 2)

    def _from_prompts(self, layer: int, queries: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        keys, values = self.prompts[layer]
        num, (groups, heads, width) = len(keys), queries.shape[1:]
        table = queries if self.table is None else queries[self.table]
        # Queries of one prompt lie together: [B, groups, rows * heads of a group, D].
        table = table.view(num, -1, groups, heads, width).transpose(1, 2).flatten(2, 3)
        out, norm = _attention(table, keys, values, self.prompt_mask, scale)
        out = out.view(num, groups, -1, heads, width).transpose(1, 2).flatten(0, 1)
        norm = norm.view(num, groups, -1, heads).transpose(1, 2).flatten(0, 1)
        return (out, norm) if self.table is None else (out[self.place], norm[self.place])

    def select(self, rows: Tensor) -> None:
        """Keeps only these rows, in this order, and the prompts that still have one."""
        alive, owner = torch.unique(self.owner[rows], return_inverse=True)
        if len(alive) < len(self.mask):
            self.mask = self.mask[alive]
            self.prompts = [(key[alive], value[alive]) for key, value in self.prompts]
        self.own = [(key[rows], value[rows]) for key, value in self.own]
        self.position, self.owner = self.position[rows], owner
        self._place()

    def _place(self) -> None:
        """Gives each row a place in a table of prompts; each prompt has as many places as the largest group."""
        counts = torch.bincount(self.owner, minlength=len(self.mask))
        size = int(counts.max())
        first = counts.cumsum(0) - counts
        self.table: Tensor | None = None  # [B * size] the row at each place; None where all are in order
        if int(counts.min()) < size:
            self.place = self.owner * size + torch.arange(len(self.owner), device=self.mask.device) - first[self.owner]
            self.table = torch.zeros(len(counts) * size, dtype=torch.long, device=self.mask.device)
            self.table[self.place] = torch.arange(len(self.owner), device=self.mask.device)
        self.prompt_mask = None if bool(self.mask.all()) else self.mask[:, None, None]


def _widened(values: Tensor) -> Tensor:
    return torch.cat([values, torch.empty_like(values)], 2)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention ``[B, H, L, D]`` and the log of the sum of its exponentials ``[B, H, L]``, float32."""
    if query.device.type == "cpu":
        if mask is not None:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
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
