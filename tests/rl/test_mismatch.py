"""The gap between engine and policy: its figures and weights by hand, TRL's formula, and a gradient that is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kvg.errors import ConfigError
from kvg.losses.family import GRPOLoss
from kvg.rl.mismatch import MODES, MismatchCorrection

# Two completions, of three tokens and of two. Ratios of policy and engine 2, 1/2, 3 | 1, 1/4.
ENGINE = torch.tensor([[0.2, 0.4, 0.1], [0.5, 0.8, 0.9]]).log()
POLICY = torch.tensor([[0.4, 0.2, 0.3], [0.5, 0.2, 0.1]]).log()
MASK = torch.tensor([[True, True, True], [True, True, False]])
LN2, LN3 = math.log(2), math.log(3)
# Products 3 and 1/4; means 3^(1/3) = 1.442 and 1/2.
WEIGHTS = {
    "token_truncate": [[2.0, 0.5, 2.5], [1.0, 0.25, 0.0]],
    "token_mask": [[2.0, 0.5, 0.0], [1.0, 0.25, 0.0]],
    "sequence_truncate": [[2.5, 2.5, 2.5], [0.25, 0.25, 0.0]],
    "sequence_mask": [[0.0, 0.0, 0.0], [0.25, 0.25, 0.0]],
    "geometric_mask": [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]],
}


@pytest.mark.parametrize("mode", WEIGHTS)
def test_weights_by_hand(mode: Any) -> None:
    weights = MismatchCorrection(mode, cap=2.5).weights(POLICY, ENGINE, MASK)
    torch.testing.assert_close(weights, torch.tensor(WEIGHTS[mode]))


def test_a_mean_is_refused_on_either_side() -> None:
    weights = MismatchCorrection("geometric_mask", cap=1.5).weights(POLICY, ENGINE, MASK)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))  # 1/2 is below 1/1.5


def test_no_correction() -> None:
    assert MismatchCorrection("none").weights(POLICY, ENGINE, MASK) is None


@pytest.mark.parametrize(("veto", "kept"), [(0.3, [1.0, 0.0]), (0.2, [1.0, 1.0]), (0.6, [0.0, 0.0])])
def test_one_token_vetoes_its_completion(veto: float, kept: list[float]) -> None:
    weights = MismatchCorrection("none", veto=veto).weights(POLICY, ENGINE, MASK)
    torch.testing.assert_close(weights, torch.tensor(kept)[:, None] * MASK)


def test_figures_of_tokens_by_hand() -> None:
    figures = MismatchCorrection("token_truncate", cap=2.5).figures(POLICY, ENGINE, MASK)
    # log ratios ln 2, -ln 2, ln 3, 0, -2 ln 2; the ratios' sum is 6.75, that of their squares 14.3125
    assert figures["kl"].item() == pytest.approx((2 * LN2 - LN3) / 5)
    assert figures["kl_k3"].item() == pytest.approx((6.75 - 5 - (LN3 - 2 * LN2)) / 5)
    assert figures["ratio_max"].item() == pytest.approx(3.0)
    assert figures["ess"].item() == pytest.approx(6.75**2 / (5 * 14.3125))
    assert figures["beyond_cap"].item() == pytest.approx(1 / 5)


def test_figures_of_completions_by_hand() -> None:
    figures = MismatchCorrection("sequence_mask", cap=2.5).figures(POLICY, ENGINE, MASK)
    assert figures["kl"].item() == pytest.approx((2 * LN2 - LN3) / 5)  # per token, whatever the mode
    assert figures["ratio_max"].item() == pytest.approx(3.0)
    assert figures["ess"].item() == pytest.approx(3.25**2 / (2 * (9 + 1 / 16)))
    assert figures["beyond_cap"].item() == pytest.approx(1 / 2)
    means = MismatchCorrection("geometric_mask", cap=1.43).figures(POLICY, ENGINE, MASK)
    assert means["ratio_max"].item() == pytest.approx(3 ** (1 / 3))
    assert means["beyond_cap"].item() == 1.0


@pytest.mark.parametrize("mode", MODES)
def test_equal_distributions_have_no_gap(mode: Any) -> None:
    correction = MismatchCorrection(mode)
    figures = correction.figures(POLICY, POLICY, MASK)
    assert {name: value.item() for name, value in figures.items()} == pytest.approx(
        {"kl": 0.0, "kl_k3": 0.0, "ratio_max": 1.0, "ess": 1.0, "beyond_cap": 0.0}
    )
    weights = correction.weights(POLICY, POLICY, MASK)
    assert weights is None if mode == "none" else torch.equal(weights, MASK.float())


@pytest.mark.parametrize("mode", MODES)
def test_padding_is_never_read(mode: Any) -> None:
    spoilt = [torch.where(MASK, x, torch.tensor(value)) for x, value in ((POLICY, math.nan), (ENGINE, -math.inf))]
    correction = MismatchCorrection(mode, veto=0.1)
    torch.testing.assert_close(correction.weights(*spoilt, MASK), correction.weights(POLICY, ENGINE, MASK))
    for name, value in correction.figures(*spoilt, MASK).items():
        assert value == correction.figures(POLICY, ENGINE, MASK)[name]


def test_extreme_ratios_are_finite() -> None:
    far = torch.full((1, 500), -90.0)
    for mode in MODES:
        for pair in ((far, far + 80), (far + 80, far)):
            correction = MismatchCorrection(mode, veto=1e-4)
            mask = torch.ones(1, 500, dtype=torch.bool)
            assert torch.isfinite(correction.weights(*pair, mask)).all()
            assert all(torch.isfinite(value) for value in correction.figures(*pair, mask).values())


@pytest.mark.parametrize(
    ("settings", "field"), [({"cap": 1.0}, "cap"), ({"veto": 1.0}, "veto"), ({"mode": "token"}, "mode")]
)
def test_settings_are_checked(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.mismatch\.{field}"):
        MismatchCorrection(**settings)


# -- the loss ----------------------------------------------------------------------------------------------------------
def test_weights_multiply_the_surrogate_alone() -> None:
    # Ratio 1 before the first update; surrogate A = 1 | -2, weights as in token_mask above, KL of reference 2 ln 2 - 1.
    # -( (2 + 0.5 + 0) / 3 + -2 * (1 + 0.25) / 2 ) / 2 = (1.25 - 2.5 / 3) / 2; K3 is the mean of every token
    weights = MismatchCorrection("token_mask", cap=2.5).weights(POLICY, ENGINE, MASK)
    reference, advantages = POLICY + LN2, torch.tensor([1.0, -2.0])
    loss, stats = GRPOLoss(beta=0.1)(POLICY, POLICY, reference, advantages, MASK, weights=weights)
    assert stats["policy_loss"].item() == pytest.approx((1.25 - 2.5 / 3) / 2)
    assert loss.item() == pytest.approx((1.25 - 2.5 / 3) / 2 + 0.1 * (1 - LN2))


def test_weights_have_the_shape_of_the_tokens() -> None:
    with pytest.raises(ValueError, match="weights is"):
        GRPOLoss(beta=0)(POLICY, POLICY, None, torch.ones(2), MASK, weights=torch.ones(2, 1))


OWN = torch.tensor([[0.5, 0.0, -0.5], [0.0, 0.3, -0.3]], dtype=torch.float64)  # logits of two tokens out of three
NOISY = OWN + torch.tensor([[-0.6, 0.4, 0.1], [0.5, -0.7, 0.2]], dtype=torch.float64)
REWARDS = torch.tensor([1.0, 0.0, 0.5, 0.2, 0.9, 0.0, 0.3, 0.0, 1.0], dtype=torch.float64)


def expected_gradient(engine: Tensor, correction: MismatchCorrection, num_tokens: int = 2) -> Tensor:
    """Gradient at the policy's logits, summed over all completions, each as often as the engine samples it."""
    logits = OWN[:num_tokens].clone().requires_grad_()
    rows = torch.cartesian_prod(*[torch.arange(3)] * num_tokens).view(-1, num_tokens)
    policy, sampler = (
        torch.stack([x.log_softmax(-1)[place, rows[:, place]] for place in range(num_tokens)], 1)
        for x in (logits, engine[:num_tokens])
    )
    share, rewards = sampler.sum(1).exp(), REWARDS[: len(rows)]
    advantages = rewards - (share * rewards).sum()  # as of an endless group
    weights = correction.weights(policy.detach(), sampler, torch.ones_like(rows, dtype=torch.bool))
    surrogate = policy if weights is None else policy * weights
    (share * advantages * surrogate.sum(1)).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return logits.grad


