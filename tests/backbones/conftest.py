from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.backbones.find_family import family_of_type, known_families
from kvg.batches import Batch

PROVEN = ("qwen3_vl", "internvl")  # patches and M-RoPE with tokens in several layers; tiles and RoPE
SIZES = ((140, 140), (168, 84), (112, 196))  # with patches of 14 px: 25, 18 and 28 visual tokens


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What holds through the interface is proven by two families; of the others it is ``slow``, and run by hand."""
    for item in items:
        if item.get_closest_marker("two_families") and item.callspec.params["family"] not in PROVEN:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=known_families())
def family(request) -> Callable[..., Backbone]:
    """Makes backbones of a family."""
    return partial(Backbone, family=family_of_type(request.param))


@pytest.fixture
def backbone(family) -> Backbone:
    return family("tiny").eval()


@pytest.fixture
def samples(scenes):
    return scenes(4, SIZES)


@pytest.fixture
def batch(backbone, samples):
    """Four prompts with their answers, padded on the right."""
    examples = [backbone.processor.encode(s, mode="think", target="rationale") for s in samples]
    return backbone.processor.collate(examples, samples)


@pytest.fixture
def prompts(samples):
    """Left-padded prompts of different lengths."""

    def make(backbone: Backbone, num: int = 4) -> Batch:
        modes = ("think", "direct", "cot", "direct")
        chosen = zip(samples[:num], modes[:num], strict=True)
        examples = [backbone.processor.encode(s, mode=m, target=None) for s, m in chosen]
        assert len({len(e.input_ids) for e in examples}) > 1 or num == 1
        return backbone.processor.collate(examples, samples[:num], pad_left=True)

    return make


@pytest.fixture
def plain(backbone):
    """Arguments with which transformers itself is called on a batch."""

    def arguments(batch: Batch) -> dict[str, torch.Tensor]:
        found = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if backbone.family.position_axes == 3:
            found["mm_token_type_ids"] = (batch.input_ids == backbone.processor.image_token_id).int()
        if batch.pictures is None:
            return found
        tensors, pixel_values = batch.pictures.tensors, backbone.processor.pictures.pixel_values
        if backbone.family.model_type == "smolvlm":  # tiles of each prompt, padded by tiles of zeros
            tiles = torch.split(pixel_values(tensors["tiles"]), batch.pictures.sizes["tiles"])
            owners = batch.pictures.owners
            rows = [[tiles[n] for n, owner in enumerate(owners) if owner == row] for row in range(len(batch))]
            rows = [torch.cat(own) if own else tiles[0][:0] for own in rows]
            pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
            mask = pad([torch.ones_like(own[:, 0]) for own in rows]).long()
            return {**found, "pixel_values": pad(rows), "pixel_attention_mask": mask}
        if "tiles" in tensors:
            return {**found, "pixel_values": pixel_values(tensors["tiles"])}
        return {**found, "pixel_values": pixel_values(tensors["patches"]), "image_grid_thw": tensors["grid"]}

    return arguments
