"""Doubles for stage 2 that samples one batch ahead: engines, a loss and a callback that keep what went through them."""

from __future__ import annotations

import copy
import threading
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from kvg.inference.rollout_engine import BuiltInEngine
from kvg.losses.family import GRPOLoss
from kvg.rewards.base import Reward


class Letters(Reward):
    """Something that differs between the completions of random weights."""

    def __call__(self, answers, samples) -> torch.Tensor:
        return torch.tensor([float(sum(map(ord, answer.completion.text)) % 97) for answer in answers])


class Recording(BuiltInEngine):
    """Keeps what it was called with, and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def sample(self, backbone, batch, settings, group_size, generator):
        call = {"thread": threading.current_thread() is not threading.main_thread(), "batch": batch}
        call |= {"seed": generator.initial_seed(), "policy": backbone, "weights": trained(backbone)}
        self.calls.append({**call, "out": super().sample(backbone, batch, settings, group_size, generator)})
        return self.calls[-1]["out"]


class Remote(Recording):
    """An engine outside: it has a copy of the weights that it was brought, as a server has."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    @property
    def external(self) -> bool:
        return True

    def sync(self, backbone, step) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.steps.append(step)
        self.copy = copy.deepcopy(backbone).eval()

    def sample(self, backbone, batch, settings, group_size, generator):
        return super().sample(self.copy, batch, settings, group_size, generator)


class RecordingLoss(GRPOLoss):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(beta=0.0)
        self.calls: list[dict[str, torch.Tensor]] = []

    def __call__(self, logprobs, old_logprobs, *rest):
        self.calls.append({"logprobs": logprobs.detach(), "old": old_logprobs, "mask": rest[2], "weights": rest[5]})
        return super().__call__(logprobs, old_logprobs, *rest)


class Weights(Callback):
    """The weights after each number of steps."""

    def __init__(self) -> None:
        self.of_step: dict[int, list[torch.Tensor]] = {}

    def on_train_start(self, trainer, pl_module) -> None:
        self.of_step[trainer.global_step] = trained(pl_module.backbone)

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        self.of_step[trainer.global_step] = trained(pl_module.backbone)


def trained(backbone) -> list[torch.Tensor]:
    return [p.detach().clone() for p in backbone.parameters() if p.requires_grad]


def equal(ours, theirs) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
