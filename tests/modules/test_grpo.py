"""Stage 2 on toys: rewards move the policy, equal ones do not, and the reference stays where stage 1 left it."""

from __future__ import annotations

import math
from dataclasses import replace

import lightning as L
import pytest
import torch

from data_modules import EvaluationDataModule, GRPODataModule
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError
from kvg.rewards.combine import WeightedReward
from kvg.rewards.overlong import OverlongReward
from kvg.shards.writer import ShardWriter
from tests.modules.stage_2 import EQUAL, PUBLISHED, SMALL, SPACES, EqualReward, grpo, moved, state


def test_reward_rises(train, tiny, adamw):
    module = grpo(tiny(), SPACES, adamw(1e-2), group_size=8, beta=0.0, **SMALL)
    log = train(module, 20)
    rewards = log["train/reward/spaces"]
    assert sum(rewards[-3:]) / 3 > 2 * sum(rewards[:3]) / 3
    assert log["train/reward/total"] == rewards
    assert all(math.isfinite(value) for step in log.steps for value in step.values())


def test_keys_of_the_log(train, tiny, adamw):
    log = train(grpo(tiny(), PUBLISHED, adamw(1e-3), group_size=2, **SMALL), 1)
    names = "loss kl entropy completion_length truncated unparsed tokens_per_s advantage_std"
    expected = {f"train/{name}" for name in names.split()}
    expected |= {f"train/reward/{name}" for name in ("total", "iou", "format")}
    assert expected <= set(log.steps[0])
    assert log.steps[0]["train/unparsed"] == 1.0
    assert 0 < log.steps[0]["train/completion_length"] <= 8


def test_same_seed_same_run(train, tiny, adamw):
    def run(seed):
        return train(grpo(tiny(), SPACES, adamw(1e-2), group_size=4, seed=seed, **SMALL), 3).steps

    def told(steps):
        return [(s["train/loss"], s["train/reward/total"], s["train/kl"]) for s in steps]

    assert told(run(0)) == told(run(0))
    assert told(run(0)) != told(run(1))


def test_first_step_is_on_the_reference_and_later_ones_are_not(train, tiny, adamw):
    log = train(grpo(tiny(), SPACES, adamw(1e-2), group_size=4, beta=0.1, **SMALL), 3)
    assert log["train/kl"][0] == pytest.approx(0.0, abs=1e-6)
    assert log["train/kl"][2] > 1e-3


def test_reference_stays(train, tiny, adamw):
    module = grpo(tiny(), SPACES, adamw(1e-2), group_size=4, **SMALL)
    before = state(module)
    train(module, 2)
    (reference,) = module._reference
    assert all(torch.equal(value, before[name]) for name, value in reference.model.state_dict().items())
    assert moved(module, before)
    assert not any("_reference" in name for name in module.state_dict())
    assert not any(p.requires_grad for p in reference.parameters())


def test_adapters_are_their_own_reference(train, tiny, adamw):
    module = grpo(tiny(lora=LoRASettings(r=4)), SPACES, adamw(1e-2), group_size=4, beta=0.1, **SMALL)
    before = state(module)
    log = train(module, 3)
    assert module._reference == []
    assert log["train/kl"][0] == pytest.approx(0.0, abs=1e-6)
    assert log["train/kl"][2] > 1e-4
    assert moved(module, before) == {n for n in before if "lora_" in n}


def test_adapters_beside_a_trained_tower_have_a_copy_as_reference(train, tiny, adamw):
    """Without its adapters the policy is not the stage-1 model any more, since its tower has moved."""
    backbone = tiny(lora=LoRASettings(r=4), freeze_vision=False)
    module = grpo(backbone, SPACES, adamw(1e-2), group_size=4, beta=0.1, **SMALL)
    before = state(module)
    log = train(module, 3)
    (reference,) = module._reference
    assert all(torch.equal(value, before[name]) for name, value in reference.model.state_dict().items())
    assert log["train/kl"][0] == pytest.approx(0.0, abs=1e-6)
    assert log["train/kl"][2] > 1e-4
    assert any("visual.blocks" in name for name in moved(module, before))
    assert not any("base_layer" in name for name in moved(module, before))


def test_without_beta_there_is_no_reference(train, tiny, adamw):
    module = grpo(tiny(), SPACES, adamw(1e-2), group_size=4, beta=0.0, **SMALL)
    log = train(module, 1)
    assert module._reference == []
    assert log["train/kl"] == [0.0]


@pytest.mark.parametrize(("reward", "group_size"), [(EQUAL, 4), (SPACES, 1)])
def test_nothing_to_compare_nothing_to_learn(train, tiny, adamw, reward, group_size):
    """Equal rewards, or groups of one, have no advantage; without a KL term the weights stay to the last bit."""
    module = grpo(tiny(), reward, adamw(1e-2), group_size=group_size, beta=0.0, **SMALL)
    before = state(module)
    log = train(module, 2)
    assert moved(module, before) == set()
    assert log["train/loss"] == [0.0, 0.0]
    assert log["train/advantage_std"] == [0.0, 0.0]
    assert log["train/equal_groups"] == [1.0, 1.0]


def test_a_prompt_that_comes_twice_is_answered_anew(fit, tiny, adamw, scenes, tmp_path):
    """The same prompt in two steps between which the weights stay."""
    folder = str(tmp_path / "set")
    with ShardWriter(folder, 2) as writer:
        for key in "ab":
            writer.write(replace(scenes(1, sizes=[(84, 84)], snap_px=None)[0], key=key))
    module = grpo(tiny(), SPACES, adamw(0.0), group_size=4, beta=0.0, **SMALL)
    log = fit(module, GRPODataModule(folder, mode="direct", batch_size=1), 2)
    assert log["train/reward/total"][0] != log["train/reward/total"][1]


def test_truncated_completions_may_be_left_out(train, tiny, adamw):
    """All answers of eight tokens of a toy are cut off."""
    module = grpo(tiny(), SPACES, adamw(1e-2), group_size=4, beta=0.0, learn_truncated=False, **SMALL)
    before = state(module)
    log = train(module, 1)
    assert log["train/truncated"] == [1.0]
    assert moved(module, before) == set()


def test_length_costs_near_its_limit(train, tiny, adamw):
    reward = WeightedReward({"equal": EqualReward()}, penalties={"overlong": OverlongReward(4)})
    module = grpo(tiny(), reward, adamw(1e-3), group_size=4, **SMALL)
    log = train(module, 1)
    assert log["train/reward/overlong"] == [-1.0]  # all are eight tokens long, four over the limit of four
    assert log["train/reward/total"] == [pytest.approx(0.7 - 1.0)]


def test_evaluation_keeps_no_reference(tiny, two, tmp_path):
    module = grpo(tiny(), PUBLISHED, **SMALL)
    data = EvaluationDataModule(two, mode="direct", batch_size=2)
    data.connect(module.backbone)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.test(module, data, verbose=False)
    assert module._reference == []


def test_impossible_settings(tiny):
    with pytest.raises(ConfigError, match=r"model\.group_size: 0"):
        grpo(tiny(), EQUAL, group_size=0)
    with pytest.raises(ConfigError, match=r"model\.temperature: 0"):
        grpo(tiny(), EQUAL, temperature=0.0)
    with pytest.raises(ConfigError, match=r"model\.num_minibatches: 0"):
        grpo(tiny(), EQUAL, num_minibatches=0)
    with pytest.raises(ConfigError, match=r"reward\.overlong\.buffer: 512 must be"):
        grpo(tiny(), WeightedReward({"overlong": OverlongReward(512)}))
