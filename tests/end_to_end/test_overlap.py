"""A sharded model that an engine outside samples for, one batch ahead: it leaves and goes on as if nothing had been."""

from __future__ import annotations

import signal

import pytest

from tests.end_to_end.test_interrupted import FSDP2, OVERLAP, check_same, runs

__all__ = ["runs"]  # a fixture

# In a file of the user's own beside the config: needs no weights, as an engine outside does not need those of the run.
RANDOM = """
import threading
import torch
from kvg.inference.rollout_engine import RolloutEngine
from kvg.rewards.base import Reward
from kvg.rl.completions import Rollouts

class Engine(RolloutEngine):
    external = True
    step = -1

    def sync(self, backbone, step):
        self.step = step

    def sample(self, backbone, batch, settings, group_size, generator):
        shape = (len(batch) * group_size, settings.max_new_tokens)
        tokens = torch.randint(100, 1000, shape, generator=generator)
        tokens[:, 0] = 100 + self.step
        mask = torch.ones(shape, dtype=torch.bool)
        return Rollouts(tokens, mask, torch.full(shape, -6.0), mask[:, 0])

class Letters(Reward):
    def __call__(self, answers, samples):
        return torch.tensor([float(sum(map(ord, answer.completion.text)) % 97) for answer in answers])
"""


@pytest.mark.slow
def test_a_sharded_model_and_an_engine_outside(runs):
    own = runs("grpo", *OVERLAP, *FSDP2)
    (own.folder / "random_engine.py").write_text(RANDOM)
    own.words += ["--model.engine=random_engine.Engine", "--model.mismatch={mode: none}"]
    own.words += ["--model.reward.init_args.parts={letters: {class_path: random_engine.Letters}}"]
    code, said = own.interrupted("run", "SIGTERM", "backward", 0, rank=1)
    assert code == -signal.SIGTERM, said
    assert said.count("kvg: saved after step 1 in run/interrupted-step1.ckpt; to go on:") == 1
    check_same(own, said)
    assert [value for _, value in own.curves("run")["train/policy_lag"]] == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.slow
def test_a_sharded_model_is_refused_before_it_is_loaded(runs):
    own = runs("grpo", *OVERLAP, *FSDP2)
    process = own.start("run", "--model.backbone.checkpoint=none")
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 2, said
    assert "model.overlap: true cannot sample from a sharded model" in said
    assert not (own.folder / "run").exists()
