"""Prompts with two pictures, one or none: logits and tokens of transformers, cut and kept picture by picture."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from kvg.errors import DataError
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings


@pytest.fixture
def mixed(backbone, samples):
    """A batch of prompts with two pictures, none, one, and two again; padded on the left for sampling."""

    def make(pad_left=True):
        processor = backbone.processor
        pictures = [processor.picture(processor.open(sample), sample.image) for sample in samples]
        chats = [(pictures[:2], "Which is the Hoopoe?"), ([], "What is it?"), (pictures[2:3], "And here?"),
                 ([pictures[1], pictures[3]], "Which of them flies?")]  # fmt: skip
        examples = [processor.encode_chat("k", own, [text], "the second one") for own, text in chats]
        if pad_left:
            examples = [processor.encode_chat("k", own, [text]) for own, text in chats]
        return processor.collate(examples, [], pad_left=pad_left)

    return make


@pytest.mark.parametrize("pad_left", [True, False])
def test_logits_are_those_of_transformers(backbone, mixed, plain, pad_left):
    batch = mixed(pad_left)
    assert batch.pictures.owners == (0, 0, 2, 3, 3)
    with torch.no_grad():
        ours, theirs = backbone.logits(batch), backbone.model(**plain(batch)).logits
    assert (ours - theirs)[batch.attention_mask.bool()].abs().max() < 1e-5


def test_the_loss_is_that_of_transformers(backbone, mixed, plain):
    batch = mixed(False)
    loss, _ = backbone.label_loss(batch)
    theirs = backbone.model(**plain(batch), labels=batch.labels).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-5)


def test_a_cut_batch_is_that_of_its_prompts(backbone, mixed):
    batch = backbone.with_visual_tokens(mixed())
    chosen = [3, 1, 0]
    part = batch.take(chosen)
    assert part.pictures.owners == (0, 0, 2, 2)
    assert part.visual.counts == part.pictures.num_tokens
    with torch.no_grad():
        whole = backbone.logits(batch)
        for own in (part, replace(part, visual=None)):  # pictures are cut as their tokens are
            torch.testing.assert_close(backbone.logits(own), whole[chosen], atol=1e-5, rtol=1e-5)
        assert batch.take([1]).pictures is None
        torch.testing.assert_close(backbone.logits(batch.take([1])), whole[[1]], atol=1e-5, rtol=1e-5)


def test_sampling_and_scores(backbone, mixed, plain):
    batch = mixed()
    greedy = rollout(backbone, batch, SamplingSettings(8, 0.0)).tokens
    expected = backbone.model.generate(
        **plain(batch),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=list(backbone.end_token_ids),
        pad_token_id=backbone.pad_token_id,
    )
    assert torch.equal(greedy, expected[:, batch.input_ids.shape[1] :])
    out = rollout(backbone, batch, SamplingSettings(8), 3, torch.Generator().manual_seed(0))
    shared, _ = backbone.completion_logprobs(batch, out.tokens, out.completion_mask)
    assert (shared - out.logprobs).abs().max() < 1e-4
    backbone.shares_prefix = False
    repeated, _ = backbone.completion_logprobs(batch, out.tokens, out.completion_mask)
    assert (shared - repeated).abs().max() < 1e-5


def test_placeholders_have_to_match_the_pictures(backbone, samples):
    processor = backbone.processor
    picture = processor.picture(processor.open(samples[0]))
    processor.control_tokens._pattern = None  # a tokenizer that does not tell of its control tokens
    token = backbone.family.image_token
    with pytest.raises(DataError, match=re.escape(f"may not hold {token}")):
        processor.encode_chat("k", [picture], [f"{token} and this one?"])
