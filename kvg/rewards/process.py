"""Rewards for the steps of a rationale, each trait checked against what is true: exact where objects have traits.

They pay what the outcome cannot show: that the plan recalls the card, that the objects are seen as they are, and that
the answer is the object of the conclusion (arXiv 2603.06652, 2505.20777).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvg.boxes import iou
from kvg.rewards.base import Reward, check_lengths
from kvg.text.answer import Answer
from kvg.text.box_refs import nouns_of, with_placeholders
from kvg.text.conclusions import pointed_at, with_name
from kvg.text.thoughts import CONCLUSION, described, looked_at, plan_traits
from kvg.types import Box, Sample

_SAME_BOX = 0.5  # smallest IoU of two boxes of the same object


class NamedTraitsReward(Reward):
    """Share of the traits of the target's card that the plan names in their places."""

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; ``[N]`` in 0-1, 0 without a plan or a card."""
        check_lengths(answers, samples)
        shares = [
            _share(plan_traits(answer.rationale), sample.objects[sample.target].traits)
            for answer, sample in zip(answers, samples, strict=True)
        ]
        return torch.tensor(shares, dtype=torch.float32)


class SeenTraitsReward(Reward):
    """Share of the traits of all objects that the visual analysis names rightly behind their boxes.

    A box belongs to the object with the highest IoU of at least 0.5; of several descriptions of an object the first
    counts. An object that is not described counts 0.
    """

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; ``[N]`` in 0-1."""
        check_lengths(answers, samples)
        shares = [_seen(answer, sample) for answer, sample in zip(answers, samples, strict=True)]
        return torch.tensor(shares, dtype=torch.float32)


class ConsistencyReward(Reward):
    """1 where the answered box is the one that the conclusion points at, else 0; also 0 where one cannot be read."""

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``; each of ``[N]`` is 0 or 1."""
        check_lengths(answers, samples)
        agree = []
        for answer, sample in zip(answers, samples, strict=True):
            box = concluded_box(answer, sample)
            agree.append(box is not None and answer.box_px is not None and _iou(box, [answer.box_px])[0] >= _SAME_BOX)
        return torch.tensor(agree, dtype=torch.float32)


def concluded_box(answer: Answer, sample: Sample) -> Box | None:
    """The box that a conclusion points at, in pixels of the stored image; None if it cannot be read."""
    boxes = [box for _, _, box in answer.quoted()]
    numbers = iter(range(len(boxes)))
    text = with_placeholders(answer.rationale, lambda written: next(numbers, None))
    before, mark, conclusion = text.rpartition(CONCLUSION)
    if not mark:
        return None
    number = pointed_at(before, with_name(conclusion, sample.entity), nouns_of(sample.category)).box
    return None if number is None else boxes[number]


def _seen(answer: Answer, sample: Sample) -> float:
    start, end = looked_at(answer.rationale)
    shares: dict[int, float] = {}
    for first, last, box in answer.quoted():
        overlaps = _iou(box, [item.box_px for item in sample.objects]) if box and start <= first < end else [0.0]
        best = max(range(len(overlaps)), key=overlaps.__getitem__)
        if overlaps[best] >= _SAME_BOX:
            shares.setdefault(best, _share(described(answer.rationale[:end], last), sample.objects[best].traits))
    return sum(shares.values()) / len(sample.objects)


def _share(words: Sequence[str], traits: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(words, traits, strict=False)) / len(traits) if traits else 0.0


def _iou(box: Box, others: Sequence[Box]) -> list[float]:
    overlaps: list[float] = iou(torch.tensor([box] * len(others)), torch.tensor(others, dtype=torch.float32)).tolist()
    return overlaps
