"""Group advantages by hand, and the cases that would otherwise divide by zero."""

from __future__ import annotations

import math

import pytest
import torch

from kvg.rl.advantage import group_advantage


def test_group_std_by_hand() -> None:
    # mean 0.25; deviations .75, -.25, -.25, -.25; variance (.5625 + 3 * .0625) / 3 = .25; std .5
    assert group_advantage(torch.tensor([1.0, 0, 0, 0]), 4, eps=0.0).tolist() == [1.5, -0.5, -0.5, -0.5]


def test_two_groups_do_not_mix() -> None:
    # group 1: mean 1, std sqrt(2): +-1/sqrt(2). group 2: mean 10, deviations +-2, std sqrt(8): the same
    found = group_advantage(torch.tensor([0.0, 2.0, 8.0, 12.0]), 2, eps=0.0)
    root = 1 / math.sqrt(2)
    torch.testing.assert_close(found, torch.tensor([-root, root, -root, root]))


def test_none_and_batch_std_by_hand() -> None:
    rewards = torch.tensor([0.0, 2.0, 4.0, 10.0])
    assert group_advantage(rewards, 2, "none").tolist() == [-1.0, 1.0, -3.0, 3.0]
    # all four: mean 4, squares 16 + 4 + 0 + 36 = 56, variance 56 / 3
    std = math.sqrt(56 / 3)
    expected = torch.tensor([-1.0, 1.0, -3.0, 3.0]) / (std + 0.5)
    torch.testing.assert_close(group_advantage(rewards, 2, "batch_std", eps=0.5), expected)


def test_group_std_cancels_the_scale_of_a_reward_and_the_others_do_not() -> None:
    low, high = torch.tensor([0.65, 0.0, 0.0, 0.0]), torch.tensor([1.4, 0.0, 0.0, 0.0])
    torch.testing.assert_close(group_advantage(low, 4, eps=0.0), group_advantage(high, 4, eps=0.0))
    assert group_advantage(low, 4, "none")[0] < group_advantage(high, 4, "none")[0]


@pytest.mark.parametrize("normalise", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 0.9, 1e6])
def test_tied_groups_teach_nothing(normalise: str, value: float) -> None:
    rewards = torch.tensor([value] * 7 + [0.0, 1.0, 0.0, 0.0, 0.5, 0.5, 0.5])
    found = group_advantage(rewards, 7, normalise, eps=0.0)  # type: ignore[arg-type]
    assert found[:7].tolist() == [0.0] * 7
    assert found[7:].abs().min() > 0
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("normalise", ["group_std", "batch_std", "none"])
def test_a_single_rollout_has_no_advantage(normalise: str) -> None:
    assert group_advantage(torch.tensor([0.3]), 1, normalise).tolist() == [0.0]  # type: ignore[arg-type]
    assert group_advantage(torch.tensor([0.3, 0.9]), 1, normalise).tolist() == [0.0, 0.0]  # type: ignore[arg-type]


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of groups of 4"):
        group_advantage(torch.zeros(6), 4)
    with pytest.raises(ValueError, match="NaN"):
        group_advantage(torch.tensor([1.0, float("nan")]), 2)
    with pytest.raises(ValueError, match="group_std, batch_std or none"):
        group_advantage(torch.zeros(2), 2, "std")  # type: ignore[arg-type]
