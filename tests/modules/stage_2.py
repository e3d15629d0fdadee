"""Rewards for stage 2 on toys, and its module with few arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rewards.format import FormatReward
from kvg.rewards.iou import IoUReward


def texts_of(answers):
    return [answer.completion.text for answer in answers]


class SpaceReward(Reward):
    """Share of spaces in the text: something that random weights can be taught in a few steps."""

    def __call__(self, answers, samples) -> Tensor:
        return torch.tensor([text.count(" ") / max(1, len(text)) for text in texts_of(answers)])


class EqualReward(Reward):
    """The same for everybody."""

    def __call__(self, answers, samples) -> Tensor:
        return torch.full((len(answers),), 0.7)


SPACES, EQUAL = WeightedReward({"spaces": SpaceReward()}), WeightedReward({"equal": EqualReward()})
PUBLISHED = WeightedReward({"iou": IoUReward(), "format": FormatReward()})
SMALL = {"max_new_tokens": 8, "export": False}


def grpo(backbone, reward, optimizer=torch.optim.AdamW, beta=0.04, **settings):
    return GRPOModule(backbone, reward, GRPOLoss(beta=beta), optimizer, **settings)


def state(module):
    return {name: value.clone() for name, value in module.backbone.model.state_dict().items()}


def moved(module, before):
    return {n for n, value in module.backbone.model.state_dict().items() if not torch.equal(value, before[n])}
