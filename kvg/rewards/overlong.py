"""Reward for length: a penalty that grows towards the longest completion (DAPO, arXiv 2503.14476, equation 13)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvg.ranges import check_whole
from kvg.rewards.base import Reward, check_lengths
from kvg.text.answer import Answer
from kvg.types import Sample

_FIELD = "reward.overlong.buffer"


class OverlongReward(Reward):
    """0 up to a length, from there linearly down to -1 at the longest completion that could be sampled.

    Args:
        buffer: tokens before the longest completion from which on length costs; fewer than those of that completion.

    Raises:
        ConfigError: the buffer is no positive whole number.
    """

    def __init__(self, buffer: int) -> None:
        check_whole(_FIELD, buffer, 1)
        self.buffer = buffer

    def check_limit(self, max_new_tokens: int) -> None:
        """See ``Reward.check_limit``."""
        check_whole(_FIELD, self.buffer, 1, max_new_tokens - 1)

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; each of ``[N]`` in -1-0.

        Raises:
            ValueError: the length of a completion, or the longest that could be sampled, is not known.
        """
        check_lengths(answers, samples)
        excess = []
        for completion in (answer.completion for answer in answers):
            if completion.num_tokens is None or completion.max_tokens is None:
                raise ValueError("the overlong penalty needs num_tokens and max_tokens of each completion")
            excess.append(completion.num_tokens - (completion.max_tokens - self.buffer))
        return -(torch.tensor(excess, dtype=torch.int64) / self.buffer).clamp(0, 1)
