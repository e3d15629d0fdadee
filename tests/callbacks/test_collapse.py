"""The guard against collapse, told made-up metrics by a real Trainer."""

from __future__ import annotations

import warnings

import lightning as L
import pytest
import torch

from callbacks import CollapseGuard
from kvg.errors import ConfigError, TrainingError

FINE = {"completion_length": 100.0, "entropy": 0.1, "reward_std_in_group": 0.3, "unparsed": 0.0}


class Told(L.LightningModule):
    """Logs what it is told, step by step."""

    def __init__(self, steps):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.steps = steps

    def training_step(self, batch, batch_idx):
        for name, value in self.steps[batch_idx].items():
            self.log(f"train/{name}", value)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def run(guard, steps):
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[guard], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Told(steps), torch.utils.data.DataLoader(torch.zeros(len(steps), 1)))
    return trainer


def warned(guard, steps):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(guard, steps)
    return [str(w.message) for w in caught if str(w.message).startswith("step ")]


def test_a_healthy_run_is_left_alone():
    assert warned(CollapseGuard(steps=2, stop=True), [FINE] * 6) == []


@pytest.mark.parametrize(
    ("name", "bad", "text"),
    [
        ("completion_length", 40.0, "completions shrank from 100 to 40 tokens over 2 steps"),
        ("entropy", 0.001, "entropy is 0.0010 nats"),
        ("reward_std_in_group", 0.0, "rewards differ by 0.0000"),
        ("unparsed", 0.9, "90% of the answers hold no box"),
    ],
)
def test_each_sign_is_told_once(name, bad, text):
    (message,) = warned(CollapseGuard(steps=2), [FINE] * 2 + [{**FINE, name: bad}] * 4)
    assert text in message


def test_a_single_bad_step_is_no_sign():
    steps = [FINE] * 3 + [{**FINE, "unparsed": 0.9}] + [FINE] * 3
    assert warned(CollapseGuard(steps=2), steps) == []  # a mean of 0.45


def test_it_stops_on_request():
    with pytest.raises(TrainingError, match=r"no box over 2 steps; callbacks\.CollapseGuard stops"):
        run(CollapseGuard(steps=2, stop=True), [{**FINE, "unparsed": 1.0}] * 3)


def test_the_signs_are_logged():
    trainer = run(CollapseGuard(steps=1), [FINE, {**FINE, "unparsed": 1.0, "entropy": 0.0}])
    assert trainer.callback_metrics["train/collapse_signs"] == 2


def test_a_resumed_run_knows_its_first_length():
    guard = CollapseGuard(steps=2)
    run(guard, [FINE] * 2)
    again = CollapseGuard(steps=2)
    again.load_state_dict(guard.state_dict())
    (message,) = warned(again, [{**FINE, "completion_length": 30.0}] * 2)
    assert "from 100" in message


def test_impossible_steps():
    with pytest.raises(ConfigError, match="steps"):
        CollapseGuard(steps=0)


def test_rewards_that_are_alike_are_explained_by_the_numbers_at_hand():
    bad = {"reward_std_in_group": 0.0, "equal_groups": 1.0, "truncated": 0.9, "reward/total": 0.0, "reward/format": 0.0}
    (text,) = warned(CollapseGuard(steps=2, max_unparsed=1.0), [{**FINE, **bad, "unparsed": 0.6}] * 3)
    assert "nothing was learnt over 2 steps: mean reward 0.00, 100% of the groups have equal rewards" in text
    for cause in ("90% of the answers are truncated", "60% of the answers hold no box", "the format reward is 0.00"):
        assert cause in text
