"""What a language model takes in the place of token ids: embeddings, positions, a mask, visual tokens for layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LanguageInputs:
    """Inputs of B rows of L tokens.

    Attributes:
        embeds: ``[B, L, hidden]``, visual tokens in place of their placeholders.
        positions: ``[A, B, L]``, A = 1 (RoPE) or 3 (M-RoPE).
        mask: ``[B, L]`` bool, which tokens count; None where all of them do.
        visual: ``[B, L]``, the row of each place in ``deep``, -1 where no visual token stands; None without ``deep``.
        deep: see ``kvg.batches.VisualTokens``.
    """

    embeds: Tensor
    positions: Tensor
    mask: Tensor | None = None
    visual: Tensor | None = None
    deep: tuple[Tensor, ...] = ()

    def following(self) -> Tensor:
        """``[B]`` position of the token that follows each left-padded row, the same on all axes."""
        return self.positions[0, :, -1] + 1

    def flat(self) -> LanguageInputs:
        """The tokens that count, behind each other in one row."""
        if self.mask is None:
            raise ValueError("inputs without a mask are flat already")
        visual = None if self.visual is None else self.visual[self.mask][None]
        return LanguageInputs(
            self.embeds[self.mask][None], self.positions[:, self.mask][:, None], None, visual, self.deep
        )

    def repeated(self, num: int) -> LanguageInputs:
        """Each row ``num`` times, side by side."""
        mask, visual = (None if x is None else x.repeat_interleave(num, 0) for x in (self.mask, self.visual))
        return LanguageInputs(
            self.embeds.repeat_interleave(num, 0), self.positions.repeat_interleave(num, 1), mask, visual, self.deep
        )

    def followed_by(self, embeds: Tensor, positions: Tensor, mask: Tensor | None = None) -> LanguageInputs:
        """The same with tokens of text behind each row.

        Args:
            embeds: ``[B, T, hidden]``.
            positions: ``[B, T]``, the same on all axes.
            mask: ``[B, T]`` bool; None where the rows have none.
        """
        positions = positions.expand(len(self.positions), -1, -1)
        return LanguageInputs(
            torch.cat([self.embeds, embeds], 1),
            torch.cat([self.positions, positions], 2),
            None if self.mask is None or mask is None else torch.cat([self.mask, mask], 1),
            None if self.visual is None else torch.cat([self.visual, positions.new_full(positions.shape[1:], -1)], 1),
            self.deep,
        )

    def ordered(self, order: Tensor) -> LanguageInputs:
        """A single row with its tokens in another order, ``[L]``."""
        visual = None if self.visual is None else self.visual[:, order]
        return LanguageInputs(self.embeds.index_select(1, order), self.positions[:, :, order], None, visual, self.deep)

    def split(self, lengths: Sequence[int]) -> list[LanguageInputs]:
        """A single row cut into rows of these lengths."""
        num, sizes = len(lengths), list(lengths)
        visual = [None] * num if self.visual is None else torch.split(self.visual, sizes, 1)
        parts = zip(torch.split(self.embeds, sizes, 1), torch.split(self.positions, sizes, 2), visual, strict=True)
        return [LanguageInputs(embeds, positions, None, seen, self.deep) for embeds, positions, seen in parts]
