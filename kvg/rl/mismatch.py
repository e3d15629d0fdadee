"""The gap between the engine that sampled and the policy that learns: measured, and corrected by importance weights.

An external engine (another implementation, other kernels, another precision) samples from a distribution that is not
quite the policy's, even with the same weights. A loss that takes its completions for the policy's is biased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kvg.losses.policy import LOG_RATIO_LIMIT, k1_divergence, k3_divergence
from kvg.masking import masked_mean, masked_sum
from kvg.ranges import check_choice, check_number

MODES = ("none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask")


@dataclass(frozen=True)
class MismatchCorrection:
    """Weights of the policy loss, from the ratio of the policy's and the engine's probability of what was sampled.

    ``token`` takes the ratio of each token, ``sequence`` the product over a completion. ``truncate`` cuts ratios off at
    the cap (truncated importance sampling), ``mask`` keeps those up to the cap and learns nothing from the rest: TRL's
    ``vllm_importance_sampling_mode`` of the same names, and verl's ``rollout_is`` with and without ``rollout_rs``.
    ``geometric_mask`` compares the mean ratio of a completion, and learns with weight 1 from completions whose mean
    lies in ``[1 / cap, cap]``, so that long ones are not refused for their length (verl's ``geometric``). ``none``
    measures alone.

    Weights multiply the surrogate, not the KL term, and the loss is averaged over as many tokens as without them: what
    is masked counts as 0. Only the ratio of a whole completion is unbiased, and the cap costs least of that where it
    truncates (tests/rl/test_mismatch.py); ratios of tokens vary less. TRL's default is ``sequence_mask`` with 3.

    Attributes:
        mode: see above.
        cap: largest ratio; above 1. Mean ratios are far closer to 1: take 1.001 to 1.01 with ``geometric_mask``.
        veto: a completion is not learnt from where the ratio of one of its tokens is below this; 0 = never. verl's
            ``rollout_token_veto_threshold``, for which it names 1e-4.

    Raises:
        ConfigError: a value is out of range.
    """

    mode: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"] = (
        "token_truncate"
    )
    cap: float = 2.0
    veto: float = 0.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_choice("model.mismatch.mode", self.mode, MODES)
        check_number("model.mismatch.cap", self.cap, 1, above=True)
        check_number("model.mismatch.veto", self.veto, 0, 1, below=True)

    def weights(self, logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor) -> Tensor | None:
        """Weights of the surrogate.

        Args:
            logprobs: ``[N, T]`` of the policy that learns, before its update, in nats, without gradient.
            engine_logprobs: ``[N, T]`` as the engine sampled, in nats.
            mask: ``[N, T]`` bool, True = counts.

        Returns:
            ``[N, T]``, not negative, 0 where the mask is False; None where nothing is corrected.
        """
        if self.mode == "none" and not self.veto:
            return None
        difference = log_ratios(logprobs, engine_logprobs, mask)
        ratios = self._ratios(difference, mask)
        if self.mode.endswith("truncate"):
            weights = ratios.clamp(max=self.cap)
        elif self.mode == "none":
            weights = torch.ones_like(ratios)
        elif self.mode == "geometric_mask":
            weights = ((ratios <= self.cap) & (ratios >= 1 / self.cap)).to(ratios)
        else:
            weights = ratios.masked_fill(ratios > self.cap, 0.0)
        if self.veto:
            lowest = torch.where(mask, difference, torch.zeros_like(difference)).amin(1, keepdim=True)
            weights = weights * (lowest.exp() >= self.veto)
        return torch.where(mask, weights, torch.zeros_like(weights))

    def figures(self, logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """What is logged of the gap; arguments as for ``weights``.

        Returns:
            Scalars: ``kl``, KL(engine || policy) in nats per token by its plain estimate, of either sign; ``kl_k3``,
            the same by one that is never negative; ``ratio_max``, the largest ratio, of tokens or completions as the
            mode has it; ``ess``, the effective sample size as a share, 1 where all ratios are equal (Kish:
            ``(sum w)^2 / (n sum w^2)``), of the ratios before cap and mask; ``beyond_cap``, the share of ratios that
            the cap truncates or masks.
        """
        difference = log_ratios(logprobs, engine_logprobs, mask)
        ratios, counted = self._ratios(difference, mask), mask
        if not self.mode.startswith(("token", "none")):
            ratios, counted = ratios[:, :1], mask.any(1, keepdim=True)
        beyond = ratios > self.cap
        if self.mode == "geometric_mask":
            beyond |= ratios < 1 / self.cap
        total, squares = masked_sum(ratios, counted), masked_sum(ratios.square(), counted)
        return {
            "kl": masked_mean(k1_divergence(engine_logprobs, logprobs), mask),
            "kl_k3": masked_mean(k3_divergence(engine_logprobs, logprobs), mask),
            "ratio_max": torch.where(counted, ratios, torch.zeros_like(ratios)).max(),
            "ess": total.square() / (counted.sum() * squares).clamp(min=torch.finfo(squares.dtype).tiny),
            "beyond_cap": masked_mean(beyond.to(ratios), counted),
        }

    def _ratios(self, difference: Tensor, mask: Tensor) -> Tensor:
        """Ratios ``[N, T]``, those of a completion repeated over its tokens."""
        whole = difference
        if self.mode.startswith("sequence"):
            whole = difference.sum(1, keepdim=True).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        elif self.mode == "geometric_mask":
            whole = masked_mean(difference, mask, dim=1)[:, None]
        return whole.exp().expand_as(difference)


def log_ratios(logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Logarithm of the ratio of policy and engine, ``[N, T]``, 0 where the mask is False.

    >>> log_ratios(torch.tensor([[0.5, 0.2]]).log(), torch.tensor([[0.25, 0.4]]).log(), torch.tensor([[True, False]]))
    tensor([[0.6931, 0.0000]])
    """
    difference = (logprobs - engine_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.where(mask, difference, torch.zeros_like(difference))
