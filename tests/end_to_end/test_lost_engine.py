"""A fit whose engine is lost saves, says so, and continues with the batch that was not answered."""

from __future__ import annotations

import pytest

from tests.end_to_end.test_interrupted import DDP, GRPO, OVERLAP, runs

__all__ = ["runs"]  # a fixture

# In a file of the user's own beside the config: samples as the built-in engine does, until it is lost.
LOST = """
import os
import torch
from kvg.errors import EngineError
from kvg.inference.rollout_engine import BuiltInEngine
from kvg.rewards.base import Reward

class Engine(BuiltInEngine):
    def __init__(self, after: int, rank: str = "0") -> None:
        super().__init__()
        self.left, self.rank = after, rank

    def sample(self, *given):
        self.left -= 1
        if self.left < 0 and os.environ.get("LOCAL_RANK", "0") == self.rank and not os.path.exists("quiet"):
            raise EngineError("http://127.0.0.1:1/v1", "the server is lost; start it again")
        return super().sample(*given)

class Letters(Reward):
    def __call__(self, answers, samples):
        return torch.tensor([float(sum(map(ord, answer.completion.text)) % 97) for answer in answers])
"""


def lose(runs, after, rank, *more):
    """A run that loses its engine, and what it printed."""
    own = runs("grpo", *GRPO, *more)
    (own.folder / "lost.py").write_text(LOST)
    own.words += [f"--model.engine={{class_path: lost.Engine, init_args: {{after: {after}, rank: '{rank}'}}}}"]
    own.words += ["--model.reward.init_args.parts={letters: {class_path: lost.Letters}}"]
    process = own.start("run")
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 2, said
    assert "http://127.0.0.1:1/v1: the server is lost; start it again" in said
    assert "Traceback" not in said
    assert not (own.folder / "run/export").exists()
    return own, said


def curves(own, out):
    """The learning rate is logged before a batch is sampled, hence twice for the one that was lost."""
    return {name: list(dict.fromkeys(points)) for name, points in own.curves(out).items()}


@pytest.mark.parametrize(
    ("more", "rank", "after"),
    [
        ((), 0, 3),  # the last batch of an epoch of four
        pytest.param((), 0, 2, marks=pytest.mark.slow),  # after a validation
        pytest.param((), 0, 4, marks=pytest.mark.slow),  # after a validation, the first batch of an epoch
        pytest.param(DDP, 1, 1, marks=pytest.mark.slow),
    ],
)
def test_it_continues_with_the_same_batch(runs, more, rank, after):
    own, said = lose(runs, after, rank, *more)
    assert f"kvg: saved after step {after} in run/interrupted-step{after}.ckpt" in said
    own.go_on(said)
    (own.folder / "quiet").touch()
    whole = own.start("whole")
    output = whole.communicate(timeout=240)[0]
    assert whole.returncode == 0, output
    assert curves(own, "run") == curves(own, "whole")
    weights = "export/model.safetensors"
    assert (own.folder / "run" / weights).read_bytes() == (own.folder / "whole" / weights).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("more", [OVERLAP, (*OVERLAP, *DDP)])
def test_what_could_not_be_sampled_ahead_is_sampled_when_the_run_goes_on(runs, more):
    """The third batch is lost beside the second update, which is saved; it is then sampled from newer weights."""
    own, said = lose(runs, 2, int(DDP[-1] in more), *more)
    assert "kvg: saved after step 2 in run/interrupted-step2.ckpt" in said
    own.go_on(said)
    num = 2 if DDP[-1] in more else 4  # batches of an epoch
    lags = [0.0 if number % num == 0 or number == 2 else 1.0 for number in range(2 * num)]
    assert [value for _, value in own.curves("run")["train/policy_lag"]] == lags


@pytest.mark.slow
def test_nothing_is_saved_before_the_first_step(runs):
    own, said = lose(runs, 0, 0)
    assert "to go on" not in said
    assert not list((own.folder / "run").glob("*.ckpt"))
