"""What is new in InternVL: tiles of one size, marks around a picture, and boxes as a list."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import InternVLProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.internvl import InternVL
from kvg.backbones.tile_processor import TileProcessor, TileSettings, parse_tile_settings
from kvg.errors import ConfigError
from kvg.inference.vllm_server import VLLMServer

SIZES = ((140, 140), (641, 479), (4000, 21), (1, 150), (97, 101), (1009, 997))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("tiny", InternVL()).eval()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("max_tiles", [1, 2, 6])
def test_tiles_are_those_of_transformers(size, max_tiles):
    ours = TileProcessor(TileSettings(56 * 56, max_tiles * 56 * 56, tile_size=56, tile_tokens=4))
    content = {name: value for name, value in ours.file_content().items() if name != "image_processor_type"}
    expected = GotOcr2ImageProcessorPil(**content)(images=noise(*size), input_data_format="channels_last")
    picture = ours.picture(noise(*size))
    assert len(picture.tensors["tiles"]) == expected["num_patches"][0]
    assert picture.num_tokens == 4 * expected["num_patches"][0]
    pixels = ours.pixel_values(picture.tensors["tiles"])
    assert (pixels - torch.tensor(np.stack(expected["pixel_values"]))).abs().max() < 1e-5
    resized = ours.image_size(*size)
    num = len(picture.tensors["tiles"])
    assert resized.resized_width * resized.resized_height == 56 * 56 * (num - 1 if num > 1 else 1)


def test_a_prompt_is_that_of_transformers(backbone):
    """The template of the checkpoint, its placeholder replaced by transformers' own processor."""
    tokenizer = backbone.processor.tokenizer
    names = {name: getattr(tokenizer, name) for name in ("start_image_token", "end_image_token")}
    theirs = SimpleNamespace(**names, image_token=tokenizer.context_image_token, image_seq_length=4)
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Find <ref>Merlin</ref>"}]}
    text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\n<IMG_CONTEXT>\nFind <ref>Merlin</ref><|im_end|>\n<|im_start|>assistant\n"
    picture = backbone.processor.picture(noise(140, 140))
    expanded = text.replace(theirs.image_token, InternVLProcessor.replace_image_token(theirs, {"num_patches": [5]}, 0))
    ours = backbone.processor.encode_chat("k", [picture], ["Find <ref>Merlin</ref>"])
    assert ours.input_ids.tolist() == tokenizer.encode(expanded, add_special_tokens=False)


def test_answers_are_boxes_in_a_list(backbone, scenes):
    (sample,) = scenes(1)
    example = backbone.processor.encode(sample, mode="direct", target="answer")
    said = backbone.processor.tokenizer.decode(example.labels[example.labels != -100])
    assert said == backbone.processor.box_texts(sample)[sample.target] + "<|im_end|>"
    x1, y1, x2, y2 = (round(value * 1000 / 140) for value in sample.box_px)
    assert said == f"<box>[[{x1}, {y1}, {x2}, {y2}]]</box><|im_end|>"
    assert backbone.codec.is_canonical(f"[[{x1}, {y1}, {x2}, {y2}]]")
    assert not backbone.codec.is_canonical(f"({x1},{y1}),({x2},{y2})")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": {"height": 448, "width": 336}}, "size: {'height': 448, 'width': 336} is no square"),
        ({"size": {"shortest_edge": 448}}, "is no square"),
        ({"size": 448}, "size: 448 is no square"),
        ({"max_patches": 0.5}, "max_patches: 0.5 must be a whole number"),
        ({"min_patches": 13}, "min_patches: 13 is above max_patches, 12"),
        ({"max_patches": 10**9}, "max_patches"),
        ({"do_normalize": False}, "do_normalize: False is not True"),
    ],
)
def test_settings_that_cannot_work_are_refused(content, message):
    with pytest.raises(ConfigError) as caught:
        parse_tile_settings(content, 256)
    assert message in str(caught.value)


def test_settings_of_published_checkpoints():
    published = {"size": {"height": 448, "width": 448}, "crop_to_patches": False, "image_mean": [0.485, 0.456, 0.406],
                 "image_std": [0.229, 0.224, 0.225], "max_patches": 12, "min_patches": 1}  # fmt: skip
    settings = parse_tile_settings(published, 256)
    assert settings == TileSettings() == parse_tile_settings({}, 256)
    assert settings.num_tiles == (1, 12)
    # The paper's 401,408 pixels are two tiles.
    assert TileProcessor(TileSettings(max_pixels=401_408)).image_size(1000, 400).resized_width == 896


def test_files_that_do_not_belong_together_are_refused(backbone, tmp_path):
    backbone.export(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "size": {"height": 112, "width": 112}}))
    with pytest.raises(ConfigError, match=r"tiles have 112 px a side, and image_size in its config\.json is"):
        Backbone(str(tmp_path))
    path.write_text(json.dumps(content))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "image_seq_length": 5}))
    with pytest.raises(ConfigError, match=r"a tile has 4 visual tokens, and image_seq_length in its config\.json is 5"):
        Backbone(str(tmp_path))


def test_weights_are_read_under_their_published_names(backbone, tmp_path):
    """Of the published files: the language model's own head, and no ``model.`` before the parts."""
    backbone.export(tmp_path)
    weights = {}
    for name, value in load_file(tmp_path / "model.safetensors").items():
        part, _, rest = name.removeprefix("model.").partition(".")
        before = "language_model.model" if part == "language_model" else part
        weights[f"{before}.{rest.removeprefix('model.')}"] = value
    assert {name.split(".")[0] for name in weights} == {"language_model", "vision_tower", "multi_modal_projector"}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    again = Backbone(str(tmp_path)).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in backbone.model.state_dict().items())


def test_a_head_of_its_own_is_exported(tmp_path):
    """Settings that tie it say nothing of files that hold one, as those of InternVL3-8B do."""
    backbone = Backbone("tiny", InternVL())
    backbone.model.lm_head.weight = torch.nn.Parameter(backbone.model.lm_head.weight.detach() * 2)
    assert backbone.model.config.tie_word_embeddings
    backbone.export(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    (name,) = (name for name in stored if "lm_head" in name)
    assert torch.equal(stored[name], backbone.model.lm_head.weight)


def test_vllm_is_refused(backbone):
    """It would cut the pictures into tiles and mark them once more."""
    with pytest.raises(ConfigError, match="vLLM cannot sample for internvl, which cuts pictures into tiles"):
        VLLMServer("http://127.0.0.1:9", "m", "f").sample(backbone, None, None, 1, None)
