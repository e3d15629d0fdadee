from __future__ import annotations

import pytest
import torch

from kvg.backbones.base import Backbone
from kvg.backbones.qwen2_5_vl import Qwen25VLBackbone
from kvg.backbones.qwen2_vl import Qwen2VLBackbone
from kvg.types import Batch

SIZES = ((140, 140), (168, 84), (112, 196))  # 25, 18 and 28 visual tokens
FAMILIES = {"qwen2_vl": Qwen2VLBackbone, "qwen2_5_vl": Qwen25VLBackbone}


@pytest.fixture(params=list(FAMILIES))
def family(request) -> type[Backbone]:
    return FAMILIES[request.param]


@pytest.fixture
def backbone(family) -> Backbone:
    return family("tiny").eval()


@pytest.fixture
def samples(scenes):
    return scenes(4, SIZES)


@pytest.fixture
def prompts(samples):
    """Left-padded prompts of different lengths."""

    def make(backbone: Backbone, num: int = 4) -> Batch:
        modes = ("think", "direct", "cot", "direct")
        chosen = zip(samples[:num], modes[:num], strict=True)
        examples = [backbone.processor.encode(s, mode=m, target=None) for s, m in chosen]
        assert len({len(e["input_ids"]) for e in examples}) > 1 or num == 1
        return backbone.processor.collate(examples, samples[:num], pad_left=True)

    return make


@pytest.fixture
def plain(backbone):
    """Arguments with which transformers itself is called on a batch."""

    def arguments(batch: Batch) -> dict[str, torch.Tensor]:
        kinds = (batch["input_ids"] == backbone.processor.image_token_id).int()
        names = ("input_ids", "attention_mask", "image_grid_thw")
        found = {**{n: batch[n] for n in names if n in batch}, "mm_token_type_ids": kinds}
        return (
            found
            if "patches" not in batch
            else {**found, "pixel_values": backbone.processor.pixel_values(batch["patches"])}
        )

    return arguments
