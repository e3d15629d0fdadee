"""The policy losses on 2 x 2 numbers worked by hand, their gradients, and what padding must not do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kvg.errors import ConfigError
from kvg.losses.family import BNPOLoss, CISPOLoss, DAPOLoss, DrGRPOLoss, GRPOLoss, GSPOLoss
from kvg.losses.policy import Counts, PolicyLoss, k1_divergence, k2_divergence, k3_divergence

# Probabilities of two completions of two tokens; the second has one token, the rest of its row is padding.
OLD = torch.tensor([[0.5, 0.4], [0.2, 0.9]]).log()
NEW = torch.tensor([[0.6, 0.2], [0.3, 0.1]]).log()  # ratios 1.2, 0.5 | 1.5, -
REF = torch.tensor([[0.6, 0.4], [0.6, 0.7]]).log()  # ref / new 1, 2 | 2, -
ADVANTAGES = torch.tensor([1.0, -2.0])
MASK = torch.tensor([[True, True], [True, False]])
K3 = 2 - math.log(2) - 1  # ratio 2: e^d - d - 1 with d = ln 2
FAMILY = [GRPOLoss, BNPOLoss, DAPOLoss, lambda **s: DrGRPOLoss(4, **s), GSPOLoss, CISPOLoss]


def loss_of(
    loss: PolicyLoss, new: Tensor = NEW, ref: Tensor | None = REF, **more: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    return loss(new, OLD, ref, ADVANTAGES, MASK, **more)


def gradient_of(loss: PolicyLoss, **more: Any) -> Tensor:
    new = NEW.clone().requires_grad_()
    loss_of(loss, new, **more)[0].backward()
    assert new.grad is not None
    return new.grad


def test_divergences_by_hand() -> None:
    policy, reference = torch.tensor([0.5, 0.25, 0.8]).log(), torch.tensor([0.5, 0.5, 0.4]).log()
    # ratios of reference and policy 1, 2, 1/2
    torch.testing.assert_close(k1_divergence(policy, reference), torch.tensor([0.0, -math.log(2), math.log(2)]))
    half = math.log(2) ** 2 / 2
    torch.testing.assert_close(k2_divergence(policy, reference), torch.tensor([0.0, half, half]))
    torch.testing.assert_close(k3_divergence(policy, reference), torch.tensor([0.0, K3, 0.5 + math.log(2) - 1]))


def test_grpo_by_hand() -> None:
    # row 1, A = 1, clip 0.1: min(1.2, 1.1) = 1.1; min(0.5, 0.9) = 0.5; mean 0.8
    # row 2, A = -2: min(-3.0, -2.2) = -3.0
    # policy loss: -(0.8 - 3.0) / 2 = 1.1; KL: (0 + K3) / 2 = K3/2 and K3; mean 0.75 K3
    loss, stats = loss_of(GRPOLoss(0.1, beta=0.04))
    assert loss.item() == pytest.approx(1.1 + 0.04 * 0.75 * K3)
    assert stats["policy_loss"].item() == pytest.approx(1.1)
    assert stats["kl"].item() == pytest.approx(2 / 3 * K3)  # per token: 0, K3, K3
    assert stats["ratio"].item() == pytest.approx((1.2 + 0.5 + 1.5) / 3)
    assert stats["clip_fraction"].item() == pytest.approx(1 / 3)  # only the first token gains from moving further


def test_bnpo_by_hand() -> None:
    # -(1.1 + 0.5 - 3.0) / 3, and KL 2 K3 / 3
    assert loss_of(BNPOLoss(0.1, beta=0.02))[0].item() == pytest.approx(1.4 / 3 + 0.02 * 2 / 3 * K3)


def test_dapo_by_hand() -> None:
    # clip 0.1 down, 0.15 up: -(1.15 + 0.5 - 3.0), over the 4.5 tokens that the processes have on average
    loss, _ = loss_of(DAPOLoss(0.1, 0.15), ref=None, counts=Counts(rows=2, tokens=3.0, mean_tokens=4.5))
    assert loss.item() == pytest.approx(1.35 / 4.5)


def test_dr_grpo_by_hand() -> None:
    # the sum of 1.4 over 2 completions of at most 10 tokens
    assert loss_of(DrGRPOLoss(10, 0.1), ref=None)[0].item() == pytest.approx(1.4 / 20)


def test_gspo_by_hand() -> None:
    # ratios sqrt(1.2 * 0.5) = 0.7746 and 1.5; A = 1: min(0.7746, 0.9) = 0.7746; A = -2: min(-3, -2.2) = -3
    s = math.sqrt(0.6)
    loss, stats = loss_of(GSPOLoss(0.1, 0.1), ref=None)
    assert loss.item() == pytest.approx((3 - s) / 2)
    assert stats["ratio"].item() == pytest.approx((2 * s + 1.5) / 3)
    # d s / d logprob = s / length: -1 * s / 2 for both tokens of row 1, 2 * 1.5 for the token of row 2; over 2 rows
    expected = torch.tensor([[-s / 4, -s / 4], [1.5, 0.0]])
    torch.testing.assert_close(gradient_of(GSPOLoss(0.1, 0.1), ref=None), expected)


def test_gspo_clips_a_completion_as_a_whole() -> None:
    # row 1 with A = 1 and ratio 0.7746 goes on; with A = -1 it is below 0.9 and stops, both tokens
    new = NEW.clone().requires_grad_()
    GSPOLoss(0.1, 0.1)(new, OLD, None, torch.tensor([-1.0, 1.0]), MASK)[0].backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.zeros(2, 2))


def test_cispo_by_hand() -> None:
    # weights min(1.2, 1.15), 0.5 and 1.15 without gradient, times A and log-probability; over 3 tokens
    weights = torch.tensor([[1.15, 0.5], [1.15, 0.0]])
    advantages = torch.tensor([[1.0], [-2.0]])
    loss, stats = loss_of(CISPOLoss(clip_high=0.15), ref=None)
    assert loss.item() == pytest.approx(float(-(weights * advantages * NEW).sum() / 3))
    assert stats["clip_fraction"].item() == 0
    torch.testing.assert_close(gradient_of(CISPOLoss(clip_high=0.15), ref=None), -weights * advantages / 3)


def test_upper_clip_of_its_own() -> None:
    # row 1: min(1.2, 1.15) = 1.15 and 0.5: mean 0.825; row 2: -3.0
    assert loss_of(GRPOLoss(0.1, 0.15, beta=0.0))[0].item() == pytest.approx(-(0.825 - 3.0) / 2)


def test_gradient_by_hand() -> None:
    # d loss / d logprob = -ratio * A / T / N where not clipped, 0 where clipped
    found = gradient_of(GRPOLoss(0.1, beta=0.0))
    torch.testing.assert_close(found, torch.tensor([[0.0, -0.5 / 4], [3.0 / 2, 0.0]]))


def test_one_update_per_batch_is_plain_policy_gradient() -> None:
    new = NEW.clone().requires_grad_()
    loss, stats = GRPOLoss(beta=0.0)(new, new.detach(), None, ADVANTAGES, MASK)
    loss.backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor([[-0.25, -0.25], [1.0, 0.0]]))
    assert loss.item() == pytest.approx(0.5)  # -(1 - 2) / 2
    assert (stats["ratio"].item(), stats["clip_fraction"].item()) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("kl", "slopes"),
    [("k1", (1.0, 1.0, 1.0)), ("k2", (0.0, -math.log(2), -math.log(2))), ("k3", (0.0, -1.0, -1.0))],
)
def test_gradient_of_the_penalty_by_hand(kl: Any, slopes: tuple[float, ...]) -> None:
    # d k1 / d logprob = 1; d k2 = log(new / ref); d k3 = 1 - ref / new: all times beta / T / N
    new = NEW.clone().requires_grad_()
    GRPOLoss(beta=0.4, kl=kl)(new, new.detach(), REF, torch.zeros(2), MASK)[0].backward()
    assert new.grad is not None
    expected = torch.tensor([[0.1 * slopes[0], 0.1 * slopes[1]], [0.2 * slopes[2], 0.0]])
    torch.testing.assert_close(new.grad, expected)


def test_entropy_is_paid_for() -> None:
    # means of 1.0, 3.0 and of 4.0: (2 + 4) / 2 = 3, times 0.1
    entropies = torch.tensor([[1.0, 3.0], [4.0, 99.0]], requires_grad=True)
    plain, _ = loss_of(GRPOLoss(beta=0.0))
    paid, _ = loss_of(GRPOLoss(beta=0.0, entropy=0.1), entropies=entropies)
    assert (plain - paid).item() == pytest.approx(0.3)
    paid.backward()
    assert entropies.grad is not None
    torch.testing.assert_close(entropies.grad, torch.tensor([[-0.025, -0.025], [-0.05, 0.0]]))


@pytest.mark.parametrize("kind", FAMILY)
def test_parts_add_up_to_the_whole(kind: Any) -> None:
    loss, counts = kind(beta=0.1), Counts.of(MASK)
    whole, _ = loss_of(loss)
    parts = [loss(NEW[r], OLD[r], REF[r], ADVANTAGES[r], MASK[r], counts=counts)[0] for r in (slice(0, 1), slice(1, 2))]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_padding_is_never_read(kind: Any, garbage: float) -> None:
    def spoilt(values: Tensor) -> Tensor:
        return torch.where(MASK, values, torch.full_like(values, garbage))

    loss = kind(beta=0.1)
    clean, dirty = NEW.clone().requires_grad_(), spoilt(NEW).requires_grad_()
    expected, _ = loss_of(loss, clean)
    found, stats = loss(dirty, spoilt(OLD), spoilt(REF), ADVANTAGES, MASK)
    torch.testing.assert_close(found, expected)
    assert all(torch.isfinite(value) for value in stats.values())
    expected.backward()
    found.backward()
    torch.testing.assert_close(dirty.grad, clean.grad)


@pytest.mark.parametrize("kind", FAMILY)
def test_extreme_ratios_stay_finite(kind: Any) -> None:
    new = torch.tensor([[-200.0, -1e-6]]).requires_grad_()
    far = torch.tensor([[-1e-6, -200.0]])
    loss, stats = kind(beta=0.1)(new, far, far, torch.tensor([-1.0]), torch.tensor([[True, True]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(stats["kl"])
    assert new.grad is not None
    assert torch.isfinite(new.grad).all()


@pytest.mark.parametrize("kind", FAMILY)
def test_rows_without_tokens_break_nothing(kind: Any) -> None:
    new = NEW.clone().requires_grad_()
    loss, _ = kind(beta=0.1)(new, OLD, REF, ADVANTAGES, torch.zeros_like(MASK))
    loss.backward()
    assert loss.item() == 0
    assert new.grad is not None
    assert (new.grad == 0).all()


def test_a_row_without_tokens_adds_nothing() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    loss, _ = GRPOLoss(0.1, beta=0.0)(NEW, OLD, REF, ADVANTAGES, mask)
    assert loss.item() == pytest.approx(-0.8 / 2)


def test_misuse_is_refused() -> None:
    loss = GRPOLoss(beta=0.0)
    with pytest.raises(ValueError, match="beta > 0 needs ref_logprobs"):
        loss_of(GRPOLoss(), ref=None)
    with pytest.raises(ValueError, match="needs entropies"):
        loss_of(GRPOLoss(entropy=0.1))
    with pytest.raises(ValueError, match="old_logprobs"):
        loss(NEW, OLD[:, :1], None, ADVANTAGES, MASK)
    with pytest.raises(ValueError, match="one for each of 2 rows"):
        loss(NEW, OLD, None, ADVANTAGES[:1], MASK)
    with pytest.raises(TypeError, match="True = counts"):
        loss(NEW, OLD, None, ADVANTAGES, MASK.long())
    for settings in ({"clip_low": 0.0}, {"clip_high": -0.1}, {"kl": "k4"}, {"beta": -1.0}, {"entropy": -1.0}):
        with pytest.raises(ConfigError, match="loss"):
            GRPOLoss(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_tokens"):
        DrGRPOLoss(0)
