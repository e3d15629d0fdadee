"""Exports: read again by this project and by plain transformers, every weight in them, and how the model is asked."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from transformers import AutoImageProcessor

from kvg.backbones.backbone import Backbone
from kvg.backbones.find_family import family_of_type
from kvg.backbones.folders import trained_mode
from kvg.errors import ConfigError
from tests.backbones.stirred import logits, stir

TOLERANCE = 1e-5


def test_export_and_reload(family, batch, tmp_path):
    backbone = stir(family("tiny", min_pixels=3136, max_pixels=12_544).eval(), scale=0.02)  # 2 x 2 tiles of 56 px
    backbone.export(tmp_path)
    again = family(str(tmp_path), max_pixels=None).eval()
    assert torch.equal(logits(again, batch), logits(backbone, batch))
    assert (again.processor.min_pixels, again.processor.max_pixels) == (3136, 12_544)
    assert again.end_token_ids == backbone.end_token_ids
    assert again.processor.chat("Who?") == backbone.processor.chat("Who?")
    assert (tmp_path / "model.safetensors").is_file()


def test_plain_transformers_reads_an_export(family, batch, samples, tmp_path):
    backbone = stir(family("tiny").eval(), scale=0.02)
    backbone.export(tmp_path)
    model, info = backbone.family.hf_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, backbone.model.state_dict()[name]), name
    image_processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    picture = backbone.processor.open(samples[1])
    theirs = image_processor(images=picture, return_tensors="pt")
    tensors = backbone.processor.picture(picture).tensors
    (pixels,) = (value for value in tensors.values() if value.dtype == torch.uint8)
    ours = backbone.processor.pictures.pixel_values(pixels)
    assert (theirs["pixel_values"] - ours).abs().max() < TOLERANCE


def test_every_weight_counts(family, batch):
    """Each tensor of an export takes part in the forward pass; a wrapper that skips a part would not notice a swap."""
    backbone = family("tiny", freeze_vision=False, freeze_projector=False).train()
    backbone.label_loss(batch)[0].backward()
    untouched = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # Key biases cancel in a softmax over keys; rounding leaves them a gradient or none.
    assert [n for n in untouched if not n.endswith("bias")] == []
    assert isinstance(backbone.model, nn.Module)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "its kvg.json cannot be read"), ("[]", "its kvg.json cannot be read"), ('{"mode": "x"}', "the mode 'x'")],
)
def test_a_damaged_note_on_how_to_ask_is_named(tmp_path, text, message):
    (tmp_path / "kvg.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        trained_mode(str(tmp_path))


def test_an_export_tells_how_to_ask(tmp_path):
    backbone = Backbone("tiny")
    assert backbone.trained_mode is None
    backbone.export(tmp_path, "think")
    assert Backbone(str(tmp_path)).trained_mode == "think"
    backbone.export(tmp_path)
    assert Backbone(str(tmp_path)).trained_mode is None


def test_an_export_of_an_earlier_version_loads(tmp_path):
    Backbone("tiny").export(tmp_path, "direct")
    (tmp_path / "kvg.json").write_text('{"mode": "think"}\n')
    assert Backbone(str(tmp_path)).trained_mode == "think"


def test_an_export_names_the_boxes_of_its_family(tmp_path):
    Backbone("tiny", family_of_type("qwen2_5_vl"), max_pixels=28 * 28 * 50).export(tmp_path)
    about = json.loads((tmp_path / "kvg.json").read_text())
    assert about["box"]["unit"] == "pixels of the resized picture"
    assert about["box"]["example"] == '{"bbox_2d": [250, 250, 750, 750]}'
    assert about["max_pixels"] == 39200
    assert about["mode"] is None
    assert about["prompt"].startswith("Find and give the bounding box of")
