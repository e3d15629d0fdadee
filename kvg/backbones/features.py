"""Visual tokens that are kept from epoch to epoch: where vision tower and projector are frozen they never change."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kvg.types import Sample


class FeatureCache:
    """Visual tokens by picture, in main memory, the least recently used leaving first.

    Pictures are told apart by their bytes, so that sets may share keys and samples may share pictures.

    Args:
        max_bytes: that the tokens may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = self.num_found = self.num_made = 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def __call__(
        self,
        samples: Sequence[Sample],
        patches: Tensor,
        grid: Tensor,
        encode: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Visual tokens of all pictures, ``[tokens, hidden]``; only those not known yet are encoded.

        Args:
            samples: one for each picture.
            patches: ``[P, D]`` of all pictures.
            grid: ``[B, 3]``.
            encode: makes visual tokens of patches and grid.
        """
        names = [
            hashlib.blake2b(sample.image, digest_size=16).digest() + repr(size).encode()
            for sample, size in zip(samples, grid.tolist(), strict=True)
        ]
        found = {name: self._kept[name] for name in names if name in self._kept}
        missing = [number for number, name in enumerate(names) if name not in found]
        self.num_found, self.num_made = self.num_found + len(names) - len(missing), self.num_made + len(missing)
        if missing:
            areas = grid.prod(1).tolist()
            pictures = torch.split(patches, areas)
            made = encode(torch.cat([pictures[n] for n in missing]), grid[missing])
            share = sum(areas[n] for n in missing) // len(made)  # patches of a visual token
            for number, tokens in zip(missing, torch.split(made, [areas[n] // share for n in missing]), strict=True):
                found[names[number]] = tokens
                self._keep(names[number], tokens)
        for name in names:
            if name in self._kept:
                self._kept.move_to_end(name)
        return torch.cat([found[name].to(patches.device) for name in names])

    def _keep(self, name: bytes, tokens: Tensor) -> None:
        size = tokens.numel() * tokens.element_size()
        if size > self.max_bytes or name in self._kept:
            return
        self._kept[name] = tokens.detach().to("cpu", copy=True)
        self.num_bytes += size
        while self.num_bytes > self.max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.num_bytes -= oldest.numel() * oldest.element_size()
