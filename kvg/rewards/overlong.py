"""Length penalty: grows linearly up to the longest completion (DAPO, arXiv 2503.14476, equation 13)."""

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
    """0 up to ``max_tokens - buffer`` tokens, then linearly down to -1 at ``max_tokens``.

    Args:
        buffer: number of last tokens over which the penalty grows; smaller than the longest completion.

    Raises:
        ConfigError: the buffer is not a positive integer.
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
            ValueError: a completion has no ``num_tokens`` or no ``max_tokens``.
        """
        check_lengths(answers, samples)
        excess = []
        for completion in (answer.completion for answer in answers):
            if completion.num_tokens is None or completion.max_tokens is None:
                raise ValueError("the overlong penalty needs num_tokens and max_tokens of each completion")
            excess.append(completion.num_tokens - (completion.max_tokens - self.buffer))
        return -(torch.tensor(excess, dtype=torch.int64) / self.buffer).clamp(0, 1)
