"""Sampling: token for token what transformers generates, scored as drawn, and drawn from the right distribution."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings, inverse_cdf, sample_tokens


def uniforms(num):
    return torch.rand(num, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


GREEDY = SamplingSettings(max_new_tokens=12, temperature=0.0)


def generated(backbone, plain, batch, end_token_ids):
    """Greedy tokens of transformers' own loop, ``[B, T]``."""
    out = backbone.model.generate(
        **plain(batch),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=list(end_token_ids),
        pad_token_id=backbone.pad_token_id,
    )
    return out[:, batch.input_ids.shape[1] :]


def test_greedy_is_generate(backbone, prompts, plain):
    batch = prompts(backbone)
    out = rollout(backbone, batch, GREEDY)
    assert torch.equal(out.tokens, generated(backbone, plain, batch, backbone.end_token_ids))
    assert len({tuple(row) for row in out.tokens.tolist()}) > 1


def test_greedy_is_generate_where_rows_end_early(backbone, prompts, plain):
    """Every row ends at another step, so that rows are dropped from the cache while others go on."""
    batch = prompts(backbone)
    free = rollout(backbone, batch, GREEDY).tokens
    backbone.end_token_ids = (int(free[0, 1]), int(free[1, 3]), int(free[2, 6]))
    out = rollout(backbone, batch, GREEDY)
    expected = generated(backbone, plain, batch, backbone.end_token_ids)
    assert torch.equal(out.tokens, expected[:, : out.tokens.shape[1]])
    ends = torch.isin(free, torch.tensor(backbone.end_token_ids))
    lengths = [int(row.nonzero()[0]) + 1 if row.any() else 12 for row in ends]
    assert out.completion_mask.sum(1).tolist() == lengths
    assert out.truncated.tolist() == [not bool(row.any()) for row in ends]
    assert min(lengths) < max(lengths)
    assert (out.tokens[~out.completion_mask] == backbone.pad_token_id).all()
    assert (out.logprobs[~out.completion_mask] == 0).all()


def test_padding_does_not_matter(backbone, prompts):
    """A prompt sampled beside longer ones says what it says alone."""
    together = rollout(backbone, prompts(backbone), GREEDY).tokens
    alone = rollout(backbone, prompts(backbone, num=1), GREEDY).tokens
    assert torch.equal(together[:1, : alone.shape[1]], alone)


def test_groups_share_a_prompt_and_differ_in_draws(backbone, prompts):
    batch = prompts(backbone)
    out = rollout(backbone, batch, SamplingSettings(max_new_tokens=8), 3, torch.Generator().manual_seed(0))
    assert out.tokens.shape[0] == 12
    assert len({tuple(row) for row in out.tokens[:3].tolist()}) == 3
    greedy = rollout(backbone, batch, GREEDY, 3).tokens
    assert torch.equal(greedy[0::3], greedy[1::3])
    assert torch.equal(greedy[0::3], rollout(backbone, batch, GREEDY).tokens)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_are_those_of_completion_logprobs(backbone, prompts, temperature):
    batch = prompts(backbone)
    generator = torch.Generator().manual_seed(1)
    out = rollout(backbone, batch, SamplingSettings(24, temperature), 3, generator)
    backbone.end_token_ids = tuple(out.tokens[::4, 5].tolist())  # some rows now end early
    generator.manual_seed(1)
    out = rollout(backbone, batch, SamplingSettings(24, temperature), 3, generator)
    assert not out.completion_mask.all()
    scores, entropy = backbone.completion_logprobs(batch, out.tokens, out.completion_mask, temperature)
    assert (scores - out.logprobs).abs().max() < 1e-4
    assert (scores[~out.completion_mask] == 0).all()
    assert (entropy[out.completion_mask] > 0).all()


def test_scores_are_those_of_transformers(backbone, prompts, plain):
    batch = prompts(backbone)
    out = rollout(backbone, batch, SamplingSettings(6), 1, torch.Generator().manual_seed(2))
    joined = replace(
        batch,
        input_ids=torch.cat([batch.input_ids, out.tokens], 1),
        attention_mask=torch.cat([batch.attention_mask, out.completion_mask.long()], 1),
    )
    with torch.no_grad():
        logits = backbone.model(**plain(joined)).logits[:, -7:-1]
    expected = logits.log_softmax(-1).gather(-1, out.tokens[..., None])[..., 0]
    assert (expected - out.logprobs)[out.completion_mask].abs().max() < 1e-4


