"""Log-probabilities of given tokens, in chunks, so that ``[tokens, vocabulary]`` never exists as a whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    chunk: int = 4096,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scores tokens.

    Args:
        head: output projection, ``[M, H] -> [M, V]``.
        hidden: ``[M, H]``, the states that predict the targets.
        targets: ``[M]`` token ids.
        temperature: that they were sampled at; logits are divided by it.
        chunk: rows projected at a time; with gradient, each chunk is recomputed in the backward pass.
        entropy_gradient: whether a gradient flows through the entropies.

    Returns:
        Log-probabilities ``[M]`` and entropies ``[M]``, in nats, float32.
    """

    def score(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(states).float() / temperature
        total = logits.logsumexp(-1)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = total - ((logits - total[:, None]).exp() * logits).sum(-1)
        return logits.gather(-1, wanted[:, None])[:, 0] - total, entropy

    parts = []
    for start in range(0, len(targets), chunk):
        states, wanted = hidden[start : start + chunk], targets[start : start + chunk]
        if torch.is_grad_enabled() and len(targets) > chunk:
            parts.append(checkpoint(score, states, wanted, use_reentrant=False))
        else:
            parts.append(score(states, wanted))
    if not parts:  # the sum of nothing, so that a gradient of 0 can flow
        return hidden.float().sum(-1), hidden.float().sum(-1).detach()
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
