"""Base of the policy losses of stage 2: the ratio, the KL penalty, the entropy bonus and the masking.

The losses themselves are in ``kvg.losses.family``; a config names one by its class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kvg.errors import ConfigError
from kvg.masking import masked_mean, masked_sum
from kvg.ranges import check_choice

# exp(20) is 5e8: far above any valid ratio and far below overflow. One extreme token must not end a run.
LOG_RATIO_LIMIT = 20.0


def k1_divergence(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) for each sampled token: ``policy - ref``, in nats.

    Unbiased, with high variance and either sign. As a *loss* its gradient does not depend on the reference and has mean
    0: it adds noise and no constraint. It is provided for comparison.
    """
    return (logprobs - ref_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def k2_divergence(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """``(policy - ref)^2 / 2``: the value is biased; the gradient equals that of the true KL in expectation.

    >>> k2_divergence(torch.tensor([0.5, 0.1]).log(), torch.tensor([0.5, 0.2]).log())  # 0, and (ln 2)^2 / 2
    tensor([0.0000, 0.2402])
    """
    return k1_divergence(logprobs, ref_logprobs).square() / 2


def k3_divergence(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """``exp(d) - d - 1`` with d = ref - policy: non-negative, unbiased, with lower variance than k1.

    Args:
        logprobs: ``[N, T]`` of the policy, in nats.
        ref_logprobs: ``[N, T]`` of the reference, in nats.

    Returns:
        ``[N, T]`` in nats.

    >>> k3_divergence(torch.tensor([0.5, 0.1]).log(), torch.tensor([0.5, 0.2]).log())  # 0, and 2 - ln 2 - 1
    tensor([0.0000, 0.3069])
    """
    log_ratio = (ref_logprobs - logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(log_ratio) - log_ratio


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": k1_divergence,
    "k2": k2_divergence,
    "k3": k3_divergence,
}


@dataclass(frozen=True)
class Counts:
    """Normalizers of the loss of one update, which may be computed in several microbatches.

    Attributes:
        rows: number of completions in this process.
        tokens: number of their tokens that count.
        mean_tokens: ``tokens`` averaged over all processes.
    """

    rows: int
    tokens: float
    mean_tokens: float

    @classmethod
    def of(cls, mask: Tensor) -> Counts:
        """Counts for one process and an update in one part."""
        return cls(len(mask), float(mask.sum()), float(mask.sum()))


class PolicyLoss(ABC):
    """A loss of rollouts: minus the surrogate, plus ``beta`` times the KL, minus ``entropy`` times the entropy.

    Args:
        clip_low: lower clip range: the ratio is clipped at 1 - ``clip_low``.
        clip_high: upper clip range: the ratio is clipped at 1 + ``clip_high``; None means ``clip_low``.
        beta: weight of the KL to the frozen stage-1 model, per nat; with 0 no reference is kept.
        kl: its estimator, ``k1``, ``k2`` or ``k3``.
        entropy: weight of the mean entropy bonus, per nat.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        clip_low: float = 0.2,
        clip_high: float | None = None,
        beta: float = 0.04,
        kl: Literal["k1", "k2", "k3"] = "k3",
        entropy: float = 0.0,
    ) -> None:
        if not 0 < clip_low <= 1 or (clip_high is not None and clip_high <= 0):
            given = f"{clip_low} and {clip_high}"
            raise ConfigError("loss.clip_low, clip_high", f"{given}: the first is in (0, 1], the second above 0")
        check_choice("loss.kl", kl, DIVERGENCES)
        if beta < 0 or entropy < 0:
            raise ConfigError("loss.beta, entropy", f"{beta} and {entropy} must not be negative")
        self.clip_low, self.clip_high = clip_low, clip_low if clip_high is None else clip_high
        self.beta, self.kl, self.entropy = beta, kl, entropy

    def __call__(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        ref_logprobs: Tensor | None,
        advantages: Tensor,
        mask: Tensor,
        entropies: Tensor | None = None,
        counts: Counts | None = None,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch of rollouts, or of one microbatch.

        Args:
            logprobs: ``[N, T]`` of the policy with gradient, in nats.
            old_logprobs: ``[N, T]`` of the policy that sampled; ``logprobs.detach()`` with one update per batch.
            ref_logprobs: ``[N, T]`` of the frozen reference; None only with beta = 0.
            advantages: ``[N]``.
            mask: ``[N, T]`` bool, True = counts. Values under False are ignored, including NaN and infinity.
            entropies: ``[N, T]`` in nats, with gradient; needed only with ``entropy`` above 0.
            counts: of the whole update; None if these rows are the whole update.
            weights: ``[N, T]`` that multiply the surrogate alone, see ``kvg.rl.mismatch``; None for 1 everywhere.

        Returns:
            The loss (scalar), and detached scalars of these rows: ``policy_loss``, ``kl`` (nats per token), ``ratio``
            (mean) and ``clip_fraction`` (share of tokens whose gradient the clip stops).

        Raises:
            ValueError: shapes differ, or a required tensor is missing.
            TypeError: the mask is not bool.
        """
        given = {
            "old_logprobs": old_logprobs,
            "ref_logprobs": ref_logprobs,
            "mask": mask,
            "entropies": entropies,
            "weights": weights,
        }
        self._check(logprobs, advantages, given)
        counts = counts or Counts.of(mask)

        # Padding is zeroed before exp: masking afterwards would still give NaN gradients (0 * inf).
        def keep(values: Tensor) -> Tensor:
            return torch.where(mask, values, torch.zeros_like(values))

        policy = keep(logprobs)
        log_ratio = (policy - keep(old_logprobs)).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        surrogate, ratio, stopped = self.surrogate(policy, log_ratio, advantages.to(policy)[:, None], mask)
        if weights is not None:
            surrogate = surrogate * keep(weights)
        policy_loss = self.average(-surrogate, mask, counts)
        loss, divergence = policy_loss, torch.zeros_like(policy)
        if ref_logprobs is not None:
            divergence = DIVERGENCES[self.kl](policy, keep(ref_logprobs))
            if self.beta:
                loss = loss + self.beta * self.average(divergence, mask, counts)
        if self.entropy and entropies is not None:
            loss = loss - self.entropy * self.average(entropies, mask, counts)
        stats = {
            "policy_loss": policy_loss,
            "kl": masked_mean(divergence, mask),
            "ratio": masked_mean(ratio, mask),
            "clip_fraction": masked_sum(stopped.to(policy), mask) / mask.sum().clamp(min=1),
        }
        return loss, {name: value.detach() for name, value in stats.items()}

    @abstractmethod
    def surrogate(
        self, logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The objective that is maximized.

        Args:
            logprobs: ``[N, T]``, 0 where the mask is False.
            log_ratio: ``[N, T]`` log of the ratio of policy and sampler, 0 where the mask is False.
            advantages: ``[N, 1]``.
            mask: ``[N, T]``.

        Returns:
            Its value, the ratio it used, and where clipping stops its gradient (bool), all ``[N, T]``.
        """

    @abstractmethod
    def average(self, values: Tensor, mask: Tensor, counts: Counts) -> Tensor:
        """This microbatch's contribution to the update's average of ``values`` ``[N, T]``; contributions add up."""

    def clipped(self, ratio: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """The clipped surrogate (PPO, arXiv 1707.06347, equation 7), and where its gradient stops."""
        bounded = ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantages
        return torch.minimum(ratio * advantages, bounded), bounded < ratio * advantages

    def _check(self, logprobs: Tensor, advantages: Tensor, given: Mapping[str, Tensor | None]) -> None:
        if given["ref_logprobs"] is None and self.beta:
            raise ValueError("beta > 0 needs ref_logprobs; give them or set beta to 0")
        if given["entropies"] is None and self.entropy:
            raise ValueError("entropy > 0 needs entropies; give them or set entropy to 0")
        for name, tensor in given.items():
            if tensor is not None and tensor.shape != logprobs.shape:
                raise ValueError(f"{name} is {tuple(tensor.shape)} where logprobs is {tuple(logprobs.shape)}")
        if advantages.shape != logprobs.shape[:1]:
            shape = tuple(advantages.shape)
            raise ValueError(f"advantages is {shape}, expected one for each of {logprobs.shape[0]} rows")
        mask = given["mask"]
        if mask is None or mask.dtype != torch.bool:
            raise TypeError(f"mask is bool with True = counts, got {None if mask is None else mask.dtype}")
