"""Backbones whose weights are not where they began, and the logits of a batch."""

from __future__ import annotations

import torch


def stir(backbone, names="", scale=0.1):
    """Moves weights away from where they start; a fresh adapter does nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if names in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return backbone


@torch.no_grad()
def logits(backbone, batch):
    return backbone.logits(batch)[batch.attention_mask.bool()]
