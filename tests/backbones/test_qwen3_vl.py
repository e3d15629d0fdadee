"""What is new in Qwen3-VL: patches of 16 px, and visual tokens of deeper layers for the language model's first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen3_vl import Qwen3VL


@pytest.fixture
def backbone() -> Backbone:
    return Backbone("tiny", Qwen3VL(), freeze_vision=False, freeze_projector=False)


def test_pictures_are_cut_as_transformers_cuts_them(backbone):
    half = [0.5] * 3
    size = {"shortest_edge": 32 * 32, "longest_edge": 160 * 160}
    theirs = Qwen2VLImageProcessorPil(size=size, patch_size=16, image_mean=half, image_std=half)
    noise = np.random.default_rng(0).integers(0, 256, (97, 133, 3), dtype=np.uint8)
    expected = theirs(images=Image.fromarray(noise), return_tensors="pt")
    picture = backbone.processor.picture(Image.fromarray(noise))
    assert torch.equal(picture.tensors["grid"], expected["image_grid_thw"])
    pixels = backbone.processor.pictures.pixel_values(picture.tensors["patches"])
    assert (pixels - expected["pixel_values"]).abs().max() < 1e-5
    assert picture.num_tokens == 12  # 128 x 96 px, 32 px a token


def test_tokens_of_deeper_layers_are_added(backbone, prompts):
    batch = backbone.with_visual_tokens(prompts(backbone), single_backward=True)
    assert len(batch.visual.deep) == 2
    without = dataclasses.replace(batch, visual=dataclasses.replace(batch.visual, deep=()))
    with torch.no_grad():
        assert (backbone.logits(batch) - backbone.logits(without)).abs().max() > 1e-3


@pytest.mark.parametrize("share_prefix", [True, False])
def test_gradients_reach_the_tower_through_them_as_in_transformers(prompts, plain, backbone, samples, share_prefix):
    """Rows of different length, one of two pictures, one of text alone."""
    ours = Backbone("tiny", Qwen3VL(), freeze_vision=False, freeze_projector=False, share_prefix=share_prefix)
    processor = ours.processor
    pictures = [processor.picture(processor.open(sample)) for sample in samples[:2]]
    examples = [processor.encode(sample, mode="think", target="rationale") for sample in samples]
    examples.append(processor.encode_chat("k", pictures, ["Which is the Hoopoe?"], "the second"))
    examples.append(processor.encode_text("Describe the Hoopoe.", "orange, crest"))
    batch = processor.collate(examples, samples)
    ours.label_loss(batch)[0].backward()
    backbone.model(**plain(batch), labels=batch.labels).loss.backward()
    theirs = dict(backbone.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        expected = theirs[name].grad
        assert expected.norm() > 0, name
        assert (parameter.grad - expected).norm() < 1e-4 * expected.norm() + 1e-7, name