def test_gradient_of_scores_reaches_the_weights(backbone, prompts):
    batch = prompts(backbone)
    out = rollout(backbone, batch, SamplingSettings(6), 2, torch.Generator().manual_seed(2))
    backbone.completion_logprobs(batch, out.tokens, out.completion_mask)[0].sum().backward()
    gradients = {n: p.grad for n, p in backbone.model.named_parameters() if p.requires_grad}
    assert all(g is not None and g.abs().sum() > 0 for g in gradients.values())


def test_seed_decides(backbone, prompts):
    batch = prompts(backbone)
    one, same, other = (
        rollout(backbone, batch, SamplingSettings(8), 2, torch.Generator().manual_seed(s)).tokens for s in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# Four tokens of probability 0.5, 0.25, 0.15, 0.1, not in order; by hand.
ORDER, DRAWS = (0.15, 0.5, 0.1, 0.25), 40_000


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SamplingSettings(), (0.15, 0.5, 0.1, 0.25)),
        (SamplingSettings(top_k=2), (0, 2 / 3, 0, 1 / 3)),
        (SamplingSettings(top_k=9), (0.15, 0.5, 0.1, 0.25)),
        (SamplingSettings(top_p=0.7), (0, 2 / 3, 0, 1 / 3)),  # 0.5 is short of 0.7, 0.75 is not
        (SamplingSettings(top_p=0.3), (0, 1, 0, 0)),  # the likeliest always stays
        (SamplingSettings(top_k=3, top_p=0.9), (1 / 6, 5 / 9, 0, 5 / 18)),  # p/0.9: the third is still needed
        (SamplingSettings(temperature=0.5), (0.0225 / 0.345, 0.25 / 0.345, 0.01 / 0.345, 0.0625 / 0.345)),  # squares
        (SamplingSettings(temperature=0.5, top_k=2), (0, 0.8, 0, 0.2)),
    ],
)
def test_distribution_of_draws(settings, expected):
    logits = (torch.tensor(ORDER).log() + 3.0).expand(DRAWS, 4)
    drawn, scores = sample_tokens(logits, settings, uniforms(len(logits)))
    shares = torch.bincount(drawn, minlength=4) / DRAWS
    # Four standard deviations of a share: 4 * sqrt(0.25 / 40,000) = 0.01.
    assert (shares - torch.tensor(expected)).abs().max() < 0.01
    assert (shares[torch.tensor(expected) == 0] == 0).all()
    torch.testing.assert_close(scores, torch.tensor(expected).log()[drawn], atol=1e-5, rtol=1e-5)


def test_rows_are_drawn_independently():
    logits = torch.zeros(1000, 2)
    drawn, _ = sample_tokens(logits, SamplingSettings(), uniforms(len(logits)))
    pairs = torch.bincount(drawn[0::2] * 2 + drawn[1::2], minlength=4) / 500
    assert (pairs - 0.25).abs().max() < 0.08


def test_greedy_scores_are_of_the_whole_distribution():
    drawn, scores = sample_tokens(torch.tensor([[0.0, 1.0]]), SamplingSettings(temperature=0.0), None)
    assert drawn.tolist() == [1]
    assert scores.item() == pytest.approx(-0.31326, abs=1e-5)  # -log(1 + 1/e)


@pytest.mark.parametrize("num", [5, 256, 700])  # one block of words, just one, several and a part
def test_inverted_shares_are_those_of_a_running_sum(num):
    torch.manual_seed(0)
    weights = torch.rand(40, num) * (torch.rand(40, num) < 0.2)
    weights[:, 3] += 0.1
    uniforms = torch.rand(40, 1, dtype=torch.float64)
    running = weights.double().cumsum(-1)
    expected = torch.searchsorted(running, uniforms * running[:, -1:], right=True)
    assert (inverse_cdf(weights, uniforms) == expected).float().mean() > 0.99  # rounding may differ at a border


def test_what_weighs_nothing_is_never_hit():
    weights = torch.zeros(2, 600)
    weights[:, 258:260] = torch.tensor([1e-30, 1.0])
    uniforms = torch.tensor([[0.0], [1 - 2**-53]], dtype=torch.float64)
    assert inverse_cdf(weights, uniforms)[:, 0].tolist() == [258, 259]
    weights[:, 259] = 0
    assert inverse_cdf(weights, uniforms)[:, 0].tolist() == [258, 258]
