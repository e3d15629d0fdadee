"""What stage 2 makes of one batch of rollouts: parts, several updates, groups that are replaced, and none at all."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from data_modules import GRPODataModule
from kvg.errors import TrainingError
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rl.experience import Experience
from tests.modules.stage_2 import EQUAL, SMALL, SPACES, grpo, moved, state, texts_of


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
