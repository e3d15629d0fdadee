"""A state of sampling whose tensors keep their shapes and addresses, so that all tokens are the same work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvg.backbones.group_state import GroupState, as_mask


class FixedState(GroupState):
    """As ``GroupState``, with room for whole completions from the start, and places counted on the device.

    Each pass takes one token of each row, all completions are of one length, and no row leaves. A query sees all the
    room there is under a mask, so this costs more arithmetic than ``GroupState``, and no word from the host.

    Args:
        mask: see ``GroupState``.
        position: see ``GroupState``.
        repeats: completions of each prompt.
        room: tokens of a completion at most.
    """

    def __init__(self, mask: Tensor, position: Tensor, repeats: int, room: int) -> None:
        super().__init__(mask, position, repeats)
        self.room = room
        self.place = torch.zeros(1, dtype=torch.long, device=mask.device)  # of the pass's token in its completion
        self._places = torch.arange(room, device=mask.device)

    def begin(self, widths: Sequence[int] | None = None) -> Tensor:
        """Prepares a pass with one token of each row; returns their positions, ``[N]``."""
        if widths is not None:
            raise ValueError("a state of fixed shapes takes one token of each row")
        self._visible = None
        return self.position

    def accept(self, counts: Tensor | None = None) -> None:
        """Ends a pass."""
        self.place += 1
        self.position += 1

    def select(self, rows: Tensor) -> None:
        """Never: all rows stay."""
        raise ValueError("a state of fixed shapes keeps its rows")

    def _store(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.own[layer]
        return keys.index_copy_(2, self.place, key[:, :, None]), values.index_copy_(2, self.place, value[:, :, None])

    def _seen(self, queries: Tensor, now: int) -> Tensor | None:
        if self._visible is None:  # once a pass
            self._visible = as_mask((self._places <= self.place)[None, None, None], queries.dtype)
        return self._visible
