"""Scores of tokens: those of a log-softmax over all logits, with its gradients, however few exist at a time."""

from __future__ import annotations

import pytest
import torch

from kvg.rl.logprobs import token_logprobs

TARGETS = torch.tensor([0, 4, 1, 2, 10, 3, 10])


def scored(chunk, entropy_gradient, trains=True, dtype=torch.float32):
    """Scores, entropies and gradients of weighted sums of them; all logits at once where ``chunk`` is None."""
    torch.manual_seed(0)
    weight, hidden = torch.randn(11, 8).requires_grad_(trains), torch.randn(7, 8, requires_grad=True)
    one, other = torch.randn(7), torch.randn(7)
    if chunk is None:
        logprobs = (hidden @ weight.T / 0.5).log_softmax(-1)
        scores, entropies = logprobs.gather(1, TARGETS[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)
    else:
        scores, entropies = token_logprobs(weight, hidden, TARGETS, 0.5, chunk, entropy_gradient)
    assert entropies.requires_grad == (entropy_gradient or chunk is None)
    loss = (scores * one).sum() + ((entropies * other).sum() if entropy_gradient else 0)
    loss.backward()
    return scores.detach(), entropies.detach(), hidden.grad, weight.grad


@pytest.mark.parametrize("entropy_gradient", [False, True])
@pytest.mark.parametrize("chunk", [1000, 7 * 11, 7 * 4, 1])  # all words, just all, parts of 4, 4 and 3, one by one
def test_they_are_those_of_a_log_softmax(chunk, entropy_gradient):
    expected = scored(None, entropy_gradient)
    for ours, theirs in zip(scored(chunk, entropy_gradient), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_by_hand():
    """Logits ln 1, ln 2, ln 5: probabilities 1/8, 1/4, 5/8; entropy 3/8 ln 8 + 2/8 ln 4 - ... in nats."""
    weight = torch.tensor([1.0, 2.0, 5.0]).log()[:, None]
    scores, entropy = token_logprobs(weight, torch.ones(2, 1), torch.tensor([1, 2]), chunk=2)
    torch.testing.assert_close(scores, torch.tensor([0.25, 0.625]).log())
    # ln 8 / 8 + ln 4 / 4 + 5/8 ln 1.6 = 0.2599 + 0.3466 + 0.2938
    torch.testing.assert_close(entropy, torch.tensor([0.9003, 0.9003]), atol=1e-4, rtol=0)


def test_a_frozen_head_gets_no_gradient():
    *_, hidden, weight = scored(7 * 4, False, trains=False)
    assert weight is None
    torch.testing.assert_close(hidden, scored(None, False)[2])


def test_logits_far_from_zero():
    """Sums of exponentials are kept from overflow as the highest logit rises from part to part."""
    weight = torch.tensor([[-500.0], [0.0], [300.0], [301.0]])
    scores, entropy = token_logprobs(weight, torch.ones(1, 1), torch.tensor([2]), chunk=1)
    assert scores.item() == pytest.approx(-1.3132617)  # -ln(1 + e)
    assert entropy.item() == pytest.approx(0.5822, abs=1e-4)  # of 0.2689 and 0.7311


def test_without_tokens():
    hidden = torch.zeros(0, 8, requires_grad=True)
    scores, entropy = token_logprobs(torch.randn(11, 8), hidden, TARGETS[:0])
    assert scores.shape == entropy.shape == (0,)
    scores.sum().backward()
    assert hidden.grad.shape == (0, 8)


def test_mixed_precision_keeps_float32_gradients():
    torch.manual_seed(0)
    weight, hidden = torch.randn(11, 8, requires_grad=True), torch.randn(7, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        scores, _ = token_logprobs(weight, hidden, TARGETS)
    scores.sum().backward()
    assert scores.dtype == weight.grad.dtype == hidden.grad.dtype == torch.float32
    exact = (hidden @ weight.T).log_softmax(-1).gather(1, TARGETS[:, None])[:, 0]
    assert (scores - exact).abs().max() < 0.05
