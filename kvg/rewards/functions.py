"""Reward functions with TRL's signature: ``f(completions, **columns) -> [float]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kvg.rewards.base import Reward, check_lengths
from kvg.text.answer import Answer
from kvg.types import Sample

RewardFunction = Callable[..., Sequence[float | None]]


class FunctionReward(Reward):
    """Calls a function with the texts and one list per column.

    Columns of the sample: ``key``, ``entity``, ``category``, ``split``, ``knowledge``, ``target_box`` (xyxy in pixels
    of the stored image) and ``image_size`` (width, height). Columns of the completion: ``answer``, ``box`` (as
    ``target_box``, or None), ``num_tokens`` and ``finish_reason``. As in TRL, a function names the columns that it uses
    and takes the rest as ``**kwargs``. A score of None counts as 0.

    Args:
        function: in a config its import path, such as ``my_rewards.mentions_wings``.
    """

    def __init__(self, function: RewardFunction) -> None:
        self.function = function

    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """See ``Reward.__call__``.

        Raises:
            ValueError: the lists differ in length, or the function returns another number of scores.
        """
        check_lengths(answers, samples)
        names = ("key", "entity", "category", "split", "knowledge")
        columns = {name: [getattr(sample, name) for sample in samples] for name in names}
        scores = self.function(
            completions=[answer.completion.text for answer in answers],
            **columns,
            target_box=[sample.box_px for sample in samples],
            image_size=[(sample.width, sample.height) for sample in samples],
            answer=[answer.answer for answer in answers],
            box=[answer.box_px for answer in answers],
            num_tokens=[answer.completion.num_tokens for answer in answers],
            finish_reason=[answer.completion.finish_reason for answer in answers],
        )
        if len(scores) != len(answers):
            raise ValueError(f"the reward function returned {len(scores)} scores for {len(answers)} completions")
        return torch.tensor([0.0 if score is None else float(score) for score in scores])