def bias(mode: Any, cap: float = 100.0, num_tokens: int = 2) -> float:
    """Distance from the gradient of a sampler that is the policy itself, as a share of its length."""
    exact = expected_gradient(OWN, MismatchCorrection("none"), num_tokens)
    return float((expected_gradient(NOISY, MismatchCorrection(mode, cap), num_tokens) - exact).norm() / exact.norm())


def test_the_gradient_of_a_perturbed_sampler_is_biased_and_corrected() -> None:
    assert bias("none") > 1
    assert bias("sequence_truncate") == pytest.approx(0.0, abs=1e-12)  # the whole ratio is unbiased
    assert bias("sequence_mask") == pytest.approx(0.0, abs=1e-12)
    assert 0 < bias("sequence_truncate", cap=2.0) < bias("none") / 3  # what the cap leaves
    assert bias("sequence_truncate", cap=2.0) < bias("sequence_mask", cap=2.0) < bias("none")
    # The ratio of a token does not tell how the engine changed the odds of the others.
    assert bias("token_truncate") > 1


def test_a_single_token_is_its_completion() -> None:
    assert bias("none", num_tokens=1) > 0.1
    for mode in ("token_truncate", "token_mask"):
        assert bias(mode, num_tokens=1) == pytest.approx(0.0, abs=1e-12)


