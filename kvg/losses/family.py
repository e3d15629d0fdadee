"""The policy losses of stage 2, each with the paper and the equation it is taken from.

They differ in two things: which ratio is clipped and how, and what the tokens' losses are averaged over.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kvg.errors import ConfigError
from kvg.losses.policy import Counts, PolicyLoss
from kvg.masking import masked_mean, masked_sum


class GRPOLoss(PolicyLoss):
    """Clipped ratio of each token, averaged over a completion's tokens, then over completions.

    DeepSeekMath (arXiv 2402.03300), equation 3; DeepPerception v2 with beta 0.04. In a short completion a token weighs
    more.
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
    """As GRPO, averaged over all tokens of this process alike.

    TRL's ``bnpo``, and verl's ``token-mean``: DeepPerception v3 with beta 0.02. With several processes, one with few
    tokens weighs as much as one with many.
    """

    def average(self, values: Tensor, mask: Tensor, counts: Counts) -> Tensor:
        """See ``PolicyLoss.average``."""
        return masked_sum(values, mask) / max(1.0, counts.tokens)


class DAPOLoss(GRPOLoss):
    """Averaged over all tokens of the update, over all processes, and with more room upwards than downwards.

    DAPO (arXiv 2503.14476), equation 8, with its clip-higher of 0.28 and without a KL.
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
    """Summed, and divided by a constant: neither length nor the number of tokens changes a token's weight.

    Dr. GRPO (arXiv 2503.20783), section 3.2; goes with the module's ``advantage: none``.

    Args:
        max_tokens: the constant for each completion, usually the module's ``max_new_tokens``.
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
    """One ratio for a whole completion, the geometric mean of its tokens' ratios; clipped as a whole.

    GSPO (arXiv 2507.18071), equations 5 and 7, with its clip of 3e-4 and 4e-4.
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
    """Policy gradient with a capped weight: no token's gradient is ever stopped, only bounded.

    MiniMax-M1 (arXiv 2506.13585), equations 4 and 5; only the upper bound is used, as there.
    """

    def surrogate(
        self, logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``PolicyLoss.surrogate``."""
        ratio = log_ratio.exp().detach()
        weight = ratio.clamp(max=1 + self.clip_high)
        return weight * advantages * logprobs, ratio, torch.zeros_like(mask)
