"""Stage 2 on toys: rewards move the policy, equal ones do not, and the reference stays where stage 1 left it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import lightning as L
import pytest
import torch
from torch import Tensor

from data_modules import EvaluationDataModule, GRPODataModule
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError, TrainingError
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rewards.format import FormatReward
from kvg.rewards.iou import IoUReward
from kvg.rewards.overlong import OverlongReward
from kvg.rl.experience import Experience
from kvg.shards.writer import ShardWriter


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


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_trained_tower_sees_a_picture_once_a_step(train, tiny, adamw, beta):
    """Sampling's visual tokens serve learning, too, and lead back to the tower: the step is that of two passes."""
    found = []
    for microbatch_size in (0, 2):  # parts of an update need a way back each
        backbone, calls = tiny(freeze_vision=False, freeze_projector=False), []
        backbone.model.model.visual.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        module = grpo(backbone, SPACES, adamw(1e-3), group_size=4, beta=beta, microbatch_size=microbatch_size, **SMALL)
        before = state(module)
        train(module, 2)
        found.append((len(calls), state(module)))
        assert any("patch_embed" in name for name in moved(module, before))
    (once, weights), (twice, expected) = found
    reference = 2 if beta else 0  # the frozen copy took the hook along, and sees each picture with its own tower
    assert (once - reference, twice - reference) == (2, 4)
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)


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


def weights_after(train, module):
    log = train(module, 2)
    return torch.cat([p.detach().flatten() for p in module.backbone.parameters() if p.requires_grad]), log


def test_parts_are_learnt_as_one(train, tiny, adamw):
    sgd = partial(torch.optim.SGD, lr=1.0)
    settings = {"group_size": 4, "beta": 0.1, "max_grad_norm": None, **SMALL}
    whole, log = weights_after(train, grpo(tiny(), SPACES, sgd, **settings))
    parts, other = weights_after(train, grpo(tiny(), SPACES, sgd, microbatch_size=1, **settings))
    assert (whole - parts).norm() < 1e-5 * whole.norm()
    assert log["train/loss"] == pytest.approx(other["train/loss"], abs=1e-6)
    assert log["train/grad_norm"] == pytest.approx(other["train/grad_norm"], rel=1e-3)


def test_several_updates_move_the_ratio(train, tiny, adamw):
    module = grpo(tiny(), SPACES, adamw(1e-2), group_size=4, beta=0.0, num_iterations=2, num_minibatches=2, **SMALL)
    log = train(module, 8)
    assert len(log.steps) == 2  # batches: each is followed by four optimizer steps
    assert log["train/ratio"][0] != pytest.approx(1.0, abs=1e-4)
    assert log["train/clip_fraction"][0] > 0


def test_the_first_update_has_a_ratio_of_one_from_sampling_alone(train, tiny, adamw):
    """Log-probabilities of sampling stand for those of the old policy."""
    module = grpo(tiny(), SPACES, adamw(0.0), group_size=4, beta=0.0, num_iterations=2, **SMALL)
    log = train(module, 2)
    assert log["train/ratio"] == [pytest.approx(1.0, abs=1e-4)] * len(log.steps)


def test_the_schedule_counts_every_update(fit, two, tiny, adamw):
    module = grpo(tiny(), SPACES, adamw(1e-2), group_size=2, beta=0.0, num_minibatches=2, schedule="cosine", **SMALL)
    fit(module, GRPODataModule(two, mode="direct", batch_size=2), -1, max_epochs=3)
    assert module.trainer.global_step == module.total_steps() == 6
    assert module.lr_schedulers().get_last_lr() == [pytest.approx(0.0, abs=1e-9)]


class HalfReward(Reward):
    """Equal rewards for the first prompt that it ever sees and for all of its returns; spaces for the others."""

    def __init__(self):
        self.first = None

    def __call__(self, answers, samples) -> Tensor:
        self.first = self.first or samples[0].key
        return torch.tensor(
            [
                0.0 if s.key == self.first else len(t) + t.count(" ")
                for s, t in zip(samples, texts_of(answers), strict=True)
            ]
        )


def test_groups_with_equal_rewards_are_replaced(train, tiny, adamw):
    """One of two prompts never tells anything: two batches have to be sampled for each update of two groups."""
    learnt = []
    settings = {"group_size": 4, "max_resample_batches": 3, **SMALL}
    module = grpo(tiny(), WeightedReward({"half": HalfReward()}), adamw(1e-3), **settings)
    learn = module._learn
    module._learn = lambda pieces: learnt.append(pieces) or learn(pieces)
    train(module, 2)
    assert [sum(piece.num_prompts for piece in pieces) for pieces in learnt] == [2, 2]
    assert [len(pieces) for pieces in learnt] == [2, 2]
    assert all((piece.advantages != 0).any() for pieces in learnt for piece in pieces)


def test_resampling_ends(train, tiny, adamw):
    module = grpo(tiny(), EQUAL, adamw(1e-3), group_size=4, beta=0.0, max_resample_batches=1, **SMALL)
    log = train(module, 2)
    assert len(log.steps) == 4  # batches: each update had one refill, which told nothing either
    assert log.steps[-1]["train/loss"] == 0.0


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


class SpoiltReward(Reward):
    """An advantage that no float32 gradient survives."""

    def __call__(self, answers, samples) -> Tensor:
        return torch.tensor([3e38 * (number % 2) for number in range(len(answers))])


def test_a_gradient_that_is_none_stops_the_run_and_keeps_the_batch(train, tiny, adamw, tmp_path):
    module = grpo(
        tiny(), WeightedReward({"spoilt": SpoiltReward()}), adamw(1e-2), group_size=4, advantage="none", **SMALL
    )
    before = state(module)
    with pytest.raises(TrainingError, match=r"step 0: .*not finite.*step0-rank0-part0\.pt"):
        train(module, 1)
    assert moved(module, before) == set()
    (kept,) = (tmp_path / "failed").iterdir()
    found = Experience.load(kept)
    assert found.num_prompts == 2
    assert {s.key for s in found.batch.samples} == {"0", "1"} or len(found.batch.samples) == 2
    again, _ = module.backbone.completion_logprobs(found.batch, found.tokens, found.mask)
    assert torch.isfinite(again).all()


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
