"""The largest batch that a training can meet, with real token ids and pictures without memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from kvg.backbones.processor import ChatProcessor
from kvg.batches import Batch, Example
from kvg.errors import ConfigError
from kvg.planning.skeleton import Skeleton, fake_tensor
from kvg.planning.training import Training
from kvg.text.prompts import prompt

NAME = "a name of some length"  # of an entity
ROOM = 256  # tokens of text beside a picture and a completion, where no limit is set


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sample.

    Attributes:
        picture: visual tokens.
        prompt: with them.
        completion: what follows the prompt: labels in stage 1, the longest completion in stage 2.
    """

    picture: int
    prompt: int
    completion: int


def longest_prompt(processor: ChatProcessor, tokens: int | None) -> Example:
    """A prompt with the largest picture that leaves room for its text within so many tokens."""
    area = processor.max_pixels
    while True:
        side = max(1, math.isqrt(area))
        picture = processor.picture(Image.new("RGB", (side, side)))
        example = processor.encode_chat("plan", [picture], [prompt(NAME, "think", processor.prompt_format)])
        if tokens is None or len(example.input_ids) <= tokens:
            return example
        smaller = area * (tokens - (len(example.input_ids) - picture.num_tokens)) // picture.num_tokens
        if smaller < processor.min_pixels or smaller >= area:
            raise ConfigError("data.max_tokens", f"{tokens} leave no room for a picture; raise it")
        area = smaller


def largest_batch(backbone: Skeleton, training: Training, num: int, tokens: int | None = None) -> tuple[Batch, Lengths]:
    """A batch in which every sample is as long as it may be.

    Args:
        backbone: whose processor makes it.
        training: whose limits count: ``max_tokens`` of a sample in stage 1, of a prompt in stage 2.
        num: samples.
        tokens: a limit below ``max_tokens``.

    Raises:
        ConfigError: no picture fits the limit.
    """
    limit = min((n for n in (training.max_tokens, tokens) if n is not None), default=None)
    processor, learns = backbone.processor, training.stage == "sft"
    completion = training.max_new_tokens
    room = None if limit is None else limit - (1 if learns else 0)
    example = longest_prompt(processor, room)
    ids, visual = example.input_ids, sum(picture.num_tokens for picture in example.pictures)
    if learns and limit is not None:
        completion = limit - len(ids)
    fill = int(ids[-1])
    if not learns and limit is not None:
        ids = torch.cat([ids[:-1], torch.full((limit - len(ids),), fill), ids[-1:]])
    lengths = Lengths(visual, len(ids), completion)
    labels = torch.full_like(ids, -100)
    if learns:
        own = torch.full((completion,), fill)
        ids, labels = torch.cat([ids, own]), torch.cat([labels, own])
    batch = processor.collate([replace(example, input_ids=ids, labels=labels)] * num, (), pad_left=not learns)
    pictures = batch.pictures
    assert pictures is not None
    fakes = backbone.fakes
    tensors: dict[str, Tensor] = {
        name: fake_tensor(fakes, value) if value.is_floating_point() else value
        for name, value in pictures.tensors.items()
    }
    return replace(batch, pictures=replace(pictures, tensors=tensors)), lengths
