"""The policy loss of stage 2: clipped surrogate plus a KL penalty towards the stage-1 model (GRPO)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kvg.masking import masked_mean, masked_sum

# exp(20) is 5e8: far beyond any honest ratio, and far below overflow. A single unlucky token must not end a run.
LOG_RATIO_LIMIT = 20.0


def k3_divergence(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) for each sampled token: ``exp(d) - d - 1`` with d = ref - policy.

    Never negative, unbiased for tokens sampled from the policy, and of lower variance than ``-d``.

    Args:
        logprobs: ``[N, T]`` of the policy, in nats.
        ref_logprobs: ``[N, T]`` of the reference, in nats.

    Returns:
        ``[N, T]`` in nats.

    >>> k3_divergence(torch.tensor([0.5, 0.1]).log(), torch.tensor([0.5, 0.2]).log())  # 0, and 2 - ln 2 - 1
    tensor([0.0000, 0.3069])
    """
    difference = (ref_logprobs - logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(difference) - difference


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    advantages: Tensor,
    completion_mask: Tensor,
    clip_eps: float = 0.2,
    clip_eps_high: float | None = None,
    beta: float = 0.04,
    normalise: Literal["sequence", "token"] = "sequence",
) -> tuple[Tensor, dict[str, Tensor]]:
    """GRPO loss of a batch of rollouts.

    For each token, with ratio r = exp(logprobs - old_logprobs) and advantage A::

        -min(r * A, clip(r, 1 - clip_eps, 1 + clip_eps_high) * A) + beta * k3

    Published: v2 has beta 0.04, one update per batch (so r = 1 and clipping is idle) and ``sequence``; v3 has beta
    0.02, clip 0.2 and ``token``.

    Args:
        logprobs: ``[N, T]`` of the policy with gradient, in nats.
        old_logprobs: ``[N, T]`` of the policy that sampled; ``logprobs.detach()`` when there is one update per batch.
        ref_logprobs: ``[N, T]`` of the frozen reference; None only with beta = 0.
        advantages: ``[N]``.
        completion_mask: ``[N, T]`` bool, True = counts. Values under False are never read, NaN and infinity included.
        clip_eps: how far the ratio may fall before its gradient stops.
        clip_eps_high: how far it may rise; None means ``clip_eps``.
        beta: weight of the KL penalty, per nat.
        normalise: ``sequence`` averages each completion, then the batch; short completions then weigh more per token.
            ``token`` averages all tokens of the batch alike.

    Returns:
        The loss (scalar), and detached scalars: ``policy_loss``, ``kl`` (nats per token), ``ratio`` (mean) and
        ``clip_fraction`` (share of tokens whose gradient the clip stops).

    Raises:
        ValueError: shapes disagree, beta > 0 without a reference, or ``normalise`` is unknown.
        TypeError: the mask is not bool.
    """
    _check_shapes(logprobs, old_logprobs, ref_logprobs, advantages, completion_mask)
    if ref_logprobs is None and beta:
        raise ValueError("beta > 0 needs ref_logprobs; give them or set beta to 0")
    if normalise not in ("sequence", "token"):
        raise ValueError(f"normalise is sequence or token, got '{normalise}'")

    # Padding is zeroed before exp: masking afterwards would still send NaN backwards (0 * inf).
    def keep(values: Tensor) -> Tensor:
        return torch.where(completion_mask, values, torch.zeros_like(values))

    policy = keep(logprobs)
    ratio = (policy - keep(old_logprobs)).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    clipped = ratio.clamp(1 - clip_eps, 1 + (clip_eps if clip_eps_high is None else clip_eps_high))
    gain = advantages.to(policy)[:, None]
    surrogate = -torch.minimum(ratio * gain, clipped * gain)
    divergence = torch.zeros_like(policy) if ref_logprobs is None else k3_divergence(policy, keep(ref_logprobs))

    def average(values: Tensor) -> Tensor:
        if normalise == "token":
            return masked_mean(values, completion_mask)
        return masked_mean(values, completion_mask, dim=1).mean()

    policy_loss = average(surrogate)
    loss = policy_loss + beta * average(divergence) if beta else policy_loss
    stopped = (clipped * gain < ratio * gain).to(policy)
    stats = {
        "policy_loss": policy_loss,
        "kl": masked_mean(divergence, completion_mask),
        "ratio": masked_mean(ratio, completion_mask),
        "clip_fraction": masked_sum(stopped, completion_mask) / completion_mask.sum().clamp(min=1),
    }
    return loss, {name: value.detach() for name, value in stats.items()}


def _check_shapes(
    logprobs: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor | None, advantages: Tensor, completion_mask: Tensor
) -> None:
    shapes = {"old_logprobs": old_logprobs.shape, "completion_mask": completion_mask.shape}
    if ref_logprobs is not None:
        shapes["ref_logprobs"] = ref_logprobs.shape
    for name, shape in shapes.items():
        if shape != logprobs.shape:
            raise ValueError(f"{name} is {tuple(shape)} where logprobs is {tuple(logprobs.shape)}")
    if advantages.shape != logprobs.shape[:1]:
        raise ValueError(f"advantages is {tuple(advantages.shape)}, expected one for each of {logprobs.shape[0]} rows")
    if completion_mask.dtype != torch.bool:
        raise TypeError(f"completion_mask is bool with True = counts, got {completion_mask.dtype}")