# -- TRL ---------------------------------------------------------------------------------------------------------------
@pytest.mark.peer
@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_weights_are_those_of_trl(mode: Any) -> None:
    """TRL's own lines, cut out of its trainer and run on the same tensors, as they are no function of their own."""
    trainer = pytest.importorskip("trl.trainer.grpo_trainer")
    torch.manual_seed(0)
    policy, mask = -3 * torch.rand(16, 9), torch.arange(9) < torch.randint(1, 10, (16, 1))
    engine = policy + 0.5 * torch.randn(16, 9)
    ours = MismatchCorrection(mode, cap=1.3).weights(policy, engine, mask)
    theirs = trl_ratios(trainer, mode, 1.3, policy, engine, mask.long())
    torch.testing.assert_close(ours, theirs.expand_as(policy) * mask)
    assert 0 < (theirs == (0.0 if mode.endswith("mask") else 1.3)).float().mean() < 1  # the cap was met


def trl_ratios(trainer: Any, mode: str, cap: float, policy: Tensor, engine: Tensor, mask: Tensor) -> Tensor:
    import inspect
    import textwrap
    from types import SimpleNamespace

    lines = inspect.getsource(trainer.GRPOTrainer._generate_and_score_completions).splitlines()
    start = next(n for n, line in enumerate(lines) if "per_token_logps_diff = (old" in line) - 1
    depth = len(lines[start]) - len(lines[start].lstrip())
    stop = next(
        n for n in range(start, len(lines)) if lines[n].strip() and len(lines[n]) - len(lines[n].lstrip()) < depth
    )
    own = SimpleNamespace(
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_cap=cap,
        vllm_importance_sampling_clip_max=cap,
        vllm_importance_sampling_clip_min=None,
    )
    names: dict[str, Any] = {
        "self": own, "torch": torch, "math": math, "tool_mask": None, "completion_mask": mask,
        "old_per_token_logps": policy, "sampling_per_token_logps": engine,
    }  # fmt: skip
    exec(textwrap.dedent("\n".join(lines[start:stop])), names)
    return names["vllm_importance_sampling_ratio"]
