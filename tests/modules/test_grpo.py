"""Stage 2 on toys: rewards move the policy, equal ones do not, and the reference stays where stage 1 left it."""

from __future__ import annotations

import math
from dataclasses import replace

import lightning as L
import pytest
import torch
from torch import Tensor

from data_modules import EvaluationDataModule, GRPODataModule
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError
from kvg.modules.grpo import GRPOModule
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rewards.format import FormatReward
from kvg.rewards.iou import IoUReward
from kvg.shards.writer import ShardWriter


class SpaceReward(Reward):
    """Share of spaces in the text: something that random weights can be taught in a few steps."""

    def __call__(self, texts, samples, codec, sizes) -> Tensor:
        return torch.tensor([text.count(" ") / max(1, len(text)) for text in texts])


class EqualReward(Reward):
    """The same for everybody."""

    def __call__(self, texts, samples, codec, sizes) -> Tensor:
        return torch.full((len(texts),), 0.7)


SPACES, EQUAL = WeightedReward({"spaces": SpaceReward()}), WeightedReward({"equal": EqualReward()})
PUBLISHED = WeightedReward({"iou": IoUReward(), "format": FormatReward()})
SMALL = {"max_new_tokens": 8, "mode": "direct", "export": False}


@pytest.fixture
def train(fit, two):
    def run(module, steps, **settings):
        return fit(module, GRPODataModule(two, mode="direct", batch_size=2), steps, **settings)

    return run


def state(module):
    return {name: value.clone() for name, value in module.backbone.model.state_dict().items()}


def moved(module, before):
    return {n for n, value in module.backbone.model.state_dict().items() if not torch.equal(value, before[n])}


def test_reward_rises(train, tiny, adamw):
    module = GRPOModule(tiny(), SPACES, adamw(1e-2), group_size=8, beta=0.0, **SMALL)
    log = train(module, 12)
    rewards = log["train/reward/spaces"]
    assert sum(rewards[-3:]) / 3 > 2 * sum(rewards[:3]) / 3
    assert log["train/reward/total"] == rewards
    assert all(math.isfinite(value) for step in log.steps for value in step.values())


def test_keys_of_the_log(train, tiny, adamw):
    log = train(GRPOModule(tiny(), PUBLISHED, adamw(1e-3), group_size=2, **SMALL), 1)
    names = "loss kl entropy completion_length truncated unparsed tokens_per_s advantage_std"
    expected = {f"train/{name}" for name in names.split()}
    expected |= {f"train/reward/{name}" for name in ("total", "iou", "format")}
    assert expected <= set(log.steps[0])
    assert log.steps[0]["train/unparsed"] == 1.0
    assert 0 < log.steps[0]["train/completion_length"] <= 8


def test_same_seed_same_run(train, tiny, adamw):
    def run(seed):
        return train(GRPOModule(tiny(), SPACES, adamw(1e-2), group_size=4, seed=seed, **SMALL), 3).steps

    def told(steps):
        return [(s["train/loss"], s["train/reward/total"], s["train/kl"]) for s in steps]

    assert told(run(0)) == told(run(0))
    assert told(run(0)) != told(run(1))


def test_first_step_is_on_the_reference_and_later_ones_are_not(train, tiny, adamw):
    log = train(GRPOModule(tiny(), SPACES, adamw(1e-2), group_size=4, beta=0.1, **SMALL), 3)
    assert log["train/kl"][0] == pytest.approx(0.0, abs=1e-6)
    assert log["train/kl"][2] > 1e-3


def test_reference_stays(train, tiny, adamw):
    module = GRPOModule(tiny(), SPACES, adamw(1e-2), group_size=4, **SMALL)
    before = state(module)
    train(module, 2)
    (reference,) = module._reference
    assert all(torch.equal(value, before[name]) for name, value in reference.model.state_dict().items())
    assert moved(module, before)
    assert not any("_reference" in name for name in module.state_dict())
    assert not any(p.requires_grad for p in reference.parameters())


def test_adapters_are_their_own_reference(train, tiny, adamw):
    module = GRPOModule(tiny(lora=LoRASettings(r=4)), SPACES, adamw(1e-2), group_size=4, beta=0.1, **SMALL)
    before = state(module)
    log = train(module, 3)
    assert module._reference == []
    assert log["train/kl"][0] == pytest.approx(0.0, abs=1e-6)
    assert log["train/kl"][2] > 1e-4
    assert moved(module, before) == {n for n in before if "lora_" in n}


def test_without_beta_there_is_no_reference(train, tiny, adamw):
    module = GRPOModule(tiny(), SPACES, adamw(1e-2), group_size=4, beta=0.0, **SMALL)
    log = train(module, 1)
    assert module._reference == []
    assert log["train/kl"] == [0.0]


@pytest.mark.parametrize(("reward", "group_size"), [(EQUAL, 4), (SPACES, 1)])
def test_nothing_to_compare_nothing_to_learn(train, tiny, adamw, reward, group_size):
    """Equal rewards, or groups of one, have no advantage; without a KL term the weights stay to the last bit."""
    module = GRPOModule(tiny(), reward, adamw(1e-2), group_size=group_size, beta=0.0, **SMALL)
    before = state(module)
    log = train(module, 2)
    assert moved(module, before) == set()
    assert log["train/loss"] == [0.0, 0.0]
    assert log["train/advantage_std"] == [0.0, 0.0]
    assert log["train/equal_groups"] == [1.0, 1.0]


def test_accumulated_batches_draw_anew(fit, tiny, adamw, scenes, tmp_path):
    """The same prompt twice in one step."""
    folder = str(tmp_path / "set")
    with ShardWriter(folder, 2) as writer:
        for key in "ab":
            writer.write(replace(scenes(1, sizes=[(84, 84)], snap_px=None)[0], key=key))
    module = GRPOModule(tiny(), SPACES, adamw(1e-3), group_size=4, beta=0.0, **SMALL)
    log = fit(module, GRPODataModule(folder, mode="direct", batch_size=1), 1, accumulate_grad_batches=2)
    assert len(log.steps) == 2
    assert log["train/reward/total"][0] != log["train/reward/total"][1]


def test_evaluation_keeps_no_reference(tiny, two, tmp_path):
    module = GRPOModule(tiny(), PUBLISHED, **SMALL)
    data = EvaluationDataModule(two, mode="direct", batch_size=2)
    data.connect(module.backbone)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.test(module, data, verbose=False)
    assert module._reference == []


def test_impossible_settings(tiny):
    with pytest.raises(ConfigError, match=r"model\.group_size: 0"):
        GRPOModule(tiny(), EQUAL, group_size=0)
    with pytest.raises(ConfigError, match=r"model\.temperature: 0"):
        GRPOModule(tiny(), EQUAL, temperature=0.0)
