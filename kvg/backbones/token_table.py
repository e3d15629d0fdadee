"""Tokens of a pass, arranged by their rows or by their prompts, so that those of one owner attend together."""

from __future__ import annotations

import torch
from torch import Tensor


class TokenTable:
    """A table in which each owner has as many places as the one with most tokens.

    Args:
        owner: ``[M]`` the owner of each token; never falling.
        num: owners.
    """

    def __init__(self, owner: Tensor, num: int) -> None:
        counts = torch.bincount(owner, minlength=num)
        self.num, self.size = num, int(counts.max())
        self.complete = int(counts.min()) == self.size
        if not self.complete:
            tokens = torch.arange(len(owner), device=owner.device)
            self.slot = owner * self.size + tokens - (counts.cumsum(0) - counts)[owner]  # [M]
            self.source = torch.zeros(num * self.size, dtype=torch.long, device=owner.device)  # the token in each place
            self.source[self.slot] = tokens
        self._blocks: Tensor | None = None  # the same for all layers

    def arrange(self, queries: Tensor) -> Tensor:
        """The queries of each owner together; places without a token hold those of another.

        Args:
            queries: ``[M, groups, heads of a group, D]``.

        Returns:
            ``[num, groups, size * heads of a group, D]``.
        """
        groups, heads, width = queries.shape[1:]
        if self.complete:
            return queries.view(self.num, self.size, groups, heads, width).transpose(1, 2).flatten(2, 3)
        picked = queries.reshape(-1, heads * width).index_select(0, self._block_rows(groups))
        return picked.view(self.num, groups, self.size * heads, width)

    def _block_rows(self, groups: int) -> Tensor:
        """Of each place, owner by owner and group by group, the row in a table of ``[M * groups]``."""
        if self._blocks is None:
            source = self.source.view(self.num, 1, self.size) * groups
            self._blocks = (source + torch.arange(groups, device=source.device)[:, None]).flatten()
        return self._blocks

    def take(self, out: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        """What attention gave for each token.

        Args:
            out: as ``arrange`` returns it.
            norm: ``[num, groups, size * heads of a group]``.

        Returns:
            ``[M, heads of a group, groups, D]`` and ``[M, heads of a group, groups]``, as flash attention writes them.
        """
        groups, heads = out.shape[1], out.shape[2] // self.size
        out = out.transpose(1, 2).reshape(self.num * self.size, heads, groups, -1)
        norm = norm.transpose(1, 2).reshape(self.num * self.size, heads, groups)
        return (out, norm) if self.complete else (out.index_select(0, self.slot), norm.index_select(0, self.slot))
