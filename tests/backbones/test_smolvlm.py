"""What is new in SmolVLM: tiles in rows and columns, each with a mark in the prompt, and a space before the answer."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.smolvlm.image_processing_pil_smolvlm import (
    SmolVLMImageProcessorPil,
    get_resize_output_image_size,
)
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE, get_image_prompt_string

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.smolvlm import SmolVLM
from kvg.backbones.split_processor import SplitProcessor, SplitSettings, parse_split_settings
from kvg.errors import ConfigError

FAMILY = SmolVLM()
SIZES = [(133, 97), (641, 479), (97, 133), (1, 150), (400, 3), (112, 112), (56, 56), (5, 5), (301, 300), (168, 57)]


def settings(tiles: int) -> SplitSettings:
    return SplitSettings(56**2, (56 * tiles) ** 2, tile_size=56, tile_tokens=4)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("tiny", FAMILY).eval()


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_tiles_are_those_of_transformers(tiles):
    ours = SplitProcessor(settings(tiles))
    theirs = SmolVLMImageProcessorPil(size={"longest_edge": 56 * tiles}, max_image_size={"longest_edge": 56})
    for size in SIZES:
        expected = theirs(images=picture(*size), return_tensors="pt", return_row_col_info=True)
        own = ours.picture(picture(*size))
        assert own.tensors["tiles"].dtype == torch.uint8
        assert own.tensors["grid"].tolist() == [[expected["rows"][0][0], expected["cols"][0][0]]], size
        pixels = ours.pixel_values(own.tensors["tiles"])
        assert pixels.shape == expected["pixel_values"][0].shape, size
        assert (pixels - expected["pixel_values"][0]).abs().max() < 1e-5, size
        assert expected["pixel_attention_mask"].all()  # no tile is padded
        assert own.num_tokens == 4 * len(pixels)


def test_sizes_are_those_of_transformers_for_any_picture(monkeypatch):
    """Lengths alone: two roundings of quotients in floating point, up and down."""
    monkeypatch.setattr(SmolVLMImageProcessorPil, "resize", lambda _, image, size, **__: (size.width, size.height))
    theirs, generator = SmolVLMImageProcessorPil(), np.random.default_rng(0)
    for side, tiles in ((384, 4), (512, 4), (364, 4), (56, 2)):
        ours = SplitProcessor(SplitSettings(side**2, (side * tiles) ** 2, tile_size=side))
        for width, height in generator.integers(1, 5000, (500, 2)).tolist():
            first = get_resize_output_image_size(np.broadcast_to(np.uint8(0), (3, height, width)), side * tiles)
            assert ours.scaled(width, height) == first[::-1]
            second = theirs.resize_for_vision_encoder(np.broadcast_to(np.uint8(0), (3, *first)), side)
            size = ours.image_size(width, height)
            assert (size.resized_width, size.resized_height) == second


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_prompts_are_those_of_transformers(backbone, scenes, tiles):
    """Its own template, what its processor writes for a picture, and its tokens; with the answer, as it is learnt."""
    processor = type(backbone.processor)(backbone.processor.tokenizer, FAMILY, settings(tiles))
    tokenizer, (sample,) = processor.tokenizer, scenes(1, [(150, 90)])
    example = processor.encode(sample, mode="think", target="rationale")
    asked = "Find and give the bounding box of " + sample.entity + "  Output the thinking process in <think> </think> "
    asked += "and final answer (bounding box) in <answer> </answer> tags."
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}
    said = {"role": "assistant", "content": [{"type": "text", "text": processor.completion(sample, "rationale")}]}
    rows, columns = example.pictures[0].tensors["grid"][0].tolist()
    assert (rows, columns) == {1: (0, 0), 2: (2, 2), 3: (2, 3)}[tiles]
    tokens = get_image_prompt_string(rows, columns, 4, "<fake_token_around_image>", "<image>", "<global-img>")
    for turns, ids in (([user], example.input_ids[example.labels == -100]), ([user, said], example.input_ids)):
        text = tokenizer.apply_chat_template(
            turns, chat_template=DEFAULT_CHAT_TEMPLATE, tokenize=False, add_generation_prompt=len(turns) == 1
        )
        expected = text.replace("<image>", tokens).removesuffix("\n")
        assert tokenizer.encode(expected, add_special_tokens=False) == ids.tolist()
        assert processor.expand(text, example.pictures[0]).removesuffix("\n") == expected
    assert processor.chat(asked) == tokenizer.apply_chat_template(
        [user], chat_template=DEFAULT_CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    third = processor.chat("What is it?", "a bird", "Which?", num_images=0)
    assert third == (
        "<|im_start|>User: What is it?<end_of_utterance>\nAssistant: a bird<end_of_utterance>\n"
        "User: Which?<end_of_utterance>\nAssistant:"
    )


def test_the_published_template_is_read_too(backbone):
    """It knows contents as lists alone, and would leave out a text."""
    published = (
        "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
        "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
        "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
        "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
        "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    )
    processor = Backbone("tiny", FAMILY).processor
    own = [processor.chat(*texts, num_images=num) for texts in (("a",), ("a", "b", "c")) for num in (0, 1, 2)]
    processor.tokenizer.chat_template = published
    assert own == [processor.chat(*texts, num_images=num) for texts in (("a",), ("a", "b", "c")) for num in (0, 1, 2)]


def test_an_export_is_what_transformers_needs(backbone, tmp_path):
    backbone.export(tmp_path)
    content = json.loads((tmp_path / "processor_config.json").read_text())
    assert content == {"processor_class": "SmolVLMProcessor", "image_seq_len": 4}
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(theirs) is SmolVLMImageProcessorPil
    expected = theirs(images=picture(97, 133), return_tensors="pt")["pixel_values"][0]
    own = backbone.processor.pictures.pixel_values(backbone.processor.picture(picture(97, 133)).tensors["tiles"])
    assert (own - expected).abs().max() < 1e-5


def test_tiles_of_the_mean_colour_are_seen(backbone):
    """Transformers takes what is 0 all over for padding; such pictures exist where the mean is a whole number."""
    processor = SplitProcessor(SplitSettings(56**2, 56**2, (51 / 255,) * 3, (0.5,) * 3, 56, 4))
    image = processor.picture(Image.new("RGB", (56, 56), (51, 51, 51)))
    assert processor.pixel_values(image.tensors["tiles"]).abs().max() < 1e-6
    pictures = SimpleNamespace(tensors=image.tensors, num_tokens=(4,))
    assert FAMILY.see(backbone.model, pictures, processor).tokens.shape == (4, 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": {"longest_edge": 1000}, "max_image_size": {"longest_edge": 384}}, "1000 is no multiple of max_image"),
        ({"size": {"height": 384, "width": 384}}, "size: .* is not a mapping with longest_edge alone"),
        ({"size": 384}, "size: 384 is not a mapping with longest_edge alone"),
        ({"max_image_size": {"longest_edge": 0}}, "max_image_size.longest_edge: 0 must be"),
        ({"size": {"longest_edge": 8192}, "max_image_size": {"longest_edge": 512}}, "size.longest_edge: 8192 must be"),
        ({"do_image_splitting": False}, "do_image_splitting: False is not true"),
        ({"resample": 3}, "resample: 3 is not 1"),
    ],
)
def test_settings_that_cannot_work(content, message):
    with pytest.raises(ConfigError, match=message):
        parse_split_settings(content, 4)


def test_areas_of_a_config(tmp_path):
    published = {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}, "resample": 1}
    stored = parse_split_settings(published, 81)
    assert (stored.min_pixels, stored.max_pixels, stored.longest_edge, stored.cell) == (384**2, 1536**2, 1536, 384)
    assert SplitSettings(384**2, 1_000_000, tile_size=384).longest_edge == 768  # two tiles; a third would be too much
    with pytest.raises(ConfigError, match="min_pixels: 200000 has no effect"):
        SplitProcessor(SplitSettings(200_000, 1536**2, tile_size=384))


def test_settings_that_do_not_fit_the_model(backbone):
    config = backbone.model.config
    assert FAMILY.check_pictures(settings(6), config) is None
    assert "more than 6 tiles" in FAMILY.check_pictures(settings(7), config)
    other = SplitSettings(64**2, 128**2, tile_size=64)
    assert "tiles have 64 px a side, and image_size in its config.json is 56" in FAMILY.check_pictures(other, config)
