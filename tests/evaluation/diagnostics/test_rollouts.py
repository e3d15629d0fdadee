"""Rewards that are stuck or rise without better boxes, on rollouts made by hand."""

from __future__ import annotations

import json

import pytest

from kvg.evaluation.diagnostics.rollouts import rollout_figures
from kvg.formats.rollout_files import RolloutRecord

RIGHT, WRONG = (100.0, 100.0, 400.0, 400.0), (600.0, 600.0, 900.0, 900.0)


def rollout(step, number, box=RIGHT, overlap=1.0, form=1.0, **fields):
    """The ``number``-th rollout of a step, four to a prompt."""
    prompt, sample = divmod(number, 4)
    known = {
        "step": step, "optimizer_step": 2 * step, "rank": 0, "prompt": prompt, "sample": sample,
        "key": f"s{step}p{prompt}", "entity": "Merlin", "category": "bird", "split": "seen", "image": f"i{prompt}",
        "width": 140, "height": 140, "target": RIGHT, "text": f"text {number}", "box": box, "finish_reason": "stop",
        "num_tokens": 10, "entropy": 0.5, "parts": {"iou": overlap, "format": form}, "reward": overlap + form,
        "advantage": 0.0,
    }  # fmt: skip
    return RolloutRecord(**{**known, **fields})


def run(make, steps=6, num=40):
    return [make(step, number) for step in range(steps) for number in range(num)]


def found(records):
    return rollout_figures(records, seed=0)


def test_figures_of_a_step_by_hand():
    half = (100.0, 100.0, 400.0, 250.0)  # the upper half of the true box
    group = [rollout(3, 0), rollout(3, 1, WRONG, 0.0), rollout(3, 2, None, 0.0, 0.0), rollout(3, 3, half, 0.5)]
    other = rollout(3, 4, finish_reason="length", num_tokens=30, entropy=1.0, text="text 0")
    (step,) = found([*group, other])["steps"]
    assert (step["step"], step["n"], step["reward"]) == (3, 5, pytest.approx((2 + 1 + 0 + 1.5 + 2) / 5))
    assert step["parts"] == {"iou": pytest.approx(2.5 / 5), "format": pytest.approx(4 / 5)}
    # Of rewards 2, 1, 0, 1.5 the variance is (2.1875 / 3); the second group has a single rollout.
    assert step["spread"] == pytest.approx((2.1875 / 3) ** 0.5 / 2)
    assert (step["iou"], step["correct"]) == (pytest.approx(2.5 / 5), pytest.approx(3 / 5))
    assert (step["unparsed"], step["truncated"]) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (step["tokens"], step["entropy"]) == (pytest.approx(14), pytest.approx(0.6))
    assert step["distinct"] == pytest.approx(4 / 5)


def test_a_run_that_learns_has_no_sign():
    def make(step, number):
        good = number % 10 < 3 + step
        return rollout(step, number, RIGHT if good else (600.0, 600.0, 900.0, 900.0 - number), float(good), number % 2)

    figures = found(run(make))
    assert set(figures["verdicts"].values()) == {"no sign"}
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize(
    ("value", "early", "verdict"),
    [
        (0.0, 0.0, "sign: it is stuck: 0 in 98% of the last 80 rollouts; it gives no gradient"),
        (1.0, 0.0, "not measurable: 1 in 98% of the last 80 rollouts, its highest value, so that nothing is left to "
                   "learn from it"),
    ],
)  # fmt: skip
def test_a_component_that_is_stuck_and_one_that_is_learnt(value, early, verdict):
    def make(step, number):
        other = step < 4 and number < 10
        return rollout(step, number, form=early if other else 0.5 if number == 39 else value)

    assert found(run(make))["verdicts"]["reward component format"] == verdict


def test_a_reward_that_rises_without_better_boxes():
    """The format is learnt, and the boxes are right in 3 of 10 answers from beginning to end."""

    def make(step, number):
        good = number % 10 < 3
        form = float(number % 10 < 2 * step)
        return rollout(step, number, RIGHT if good else (600.0, 600.0, 900.0, 900.0 - number), float(good), form)

    text = found(run(make))["verdicts"]["reward and IoU"]
    assert text.startswith("sign: the reward rose by 0.")
    assert "the IoU of the boxes did not: +0.000 (" in text


def test_answers_that_are_all_the_same_or_have_no_box():
    def make(step, number):
        return rollout(step, number, WRONG, target=(0.0, 0.0, 100.0, 100.0 + number // 4))

    assert found(run(make))["verdicts"]["answers"] == (
        "sign: 100% of the last 80 rollouts have the same box (600, 600, 900, 900)"
    )
    none = found(run(lambda step, n: rollout(step, n, None if n % 4 else RIGHT)))
    assert none["verdicts"]["answers"] == "sign: 75% of the last 80 rollouts have no box"


def test_few_rollouts_have_no_verdict():
    verdicts = found([rollout(0, 0)])["verdicts"]
    assert all(text.startswith("not measurable: ") for text in verdicts.values())
