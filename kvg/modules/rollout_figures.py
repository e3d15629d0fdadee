"""What stage 2 logs of a batch of rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kvg.rl.completions import Rollouts
from kvg.text.answer import Answer


def rollout_figures(
    out: Rollouts, rewards: Tensor, breakdown: Mapping[str, Tensor], answers: Sequence[Answer], group_size: int
) -> dict[str, Tensor | float]:
    """Rewards, lengths, and the answers in which no box can be read.

    Args:
        out: N completions.
        rewards: ``[N]``.
        breakdown: parts of the rewards by name, each ``[N]``.
        answers: to the N completions.
        group_size: G.

    Returns:
        Scalars by name.
    """
    groups = rewards.view(-1, group_size)
    speculation = out.counts
    return {
        "reward/total": rewards.mean(),
        **{f"reward/{name}": part.mean() for name, part in breakdown.items()},
        "reward_std_in_group": groups.std(dim=1).mean() if group_size > 1 else torch.tensor(0.0),
        "equal_groups": (groups == groups[:, :1]).all(dim=1).float().mean(),
        "completion_length": out.completion_mask.sum(1).float().mean(),
        "truncated": out.truncated.float().mean(),
        "unparsed": sum(answer.box_px is None for answer in answers) / len(answers),
        **({} if speculation is None else speculation.figures()),
    }
