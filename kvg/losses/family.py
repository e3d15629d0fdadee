"""The policy losses of stage 2, each with its paper and equation.

They differ in how the ratio is clipped and in how the token losses are averaged.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kvg.errors import ConfigError
from kvg.losses.policy import Counts, PolicyLoss
from kvg.masking import masked_mean, masked_sum


class GRPOLoss(PolicyLoss):
    """Clipped ratio per token, averaged over the tokens of a completion, then over completions.

    DeepSeekMath (arXiv 2402.03300), equation 3; DeepPerception v2 with beta 0.04. Tokens of short completions have a
    larger weight.
    """

    def surrogate(
        self, logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PolicyLoss.surrogate``."""
        ratio = log_ratio.exp()
        value, stopped = self.clipped(ratio, advantages)
        return value, ratio, stopped

    def average(self, values: Tensor, mask: Tensor, counts: Counts) -> Tensor:
        """See ``PolicyLoss.average``."""
        return masked_mean(values, mask, dim=1).sum() / max(1, counts.rows)


class BNPOLoss(GRPOLoss):
    """GRPO averaged over all tokens of this process with equal weights.

    TRL's ``bnpo`` and verl's ``token-mean``: DeepPerception v3 with beta 0.02. Every process has the same weight,
    whatever its number of tokens.
    """

    def average(self, values: Tensor, mask: Tensor, counts: Counts) -> Tensor:
        """See ``PolicyLoss.average``."""
        return masked_sum(values, mask) / max(1.0, counts.tokens)


class DAPOLoss(GRPOLoss):
    """Averaged over all tokens of the update in all processes, with a larger upper clip range (clip-higher).

    DAPO (arXiv 2503.14476), equation 8, with its clip-higher of 0.28 and without a KL term.
    """

    def __init__(
        self,
        clip_low: float = 0.2,
        clip_high: float | None = 0.28,
        beta: float = 0.0,
        kl: Literal["k1", "k2", "k3"] = "k3",
        entropy: float = 0.0,
    ) -> None:
        super().__init__(clip_low, clip_high, beta, kl, entropy)

    def average(self, values: Tensor, mask: Tensor, counts: Counts) -> Tensor:
        """See ``PolicyLoss.average``."""
        return masked_sum(values, mask) / max(1.0, counts.mean_tokens)


class DrGRPOLoss(GRPOLoss):
    """Token losses are summed and divided by a constant, so that the length does not change a token's weight.

    Dr. GRPO (arXiv 2503.20783), section 3.2; use it with the module's ``advantage: none``.

    Args:
        max_tokens: the constant per completion, usually the module's ``max_new_tokens``.
        clip_low: see ``PolicyLoss``.
        clip_high: see ``PolicyLoss``.
        beta: see ``PolicyLoss``.
        kl: see ``PolicyLoss``.
        entropy: see ``PolicyLoss``.
    """

    def __init__(
        self,
        max_tokens: int,
        clip_low: float = 0.2,
        clip_high: float | None = None,
        beta: float = 0.0,
        kl: Literal["k1", "k2", "k3"] = "k3",
        entropy: float = 0.0,
    ) -> None:
        super().__init__(clip_low, clip_high, beta, kl, entropy)
        if max_tokens < 1:
            raise ConfigError("loss.max_tokens", f"{max_tokens} must be at least 1; give the module's max_new_tokens")
        self.max_tokens = max_tokens

    def average(self, values: Tensor, mask: Tensor, counts: Counts) -> Tensor:
        """See ``PolicyLoss.average``."""
        return masked_sum(values, mask) / (max(1, counts.rows) * self.max_tokens)


class GSPOLoss(GRPOLoss):
    """One ratio per completion, the geometric mean of its token ratios; it is clipped per completion.

    GSPO (arXiv 2507.18071), equations 5 and 7, with its clip range of 3e-4 and 4e-4.
    """

    def __init__(
        self,
        clip_low: float = 3e-4,
        clip_high: float | None = 4e-4,
        beta: float = 0.0,
        kl: Literal["k1", "k2", "k3"] = "k3",
        entropy: float = 0.0,
    ) -> None:
        super().__init__(clip_low, clip_high, beta, kl, entropy)

    def surrogate(
        self, logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PolicyLoss.surrogate``."""
        ratio = masked_mean(log_ratio, mask, dim=1)[:, None].exp()
        value, stopped = self.clipped(ratio, advantages)
        return value.expand_as(logprobs), ratio.expand_as(logprobs), stopped.expand_as(logprobs)


class CISPOLoss(DAPOLoss):
    """Policy gradient with a clipped importance weight: every token keeps a gradient.

    MiniMax-M1 (arXiv 2506.13585), equations 4 and 5; as in the paper, only the upper bound is used.
    """

    def surrogate(
        self, logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PolicyLoss.surrogate``."""
        ratio = log_ratio.exp().detach()
        weight = ratio.clamp(max=1 + self.clip_high)
        return weight * advantages * logprobs, ratio, torch.zeros_like(mask)
