"""The policy loss on 2 x 2 numbers worked by hand, its gradients, and what padding must not do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kvg.losses.policy import grpo_loss, k3_divergence

# Probabilities of two completions of two tokens; the second has one token, the rest of its row is padding.
OLD = torch.tensor([[0.5, 0.4], [0.2, 0.9]]).log()
NEW = torch.tensor([[0.6, 0.2], [0.3, 0.1]]).log()  # ratios 1.2, 0.5 | 1.5, -
REF = torch.tensor([[0.6, 0.4], [0.6, 0.7]]).log()  # ref / new 1, 2 | 2, -
ADVANTAGES = torch.tensor([1.0, -2.0])
MASK = torch.tensor([[True, True], [True, False]])
K3 = 2 - math.log(2) - 1  # ratio 2: e^d - d - 1 with d = ln 2


def loss_of(new: Tensor = NEW, ref: Tensor | None = REF, **settings: object) -> tuple[Tensor, dict[str, Tensor]]:
    return grpo_loss(new, OLD, ref, ADVANTAGES, MASK, **settings)  # type: ignore[arg-type]


def test_k3_by_hand() -> None:
    found = k3_divergence(torch.tensor([0.5, 0.25, 0.8]).log(), torch.tensor([0.5, 0.5, 0.4]).log())
    # ratio 1: 0; ratio 2: 2 - ln 2 - 1; ratio 1/2: 0.5 + ln 2 - 1
    torch.testing.assert_close(found, torch.tensor([0.0, K3, 0.5 + math.log(2) - 1]))


def test_sequence_normalisation_by_hand() -> None:
    # row 1, A = 1, clip 0.1: min(1.2, 1.1) = 1.1; min(0.5, 0.9) = 0.5; mean 0.8
    # row 2, A = -2: min(-3.0, -2.2) = -3.0
    # policy loss: -(0.8 - 3.0) / 2 = 1.1; KL: (0 + K3) / 2 = K3/2 and K3; mean 0.75 K3
    loss, stats = loss_of(clip_eps=0.1, beta=0.04)
    assert loss.item() == pytest.approx(1.1 + 0.04 * 0.75 * K3)
    assert stats["policy_loss"].item() == pytest.approx(1.1)
    assert stats["kl"].item() == pytest.approx(2 / 3 * K3)  # per token: 0, K3, K3
    assert stats["ratio"].item() == pytest.approx((1.2 + 0.5 + 1.5) / 3)
    assert stats["clip_fraction"].item() == pytest.approx(1 / 3)  # only the first token gains from moving further


def test_token_normalisation_by_hand() -> None:
    # -(1.1 + 0.5 - 3.0) / 3, and KL 2 K3 / 3
    loss, _ = loss_of(clip_eps=0.1, beta=0.02, normalise="token")
    assert loss.item() == pytest.approx(1.4 / 3 + 0.02 * 2 / 3 * K3)


def test_upper_clip_of_its_own() -> None:
    # row 1: min(1.2, 1.15) = 1.15 and 0.5: mean 0.825; row 2: -3.0
    loss, _ = loss_of(clip_eps=0.1, clip_eps_high=0.15, beta=0.0)
    assert loss.item() == pytest.approx(-(0.825 - 3.0) / 2)


def test_gradient_by_hand() -> None:
    # d loss / d logprob = -ratio * A / T / N where not clipped, 0 where clipped
    new = NEW.clone().requires_grad_()
    loss_of(new, clip_eps=0.1, beta=0.0)[0].backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor([[0.0, -0.5 / 4], [3.0 / 2, 0.0]]))


def test_one_update_per_batch_is_plain_policy_gradient() -> None:
    new = NEW.clone().requires_grad_()
    loss, stats = grpo_loss(new, new.detach(), None, ADVANTAGES, MASK, beta=0.0)
    loss.backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor([[-0.25, -0.25], [1.0, 0.0]]))
    assert loss.item() == pytest.approx(0.5)  # -(1 - 2) / 2
    assert (stats["ratio"].item(), stats["clip_fraction"].item()) == (1.0, 0.0)


def test_gradient_of_the_penalty_by_hand() -> None:
    # d k3 / d logprob = 1 - ref / new: 0, -1 | -1; times beta / T / N
    new = NEW.clone().requires_grad_()
    grpo_loss(new, new.detach(), REF, torch.zeros(2), MASK, beta=0.4)[0].backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor([[0.0, -0.1], [-0.2, 0.0]]))


@pytest.mark.parametrize("normalise", ["sequence", "token"])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_padding_is_never_read(normalise: str, garbage: float) -> None:
    def spoilt(values: Tensor) -> Tensor:
        return torch.where(MASK, values, torch.full_like(values, garbage))

    clean, dirty = NEW.clone().requires_grad_(), spoilt(NEW).requires_grad_()
    expected, _ = loss_of(clean, normalise=normalise)
    found, stats = grpo_loss(dirty, spoilt(OLD), spoilt(REF), ADVANTAGES, MASK, normalise=normalise)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    assert all(torch.isfinite(value) for value in stats.values())
    expected.backward()
    found.backward()
    torch.testing.assert_close(dirty.grad, clean.grad)


def test_extreme_ratios_stay_finite() -> None:
    new = torch.tensor([[-200.0, -1e-6]]).requires_grad_()
    far = torch.tensor([[-1e-6, -200.0]])
    loss, stats = grpo_loss(new, far, far, torch.tensor([-1.0]), torch.tensor([[True, True]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(stats["kl"])
    assert new.grad is not None
    assert torch.isfinite(new.grad).all()


def test_a_row_without_tokens_adds_nothing_and_breaks_nothing() -> None:
    loss, _ = grpo_loss(NEW, OLD, REF, ADVANTAGES, torch.tensor([[True, True], [False, False]]), clip_eps=0.1, beta=0.0)
    assert loss.item() == pytest.approx(-0.8 / 2)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="beta > 0 needs ref_logprobs"):
        loss_of(ref=None)
    with pytest.raises(ValueError, match="sequence or token"):
        loss_of(normalise="batch")
    with pytest.raises(ValueError, match="old_logprobs"):
        grpo_loss(NEW, OLD[:, :1], None, ADVANTAGES, MASK, beta=0.0)
    with pytest.raises(ValueError, match="one for each of 2 rows"):
        grpo_loss(NEW, OLD, None, ADVANTAGES[:1], MASK, beta=0.0)
    with pytest.raises(TypeError, match="True = counts"):
        grpo_loss(NEW, OLD, None, ADVANTAGES, MASK.long(), beta=0.0)
