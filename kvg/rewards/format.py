"""Format reward: 0.5 for the tags, 0.5 for a box in the backbone's own box format."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from kvg.rewards.base import Reward, check_lengths
from kvg.text.answer import Answer
from kvg.types import Sample

HALF = 0.5
_PREFIX = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)


class FormatReward(Reward):
    """0.5 for ``<think>..</think><answer>..</answer>``, and 0.5 for a canonical box in the first answer block.

    The two halves are independent, as published: a canonical box in an answer block gets 0.5 without a rationale.
    Stricter than published: the answer must contain the box only (the published check also rewards an answer with
    further words or a second box, and v3 rewards decimals).

    Args:
        box_half: reward the box; if False, only the tags are rewarded and the maximum is 0.5.
        published_prefix_match: check only that the text *starts* with the two blocks, as published; trailing text,
            repeated tags and empty blocks are accepted. If False, the whole completion must be well formed.
        published_v2_bug: reproduce an off-by-one index of the last published v2 code (``get_bbox`` returns index + 2,
            the check expects 1): a box in parentheses is never rewarded, and the maximum is 0.5.
    """

    def __init__(
        self, box_half: bool = True, published_prefix_match: bool = False, published_v2_bug: bool = False
    ) -> None:
        self.box_half = box_half
        self.published_prefix_match = published_prefix_match
        self.published_v2_bug = published_v2_bug

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; each of ``[N]`` is 0, 0.5 or 1."""
        check_lengths(answers, samples)
        return torch.tensor([self._score(answer) for answer in answers], dtype=torch.float32)

    def _score(self, answer: Answer) -> float:
        tags = answer.well_formed
        if self.published_prefix_match:
            tags = _PREFIX.match(answer.completion.text) is not None
        box = self.box_half and not self.published_v2_bug and answer.canonical
        return HALF * tags + HALF * box
