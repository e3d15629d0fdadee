"""Log-probabilities of the frozen reference of stage 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.rl.completions import Rollouts


@torch.no_grad()
def reference_logprobs(
    policy: Backbone, copies: Sequence[Backbone], batch: Batch, out: Rollouts, temperature: float
) -> Tensor:
    """Scores completions by the model that training began with.

    Args:
        policy: with adapters, where there is no copy: without them it is the reference.
        copies: the frozen copy, or nothing.
        batch: B prompts.
        out: their completions.
        temperature: that they were sampled at.

    Returns:
        ``[N, T]``, in nats.
    """
    tokens, mask = out.tokens, out.completion_mask
    if not copies:
        with policy.base_weights():
            return policy.completion_logprobs(batch, tokens, mask, temperature)[0]
    (reference,) = copies
    if not policy.vision_frozen:  # the reference's own tower, which is frozen
        batch = reference.with_visual_tokens(dataclasses.replace(batch, visual=None))
    return reference.completion_logprobs(batch, tokens, mask, temperature)[0]
