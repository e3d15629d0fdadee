"""One token of each row from its logits: greedy, or by one uniform number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 256  # words whose probabilities are summed before one of them is looked for


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are sampled.

    Attributes:
        max_new_tokens: longest completion.
        temperature: 0 = greedy.
        top_p: smallest set of tokens whose probabilities reach this; 1 = all.
        top_k: only the k likeliest tokens; 0 = all.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    @property
    def truncates(self) -> bool:
        """Whether tokens are left out, so that log-probabilities are not those of the whole distribution."""
        return self.top_p < 1 or bool(self.top_k)


def sample_tokens(logits: Tensor, settings: SamplingSettings, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability under the distribution that it was sampled from.

    Where a row holds NaN or positive infinity the token is arbitrary, and its log-probability is not finite.

    Args:
        logits: ``[N, V]``.
        settings: how tokens are sampled.
        uniforms: ``[N]`` numbers in [0, 1), float64; each decides the token of its row. Not used where greedy.

    Returns:
        Tokens ``[N]`` and log-probabilities ``[N]``.

    >>> sample_tokens(torch.tensor([[0.0, 9.0, 1.0]]), SamplingSettings(temperature=0.0), None)[0]
    tensor([1])
    """
    logits = logits.float()
    if settings.temperature == 0:
        best = logits.argmax(-1)
        return best, logits.gather(-1, best[:, None])[:, 0] - logits.logsumexp(-1)
    if uniforms is None:
        raise ValueError("sampling at a temperature needs uniform numbers")
    if settings.temperature != 1:
        logits = logits / settings.temperature
    if settings.top_k and settings.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(settings.top_k).values[:, -1:], -torch.inf)
    if settings.top_p < 1:
        ordered, index = logits.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.masked_fill((before >= settings.top_p).scatter(-1, index, before >= settings.top_p), -torch.inf)
    probs = logits.softmax(-1)
    sampled = inverse_cdf(probs, uniforms[:, None]).clamp(max=logits.shape[-1] - 1)
    return sampled[:, 0], probs.gather(-1, sampled)[:, 0].log()


def inverse_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Where the running sum of each row of weights first exceeds a share of their whole.

    Blocks of words are summed first, and only the block that is hit is looked into: ``torch.multinomial``, or a running
    sum over a large vocabulary, costs more than many a layer. What weighs nothing is never hit.

    Args:
        weights: ``[N, V]``, not negative, some above 0.
        uniforms: ``[N, 1]`` shares in [0, 1), float64.

    Returns:
        ``[N, 1]`` indices.

    >>> inverse_cdf(torch.tensor([[0.0, 1.0, 3.0, 0.0]] * 2), torch.tensor([[0.24], [0.25]], dtype=torch.float64)).T
    tensor([[1, 2]])
    """
    blocks = F.pad(weights, (0, -weights.shape[-1] % BLOCK)).view(len(weights), -1, BLOCK)
    reached = blocks.sum(-1).double().cumsum(-1)
    target = uniforms * reached[:, -1:]
    block, target = _first_above(reached, target)
    before = reached.gather(-1, (block - 1).clamp(min=0)).where(block > 0, 0)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].double().cumsum(-1)
    return block * BLOCK + _first_above(inside, target - before)[0]


def _first_above(reached: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where running sums first exceed a target, which rounding must not lift to their end; and that target."""
    target = torch.minimum(target, torch.nextafter(reached[:, -1:], torch.zeros_like(target)))
    place = torch.searchsorted(reached, target, right=True)
    return place.clamp(max=reached.shape[-1] - 1), target  # NaN is above nothing
