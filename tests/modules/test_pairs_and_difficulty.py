"""Groups over pairs of composites, and advantages weighted by difficulty: worked by hand, and in a training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data_modules import GRPODataModule
from kvg.composites.compositor import Compositor
from kvg.errors import ConfigError
from kvg.lab.world import LabSource, lab_canvas
from kvg.modules.rollout_figures import box_overlaps
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rl.difficulty import DifficultyWeight
from kvg.shards.reader import ShardFolder, Tally
from kvg.shards.writer import ShardWriter
from kvg.text.answer import Answer
from kvg.types import Completion
from tests.modules.stage_2 import SMALL, grpo


class FirstReward(Reward):
    """1 for all completions of the first composite of a pair, 0 for those of the second."""

    def __call__(self, answers, samples) -> Tensor:
        return torch.tensor([float(sample.key == sample.pair) for sample in samples])


FIRST = WeightedReward({"first": FirstReward()})


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "set"
    settings = replace(lab_canvas(0, {2: 1.0}, 1.0), paired=True)
    compositor = Compositor(LabSource(categories=["aircraft"]), settings)
    with ShardWriter(folder, 4) as writer:
        for number in range(4):
            writer.write(compositor.sample(number))
    return str(folder)


def data(folder, paired):
    return GRPODataModule(folder, mode="direct", batch_size=4, pairs=paired)


def test_rewards_are_compared_over_both_composites(fit, pairs, tiny, adamw):
    """Four completions of each composite: the four 1 and four 0 of a pair have mean 1/2, so advantages are +-1/2."""
    settings = {"group_size": 4, "advantage": "none", "beta": 0.0, **SMALL}
    module = grpo(tiny(), FIRST, adamw(0.0), **settings)
    log = fit(module, data(pairs, True), 1)
    firsts = [sample.key == sample.pair for sample in module.scored.samples]
    assert sorted(firsts) == [False, False, True, True]
    expected = torch.tensor([0.5 if first else -0.5 for first in firsts]).repeat_interleave(4)
    assert torch.equal(module.scored.advantages, expected)
    assert log["train/equal_groups"] == [0.0]
    assert log["train/reward_std_in_group"] == [pytest.approx((8 / 4 / 7) ** 0.5)]  # eight deviations of 1/2
    # The same without pairs: all completions of a composite have the same reward, and nothing is learnt.
    alone = grpo(tiny(), FIRST, adamw(0.0), **settings)
    log = fit(alone, data(pairs, False), 1)
    assert torch.equal(alone.scored.advantages, torch.zeros(16))
    assert log["train/equal_groups"] == [1.0]


def test_resampling_takes_whole_pairs(fit, pairs, tiny, adamw):
    learnt = []
    module = grpo(tiny(), FIRST, adamw(1e-3), group_size=2, max_resample_batches=2, microbatch_size=1, **SMALL)
    learn = module._learn
    module._learn = lambda pieces: learnt.append(pieces) or learn(pieces)
    fit(module, data(pairs, True), 1)
    (pieces,) = learnt
    assert [piece.num_prompts for piece in pieces] == [4]
    names = [sample.pair for sample in pieces[0].batch.samples]
    assert names[::2] == names[1::2]


def test_factors_by_hand():
    # Group 1: one of four hits, p = 1/4: 3 + (1 - 3) / 4 = 2.5. Group 2: all hit: 1. Group 3: none: 3.
    overlaps = torch.tensor([0.6, 0.1, 0.0, 0.59, 1.0, 0.9, 0.8, 0.7, 0.5, 0.5, 0.0, 0.2])
    factors = DifficultyWeight(hard=3.0, easy=1.0, iou_threshold=0.6).factors(overlaps, 4)
    assert factors.tolist() == [2.5] * 4 + [1.0] * 4 + [3.0] * 4
    with pytest.raises(ConfigError, match=r"difficulty\.hard"):
        DifficultyWeight(hard=-1.0)
    with pytest.raises(ConfigError, match="iou_threshold"):
        DifficultyWeight(iou_threshold=0.0)


def test_overlaps_by_hand(pairs):
    _, sample = next(iter(ShardFolder(pairs).parts()[0].read(Tally())))
    x1, y1, x2, y2 = sample.box_px
    half = (x1, y1, x2, (y1 + y2) / 2)
    answers = [
        Answer("", "", False, False, Completion("", 1, "stop"), box, 1, True) for box in (sample.box_px, half, None)
    ]
    assert box_overlaps(answers, [sample], 3).tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_advantages_of_a_training_are_multiplied(fit, pairs, tiny, adamw):
    """Random weights hit nothing, so that all groups are as hard as can be."""
    settings = {"group_size": 4, "advantage": "none", "beta": 0.0, **SMALL}
    module = grpo(tiny(), FIRST, adamw(0.0), difficulty=DifficultyWeight(hard=3.0), **settings)
    fit(module, data(pairs, True), 1)
    assert module.scored.advantages.abs().tolist() == [1.5] * 16
