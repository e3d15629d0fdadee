"""Reward for the form: half for the tags, half for a box written as the backbone writes boxes."""

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

    The two halves are independent, as published: a canonical box in an answer block earns its half without a rationale.
    Stricter than published: the answer must be the box and nothing else (the published check also pays an answer with
    words or a second box around it, and v3 pays decimals).

    Args:
        box_half: pay the half for the box; without it the tags earn 0.5 and nothing else does.
        published_prefix_match: the published check only asks that the text *starts* with the two blocks; what follows,
            repeated tags and empty blocks cost nothing. Off, the completion must be well formed as a whole.
        published_v2_bug: in the last published v2 code an index is off by one (``get_bbox`` returns index + 2, the
            check expects 1), so the second half is never paid for a parenthesis box. On, the most one can earn is 0.5.
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
