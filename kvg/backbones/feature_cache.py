"""Visual tokens that are kept from epoch to epoch: where vision tower and projector are frozen they never change."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import torch

from kvg.batches import Pictures, VisualTokens


class FeatureCache:
    """Visual tokens by picture, in main memory, the least recently used leaving first.

    Pictures are identified by the bytes of their files, so that sets may share keys and samples may share pictures.

    Args:
        max_bytes: that the tokens may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = self.num_hits = self.num_misses = 0
        self._kept: OrderedDict[bytes, VisualTokens] = OrderedDict()

    def __call__(
        self, pictures: Pictures, device: torch.device, encode: Callable[[Pictures], VisualTokens]
    ) -> VisualTokens:
        """Visual tokens of all pictures; only those not known yet are encoded.

        Args:
            pictures: of a batch, each with its file.
            device: where the tokens are wanted.
            encode: makes visual tokens.
        """
        names = [
            hashlib.blake2b(source, digest_size=16).digest() + repr(size).encode()
            for source, size in zip(pictures.sources, zip(*pictures.sizes.values(), strict=True), strict=True)
        ]
        tokens = {name: self._kept[name] for name in names if name in self._kept}
        missing = [number for number, name in enumerate(names) if name not in tokens]
        self.num_hits, self.num_misses = self.num_hits + len(names) - len(missing), self.num_misses + len(missing)
        if missing:
            made = encode(pictures.select(missing))
            for place, number in enumerate(missing):
                tokens[names[number]] = made.select([place])
                self._keep(names[number], tokens[names[number]])
        for name in names:
            if name in self._kept:
                self._kept.move_to_end(name)
        return VisualTokens.join([tokens[name].to(device) for name in names])

    def _keep(self, name: bytes, tokens: VisualTokens) -> None:
        size = _num_bytes(tokens)
        if size > self.max_bytes or name in self._kept:
            return
        layers = [layer.detach().to("cpu", copy=True) for layer in (tokens.tokens, *tokens.deep)]
        self._kept[name] = VisualTokens(layers[0], tokens.counts, tuple(layers[1:]))
        self.num_bytes += size
        while self.num_bytes > self.max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.num_bytes -= _num_bytes(oldest)


def _num_bytes(tokens: VisualTokens) -> int:
    return sum(layer.numel() * layer.element_size() for layer in (tokens.tokens, *tokens.deep))
