"""Batches as long as a plan takes them to be, with real pictures."""

from __future__ import annotations

import dataclasses
import io

import torch
from PIL import Image

from kvg.planning.workload import longest_prompt
from kvg.types import Records, Sample, SceneObject


def full_batch(settings, processor):
    tokens, num, learns = settings["max_tokens"], settings["batch_size"], settings["stage"] == "sft"
    example = longest_prompt(processor, tokens - 1 if learns else tokens)
    ids, fill = example.input_ids, int(example.input_ids[-1])
    labels = torch.full_like(ids, -100)
    if learns:
        own = torch.full((tokens - len(ids),), fill)
        ids, labels = torch.cat([ids, own]), torch.cat([labels, own])
    else:
        ids = torch.cat([ids[:-1], torch.full((tokens - len(ids),), fill), ids[-1:]])
        labels = torch.full_like(ids, -100)
    buffer = io.BytesIO()
    Image.new("RGB", (56, 56)).save(buffer, "PNG")
    one = SceneObject("a", (0, 0, 28, 28))
    sample = Sample("s", buffer.getvalue(), 56, 56, "bird", "seen", (one,), 0)
    examples = [dataclasses.replace(example, input_ids=ids, labels=labels)] * num
    return processor.collate(examples, Records([sample] * num), pad_left=not learns)
