"""Stage 2 with an engine of its own: when it gets the weights, what is logged of its gap, and what is made of that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from data_modules import GRPODataModule
from kvg.inference.rollout_engine import BuiltInEngine
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rl.mismatch import MismatchCorrection

LN2 = math.log(2)


class Lengths(Reward):
    """Characters of the text."""

    def __call__(self, answers, samples) -> torch.Tensor:
        return torch.tensor([float(len(answer.completion.text)) for answer in answers])


class Outside(BuiltInEngine):
    """Says of its log-probabilities what it likes: they are the policy's, plus an offset ``[N, 1]``."""

    def __init__(self, offset: list[float]) -> None:
        super().__init__()
        self.offset, self.steps, self.weights = torch.tensor(offset)[:, None], [], []

    @property
    def external(self) -> bool:
        return True

    def sync(self, backbone, step) -> None:
        self.steps.append(step)
        self.weights.append(next(p for p in backbone.parameters() if p.requires_grad).detach().clone())

    def sample(self, backbone, batch, settings, group_size, generator):
        out = super().sample(backbone, batch, settings, group_size, generator)
        return replace(out, logprobs=out.logprobs + self.offset)


@pytest.fixture
def train(fit, tiny, two, adamw):
    def run(steps: int, engine: Any, lr: float = 1e-3, **settings: Any):
        module = GRPOModule(
            tiny(),
            WeightedReward({"lengths": Lengths()}),
            GRPOLoss(beta=0.0),
            adamw(lr),
            group_size=2,
            max_new_tokens=4,
            export=False,
            engine=engine,
            **settings,
        )
        module.backbone.end_token_ids = (-1,)  # every completion has four tokens
        return module, fit(module, GRPODataModule(two, mode="direct", batch_size=2), steps)

    return run


def test_an_engine_gets_the_weights_before_it_samples(train):
    engine = Outside([0.0] * 4)
    module, _ = train(3, engine)
    assert engine.steps == [0, 1, 2]
    assert not torch.equal(engine.weights[0], engine.weights[2])
    trained = next(p for p in module.backbone.parameters() if p.requires_grad)
    assert not torch.equal(engine.weights[2], trained)  # the last step came after


def test_several_updates_of_a_batch_are_brought_at_once(train):
    engine = Outside([0.0] * 4)
    train(4, engine, num_iterations=2)
    assert engine.steps == [0, 2]


def test_the_gap_is_logged_by_hand(train):
    # Ratios of policy and engine 2, 1/2, 1, 1 for all four tokens of a completion.
    _, log = train(1, Outside([-LN2, LN2, 0.0, 0.0]), mismatch=MismatchCorrection("token_mask", cap=1.5))
    figures = {name.rpartition("/")[2]: value for name, value in log.steps[0].items() if "/mismatch/" in name}
    # mean of -ln 2, ln 2, 0, 0; k3: (2 - 1 - ln 2) + (1/2 - 1 + ln 2) over 4; Kish: 4.5^2 / (4 * 6.25)
    expected = {"kl": 0.0, "kl_k3": 0.125, "ratio_max": 2.0, "ess": 4.5**2 / 25, "beyond_cap": 0.25}
    assert figures == pytest.approx(expected, abs=1e-5)
    assert log.steps[0]["train/sync_s"] >= 0


def test_the_gap_of_completions_is_logged_by_hand(train):
    _, log = train(1, Outside([-LN2, LN2, 0.0, 0.0]), mismatch=MismatchCorrection("sequence_mask", cap=3.0))
    # Products of four tokens: 16, 1/16, 1, 1.
    total, squares = 18 + 1 / 16, 256 + 1 / 256 + 2
    assert log["train/mismatch/ratio_max"] == [pytest.approx(16.0, rel=1e-4)]
    assert log["train/mismatch/ess"] == [pytest.approx(total**2 / (4 * squares), rel=1e-4)]
    assert log["train/mismatch/beyond_cap"] == [0.25]


def test_a_scale_on_the_ratio_scales_the_gradient(train):
    """All ratios 1/2 and no cap in reach: half the gradient; what is masked gives none at all."""
    norms = {}
    for name, offset, correction in (
        ("none", 0.0, None),
        ("half", LN2, MismatchCorrection("token_truncate")),
        ("ignored", LN2, MismatchCorrection("none")),
        ("masked", -LN2, MismatchCorrection("token_mask", cap=1.5)),
    ):
        _, log = train(1, Outside([offset] * 4), mismatch=correction, max_grad_norm=None)
        norms[name] = log.steps[0]["train/grad_norm"]
    assert norms["half"] == pytest.approx(norms["none"] / 2, rel=1e-3)
    assert norms["ignored"] == pytest.approx(norms["none"], rel=1e-3)
    assert norms["masked"] == 0.0


@pytest.mark.parametrize("settings", [{}, {"num_iterations": 2}, {"max_resample_batches": 1}])
def test_an_engine_without_a_gap_trains_as_the_built_in_one(train, settings):
    _, built_in = train(4, None, **settings)
    _, outside = train(4, Outside([0.0] * 4), **settings)
    assert not any("mismatch" in name or "sync" in name for name in built_in.steps[0])
    for ours, theirs in zip(built_in["train/loss"], outside["train/loss"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert built_in["train/grad_norm"] == pytest.approx(outside["train/grad_norm"], rel=1e-3)
