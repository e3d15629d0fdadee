"""No number is accepted that cannot work: each is refused where it is given, with its name."""

from __future__ import annotations

import math

import pytest

from callbacks import BoxPictures, CollapseGuard, StageProgress, Throughput
from data_modules import CoTSFTDataModule, EvaluationDataModule, GRPODataModule
from kvg.errors import ConfigError
from kvg.inference.local import LocalClient
from kvg.losses.family import GRPOLoss
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.grpo import GRPOModule
from kvg.rewards.combine import WeightedReward
from kvg.rewards.iou import IoUReward


def grpo(tiny, **settings):
    return GRPOModule(tiny(), WeightedReward({"iou": IoUReward()}), GRPOLoss(), **settings)


MAKERS = {
    "sft": lambda tiny, **settings: CoTSFTModule(tiny(), **settings),
    "grpo": grpo,
    "sft data": lambda _, **settings: CoTSFTDataModule("set", **settings),
    "grpo data": lambda _, **settings: GRPODataModule("set", **settings),
    "test data": lambda _, **settings: EvaluationDataModule("set", **settings),
    "guard": lambda _, **settings: CollapseGuard(**settings),
    "pictures": lambda _, **settings: BoxPictures(**settings),
    "progress": lambda _, **settings: StageProgress(**settings),
    "throughput": lambda _, **settings: Throughput(**settings),
    "local": lambda _, **settings: LocalClient("tiny", **settings),
}
WHOLE = {  # least value that works
    ("sft", "max_new_tokens"): 1,
    ("grpo", "max_new_tokens"): 1,
    ("grpo", "group_size"): 1,
    ("grpo", "num_iterations"): 1,
    ("grpo", "num_minibatches"): 1,
    ("grpo", "microbatch_size"): 0,
    ("grpo", "max_resample_batches"): 0,
    ("grpo", "top_k"): 0,
    ("grpo", "seed"): 0,
    ("sft data", "batch_size"): 1,
    ("sft data", "num_workers"): 0,
    ("sft data", "seed"): 0,
    ("sft data", "shuffle_buffer"): 0,
    ("sft data", "max_tokens"): 1,
    ("grpo data", "batch_size"): 1,
    ("grpo data", "shuffle_buffer"): 0,
    ("grpo data", "max_tokens"): 1,
    ("test data", "batch_size"): 1,
    ("test data", "num_workers"): 0,
    ("guard", "steps"): 1,
    ("pictures", "num"): 0,
    ("progress", "refresh_rate"): 0,
    ("throughput", "every"): 1,
    ("local", "max_tokens"): 1,
    ("local", "batch_size"): 1,
    ("local", "num_workers"): 0,
}
NUMBERS = {  # values that cannot work
    ("sft", "warmup"): (-0.1, 1, math.nan, "0.1"),
    ("grpo", "temperature"): (0, -1, math.nan, math.inf),
    ("grpo", "top_p"): (0, 1.1, math.nan),
    ("grpo", "max_grad_norm"): (-1, math.nan),
    ("sft data", "replay_ratio"): (-0.1, 1, math.nan),
    ("guard", "min_entropy"): (-1, math.nan),
    ("guard", "min_reward_std"): (-1,),
    ("guard", "min_length_share"): (-0.1, 1.1),
    ("guard", "max_unparsed"): (-0.1, 1.1),
    ("progress", "line_every_s"): (-1, math.nan),
    ("local", "temperature"): (-1, math.nan, "1"),
    ("local", "top_p"): (0, 1.5),
}
CASES = [(*key, value) for key, least in WHOLE.items() for value in (least - 1, least + 0.5, "3", True)]
CASES += [(*key, value) for key, values in NUMBERS.items() for value in values]


@pytest.mark.parametrize(("maker", "name", "value"), CASES)
def test_a_number_that_cannot_work(maker, name, value, tiny):
    others = {"replay": "cards.jsonl"} if name == "replay_ratio" else {}
    with pytest.raises(ConfigError) as caught:
        MAKERS[maker](tiny, **{name: value}, **others)
    assert caught.value.field.endswith(name)
    assert "must be a" in caught.value.remedy


@pytest.mark.parametrize(("maker", "name"), WHOLE)
def test_the_least_number_that_works(maker, name, tiny):
    MAKERS[maker](tiny, **{name: WHOLE[maker, name]})
