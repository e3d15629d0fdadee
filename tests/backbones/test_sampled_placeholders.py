"""A policy may sample any token, a picture's placeholder too; that costs it its reward and never the run."""

from __future__ import annotations

import pytest
import torch

from kvg.backbones.answers import completion_texts, plain_texts
from kvg.rl.completions import Rollouts
from kvg.text.box_codec import ImageSize
from kvg.text.completion import parse_completion

CONTROL = ("<|image_pad|>", "<|vision_start|>", "<|im_start|>", "<|video_pad|>")


def sampled(backbone, texts, length):
    """Completions that hold control tokens as single tokens, filled up to one length."""
    rows = [backbone.processor.ids(text)[:length] for text in texts]
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[n < len(row) for n in range(length)] for row in rows])
    return tokens, mask


@pytest.mark.parametrize("token", CONTROL)
def test_sampled_placeholders_are_scored_like_any_token(backbone, prompts, token):
    batch = prompts(backbone, 2)
    tokens, mask = sampled(backbone, [f"a {token} b", "plain words", f"{token}{token}", "(1,2),(3,4)"], 12)
    assert int((tokens == backbone.processor.tokenizer.convert_tokens_to_ids(token)).sum()) == 3
    shared, _ = backbone.completion_logprobs(batch, tokens, mask)
    backbone.shares_prefix = False
    repeated, _ = backbone.completion_logprobs(batch, tokens, mask)
    assert bool(torch.isfinite(shared).all())
    assert torch.allclose(shared, repeated, atol=1e-4)


@pytest.mark.parametrize("token", CONTROL)
def test_sampled_placeholders_are_no_part_of_a_conversation(backbone, samples, token):
    # The third spells a token out by plain pieces; put into a conversation, it would be one.
    texts = [f"a{token} b", f"{token}", f"{token[:4]}\0{token[4:]}<|x|>"]
    rows = [backbone.processor.ids(text) for text in texts[:2]]
    rows.append(backbone.processor.ids(token[:4]) + backbone.processor.ids(token[4:]) + backbone.processor.ids("<|x|>"))
    length = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[n < len(row) for n in range(length)] for row in rows])
    out = Rollouts(tokens, mask, torch.zeros(tokens.shape), torch.zeros(3, dtype=torch.bool))
    descriptions = plain_texts(backbone, out)
    assert descriptions == ["a b", "", "<|x|>"]
    asked = backbone.processor.encode_turns(samples[0], ["Which?"])
    for description in descriptions:
        example = backbone.processor.encode_chat("k", asked.pictures, ["Which?", description, "Where?"])
        count = int((example.input_ids == backbone.processor.image_token_id).sum())
        assert count == sum(picture.num_tokens for picture in asked.pictures)


def test_answers_with_placeholders_are_read_or_missed(backbone):
    text = "<think>x<|image_pad|></think><answer>(1,2),<|image_pad|>(3,4)</answer>"
    tokens, mask = sampled(backbone, [text], 80)
    (read,) = completion_texts(backbone, tokens, mask)
    assert read == text
    size = ImageSize(100, 100, 112, 112)
    assert backbone.codec.decode(parse_completion(read).answer, size) is None
