"""Drafts from n-grams: which tokens, how many, what is learnt for good, and what a checkpoint keeps."""

from __future__ import annotations

import pytest
import torch

from kvg.errors import ConfigError
from kvg.rl.drafter import NGramDrafter

SURE = {"num_rows": 1, "room": 99}  # a draft is worth its arithmetic from a chance of 1 / (1 + 64) on


def learnt(*completions, **settings):
    drafter = NGramDrafter(**{"order": 2, **settings})
    drafter.learn(completions)
    return drafter


def test_what_followed_the_last_tokens_is_drafted_as_far_as_it_goes():
    drafter = learnt([1, 2, 3, 4, 5])
    assert drafter.draft([9, 1, 2], **SURE) == [3, 4, 5]
    assert drafter.draft([9, 2, 1], **SURE) == []
    assert drafter.draft([], **SURE) == [1, 2, 3, 4]  # the place before a completion is a context, too
    assert drafter.draft([1, 2], num_rows=1, room=2) == [3, 4]
    assert learnt([1, 2, 3, 4, 5], max_draft=1).draft([1, 2], **SURE) == [3]


def test_the_most_frequent_token_wins():
    drafter = learnt([1, 2, 7], [1, 2, 8], [1, 2, 8])
    assert drafter.draft([1, 2], **SURE) == [8]


def test_a_draft_ends_where_its_chance_is_less_than_its_arithmetic():
    # [1, 2] was followed by 3 in three of four cases, and one more is counted for what is not known: 3 / 5 = 0.6. Then
    # [2, 3] by 4 in two of three: 0.6 * 2 / 4 = 0.3.
    for num_rows, drafted in ((27, [3, 4]), (28, [3]), (96, [3]), (97, [])):  # 27 / 91 = 0.297, 96 / 160 = 0.6
        drafter = learnt([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 9], pass_cost=64)
        assert drafter.draft([1, 2], num_rows, room=99) == drafted
    assert learnt([1, 2, 3], pass_cost=0).draft([1, 2], **SURE) == []  # a pass that costs nothing is not worth saving


def test_a_batch_counts_while_it_is_sampled_and_only_what_is_learnt_counts_afterwards():
    drafter = learnt([1, 2, 3])
    drafter.observe([1, 2, 4, 4], num_new=2)
    drafter.observe([1, 2, 4], num_new=1)
    assert drafter.draft([1, 2], **SURE)[0] == 4  # twice, and 3 once
    drafter.learn([])
    assert drafter.draft([1, 2], **SURE) == [3]


def test_a_batch_that_cannot_be_predicted_gets_no_more_drafts():
    # A context that was seen once has a chance of 1 / 2, which 64 rows need: 64 / 128. The first draft is not accepted:
    # then (0.5 + 2) / 2 times as much is needed.
    drafter = learnt([1, 2, 3], [4, 5, 6])
    assert drafter.draft([1, 2], num_rows=64, room=9) == [3]
    drafter.observe([1, 2, 7], num_new=1)
    assert drafter.draft([4, 5], num_rows=64, room=9) == []
    assert drafter.draft([4, 5], num_rows=42, room=9) == [6]  # 42 / 106 * 2.5 / 2 = 0.495
    drafter.learn([])  # the next batch may be another
    assert drafter.draft([4, 5], num_rows=64, room=9) == [6]
    drafter.observe([4, 5, 6, 0], num_new=2)  # accepted: (0.5 + 2) / (1 + 2)
    assert drafter.draft([1, 2], num_rows=90, room=9) == [3]  # 90 / 154 * 2.5 / 3 = 0.487


def test_of_tokens_that_are_equally_frequent_the_smaller_one_is_drafted_also_from_a_checkpoint():
    for completions in (([1, 2, 8], [1, 2, 7]), ([1, 2, 7], [1, 2, 8]), ([1, 2, 8], [1, 2, 7], [1, 2, 7], [1, 2, 8])):
        drafter, other = learnt(*completions), NGramDrafter(order=2)
        other.load_state_dict(drafter.state_dict())
        assert drafter.draft([1, 2], **SURE) == other.draft([1, 2], **SURE) == [7]


def test_old_counts_fade():
    drafter = learnt(*[[1, 2, 3]] * 15, [1, 2, 4])  # the sixteenth halves all: 7.5 and 0.5
    drafter.learn([[1, 2, 4]] * 8)  # 7.5 and 8.5 are 16 again: 3.75 and 4.25
    assert drafter.draft([1, 2], **SURE) == [4]


def test_the_oldest_contexts_are_forgotten():
    drafter = learnt([1, 2, 3], max_contexts=10)
    drafter.learn([list(range(20, 30))])  # 3 contexts and 9 new ones: the oldest of 12 go until 9 are left
    assert drafter.draft([1, 2], **SURE) == []
    assert drafter.draft([26, 27], **SURE) == [28, 29]


def test_a_checkpoint_keeps_what_was_learnt():
    drafter = learnt([1, 2, 3, 4], [1, 2, 5], [1, 2, 5])
    drafter.observe([8, 8, 8], num_new=3)
    state = drafter.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other = NGramDrafter(order=2)
    other.load_state_dict(state)
    assert other.draft([1, 2], **SURE) == [5]
    assert other.draft([2, 3], **SURE) == [4]
    assert other.draft([8, 8], **SURE) == []  # of a batch that was not finished
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())
    empty = NGramDrafter()
    empty.load_state_dict(NGramDrafter().state_dict())
    assert empty.draft([], **SURE) == []


@pytest.mark.parametrize("settings", [{"order": 0}, {"max_draft": -1}, {"pass_cost": -1}, {"max_contexts": 1}])
def test_settings_that_cannot_work(settings):
    with pytest.raises(ConfigError, match=f"drafter.{next(iter(settings))}"):
        NGramDrafter(**settings)
