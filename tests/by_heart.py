"""Small models that have learnt a few answers by heart, so that what they say is known."""

from __future__ import annotations

import torch

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch


def learn_by_heart(
    backbone: Backbone, batch: Batch, rate: float = 3e-3, max_steps: int = 400, until: float = 5e-3
) -> None:
    """Trains on one batch until its loss is small enough.

    Args:
        backbone: changed in place.
        batch: what is learnt.
        rate: learning rate of AdamW.
        max_steps: after which it has to be learnt.
        until: loss that is small enough; 0 for ``max_steps`` steps, whatever is learnt by then.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many times faster for so small a model, above all on a busy machine
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=rate)
    loss = float("inf")
    for _ in range(max_steps):
        value, _ = backbone.label_loss(batch)
        loss = float(value.detach())
        if loss < until:
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    torch.set_num_threads(num_threads)
    assert not until or loss < until, f"the toy learns too slowly: {loss}"
