"""Group-relative advantages: how much better a rollout is than its siblings of the same prompt (GRPO, stage 2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def group_advantage(
    rewards: Tensor,
    group_size: int,
    normalise: Literal["group_std", "batch_std", "none"] = "group_std",
    eps: float = 1e-4,
) -> Tensor:
    """Reward minus the mean of its group, divided by a standard deviation.

    With ``group_std`` (published), one right of four earns 1.5 and the others -0.5, whatever the size of the reward; so
    a per-entity scale on the reward all but cancels. ``batch_std`` and ``none`` keep such a scale.

    Args:
        rewards: ``[N]``, the rows of a group next to each other, N = prompts * group_size.
        group_size: G.
        normalise: ``group_std`` divides by the group's standard deviation, ``batch_std`` by that of all N rewards
            given, ``none`` does not divide. Both are the unbiased estimate (divisor n - 1).
        eps: added to the standard deviation, in units of reward.

    Returns:
        ``[N]``, same dtype, never NaN. Exactly 0 where all rewards of a group are equal, hence everywhere for G = 1.

    Raises:
        ValueError: N is no multiple of G, a reward is not finite, or ``normalise`` is unknown.

    >>> group_advantage(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.3, 0.3, 0.3, 0.3]), group_size=4, eps=0.0)
    tensor([ 1.5000, -0.5000, -0.5000, -0.5000,  0.0000,  0.0000,  0.0000,  0.0000])
    """
    if group_size < 1 or rewards.ndim != 1 or rewards.numel() % group_size:
        raise ValueError(f"rewards of shape {tuple(rewards.shape)} are not a whole number of groups of {group_size}")
    if not bool(torch.isfinite(rewards).all()):
        raise ValueError("a reward is NaN or infinite; the reward that made it must be mended")
    if normalise not in ("group_std", "batch_std", "none"):
        raise ValueError(f"normalise is group_std, batch_std or none, got '{normalise}'")
    groups = rewards.reshape(-1, group_size)
    # Equality is tested on the rewards: a mean of equal floats may differ from them in the last bit, and dividing that
    # by eps would turn rounding into a training signal.
    tied = (groups == groups[:, :1]).all(dim=1, keepdim=True)
    centred = torch.where(tied, torch.zeros_like(groups), groups - groups.mean(dim=1, keepdim=True))
    if normalise == "none" or bool(tied.all()):
        return centred.reshape(-1)
    # tied.all() covers a single row or column, so both estimates have at least two values to work on.
    std = groups.std(dim=1, keepdim=True) if normalise == "group_std" else rewards.std()
    scaled = centred / (std + eps)
    return torch.where(tied, torch.zeros_like(scaled), scaled).reshape(-1)
