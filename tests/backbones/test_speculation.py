"""Speculative sampling: the same tokens as one a pass, whatever is drafted, and fewer passes where a draft is right."""

from __future__ import annotations

import pytest
import torch

from kvg.rl.drafter import NGramDrafter
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.rl.speculation import IDLE

PLAIN = NGramDrafter(max_draft=0)


class Oracle(NGramDrafter):
    """Drafts what was sampled before, and something else now and then."""

    def __init__(self, rows, wrong_every=0, **settings):
        super().__init__(**settings)
        self.rows, self.wrong_every, self.calls = rows, wrong_every, 0

    def draft(self, completion, num_rows, room):
        given = list(completion)
        row = next((row for row in self.rows if row[: len(given)] == given), given)
        drafted = row[len(given) : len(given) + min(room, self.max_draft)]
        self.calls += 1
        if self.wrong_every and drafted and self.calls % self.wrong_every == 0:
            place = self.calls % len(drafted)
            drafted[place] = (drafted[place] + 1) % 900  # another word
        return drafted


def sample(backbone, batch, drafter, group=3, seed=0, **settings):
    settings = SamplingSettings(**{"max_new_tokens": 24, **settings})
    return rollout(backbone, batch, settings, group, torch.Generator().manual_seed(seed), drafter)


def texts(out):
    return [row[keep].tolist() for row, keep in zip(out.tokens, out.completion_mask, strict=True)]


def assert_same(out, plain):
    assert torch.equal(out.tokens, plain.tokens)
    assert torch.equal(out.completion_mask, plain.completion_mask)
    assert torch.equal(out.truncated, plain.truncated)
    torch.testing.assert_close(out.logprobs, plain.logprobs, atol=5e-5, rtol=0)


@pytest.mark.two_families
@pytest.mark.parametrize("wrong_every", [0, 1, 3])
@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.0}, {}, {"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 5, "temperature": 1.3}],
    ids=["greedy", "1.0", "0.7", "top_p", "top_k"],
)
def test_tokens_are_those_of_one_a_pass(family, prompts, settings, wrong_every):
    backbone = family("tiny").eval()
    batch = prompts(backbone)
    free = sample(backbone, batch, PLAIN, **settings)
    backbone.end_token_ids = tuple({int(row[3 + 2 * n]) for n, row in enumerate(free.tokens[:9:2])})  # end early
    plain = sample(backbone, batch, PLAIN, **settings)
    assert not plain.completion_mask.all()
    assert plain.counts is None
    out = sample(backbone, batch, Oracle(texts(free), wrong_every, max_draft=5), **settings)
    assert_same(out, plain)
    assert out.counts.drafted
    if not wrong_every:  # all but what lies behind an end
        assert out.counts.tokens_per_pass > 1.5


def test_an_oracle_needs_a_sixth_of_the_passes(backbone, prompts):
    batch = prompts(backbone)
    backbone.end_token_ids = ()
    plain = sample(backbone, batch, PLAIN)
    out = sample(backbone, batch, Oracle(texts(plain), max_draft=5))
    assert_same(out, plain)
    # Of 24 tokens the first comes with the prompt, and is counted as a pass that accepts what is drafted behind it in
    # the next one; then 6 + 6 + 6 + 5.
    assert out.counts.passes == 5 * len(plain.tokens)
    assert (out.counts.drafted, out.counts.accepted) == (19 * len(plain.tokens),) * 2


def test_layers_that_are_called_as_they_are_take_drafts_too(family, prompts):
    backbone = family("tiny").eval()

    class Other(type(backbone.language.text_model.layers[0])):
        pass

    backbone.language.text_model.layers[0].__class__ = Other
    batch = prompts(backbone)
    plain = sample(backbone, batch, PLAIN)
    assert_same(sample(backbone, batch, Oracle(texts(plain), 2, max_draft=3)), plain)


def test_a_plain_cache_takes_none(prompts):
    from kvg.backbones.backbone import Backbone  # the fixture's shares its prefix

    backbone = Backbone("tiny", share_prefix=False).eval()
    batch = prompts(backbone)
    plain = sample(backbone, batch, PLAIN)
    out = sample(backbone, batch, Oracle(texts(plain)))
    assert out.counts is None
    assert_same(out, plain)


@pytest.mark.two_families
def test_what_repeats_itself_is_found_within_a_batch(backbone, prompts):
    """Greedy, all completions of a group are alike, and a random model soon repeats itself."""
    batch = prompts(backbone)
    backbone.end_token_ids = ()
    plain = sample(backbone, batch, PLAIN, temperature=0.0, max_new_tokens=60)
    drafter = NGramDrafter()
    first = sample(backbone, batch, drafter, temperature=0.0, max_new_tokens=60)
    assert_same(first, plain)
    drafter.learn(texts(first))
    second = sample(backbone, batch, drafter, temperature=0.0, max_new_tokens=60)
    assert_same(second, plain)
    assert second.counts.tokens_per_pass > max(first.counts.tokens_per_pass, 2)


def test_random_numbers_belong_to_rows_and_places(backbone, prompts):
    """Completions do not change where others end early and leave the batch."""
    batch = prompts(backbone)
    backbone.end_token_ids = ()
    free = sample(backbone, batch, PLAIN, group=2)
    backbone.end_token_ids = tuple({int(token) for token in free.tokens[-2:, 2]})
    ended = sample(backbone, batch, PLAIN, group=2)
    rows = (~torch.isin(free.tokens, torch.tensor(backbone.end_token_ids))).all(1)
    assert 0 < rows.sum() < len(rows)
    assert torch.equal(ended.tokens[rows], free.tokens[rows])


@pytest.mark.parametrize("drafter", [PLAIN, NGramDrafter()], ids=["plain", "drafted"])
def test_a_watcher_gets_the_tokens_of_each_row(family, prompts, drafter):
    backbone, rows = family("tiny").eval(), {}
    settings = SamplingSettings(max_new_tokens=12, temperature=0.7)
    generator = torch.Generator().manual_seed(0)

    def watch(row, tokens):
        rows.setdefault(row, []).extend(tokens)

    out = rollout(backbone, prompts(backbone), settings, 2, generator, drafter, watch)
    assert [rows[row] for row in sorted(rows)] == texts(out)


def test_a_batch_without_drafts_soon_asks_for_none(backbone, prompts):
    class Silent(NGramDrafter):
        asked = observed = 0

        def draft(self, completion, num_rows, room):
            self.asked += 1
            return []

        def observe(self, completion, num_new):
            self.observed += 1

    batch, drafter = prompts(backbone, 1), Silent()
    backbone.end_token_ids = ()
    plain = sample(backbone, batch, PLAIN, group=1, max_new_tokens=48)
    assert_same(sample(backbone, batch, drafter, group=1, max_new_tokens=48), plain)
    assert (drafter.asked, drafter.observed) == (IDLE, IDLE)


@pytest.mark.two_families
def test_rows_that_end_after_the_last_draft_leave(backbone, prompts):
    class Silent(NGramDrafter):
        def draft(self, completion, num_rows, room):
            return []

    batch = prompts(backbone)
    backbone.end_token_ids = ()
    free = sample(backbone, batch, PLAIN, max_new_tokens=48)
    backbone.end_token_ids = tuple({int(row[IDLE + 2 * n]) for n, row in enumerate(free.tokens[:6])})
    plain = sample(backbone, batch, PLAIN, max_new_tokens=48)
    assert plain.completion_mask.sum(1).unique().numel() > 2
    assert_same(sample(backbone, batch, Silent(), max_new_tokens=48), plain)
