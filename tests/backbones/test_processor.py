"""Pictures to patches as transformers cuts them, and every way a picture can be wrong."""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import lab_tokenizer
from kvg.backbones.families.qwen2_5_vl import Qwen25VL
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.picture_settings import PatchSettings
from kvg.backbones.processor import ChatProcessor
from kvg.errors import ConfigError, DataError
from kvg.types import SceneObject


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


@pytest.mark.parametrize(
    ("size", "max_pixels", "resized"),
    [
        ((140, 140), 401_408, (140, 140)),
        ((28, 28), 401_408, (56, 56)),  # enlarged to min_pixels
        ((133, 97), 401_408, (140, 84)),  # to the nearest multiples of 28; Python rounds 3.46 to 3
        ((641, 479), 401_408, (644, 476)),
        ((641, 479), 140 * 140, (140, 112)),  # over the budget: floored to multiples of 28
        ((33, 500), 401_408, (28, 504)),
    ],
)
def test_patches_are_those_of_transformers(size, max_pixels, resized):
    ours = ChatProcessor(lab_tokenizer(), Qwen2VL(), PatchSettings(56 * 56, max_pixels))
    theirs = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": max_pixels})
    image = picture(*size)
    tensors = ours.picture(image).tensors
    patches, grid = tensors["patches"], tensors["grid"][0]
    expected = theirs(images=image, return_tensors="pt")
    assert grid.tolist() == expected["image_grid_thw"][0].tolist() == [1, resized[1] // 14, resized[0] // 14]
    assert patches.dtype == torch.uint8
    assert (ours.pictures.pixel_values(patches) - expected["pixel_values"]).abs().max() < 1e-5
    found = ours.image_size(*size)
    assert (found.resized_width, found.resized_height) == resized


def test_grey_and_transparent_pictures_become_rgb():
    processor = ChatProcessor(lab_tokenizer(), Qwen2VL())
    grey = picture(84, 56, "L")
    assert torch.equal(*(processor.picture(p).tensors["patches"] for p in (grey, grey.convert("RGB"))))
    assert processor.picture(picture(84, 56, "RGBA")).tensors["patches"].shape == (24, 3 * 14 * 14)


def test_boxes_are_written_for_the_picture_that_the_model_sees(scenes):
    sample = scenes(1, [(140, 140)])[0]
    boxes = (SceneObject("A", (0.0, 0.0, 70.0, 140.0)), SceneObject("B", (70.0, 35.0, 140.0, 105.0)))
    sample = replace(sample, objects=boxes, target=1)
    relative = ChatProcessor(lab_tokenizer(), Qwen2VL(), PatchSettings(max_pixels=70 * 70))
    absolute = ChatProcessor(lab_tokenizer(), Qwen25VL(), PatchSettings(max_pixels=70 * 70))
    assert relative.box_texts(sample)[1] == "<|box_start|>(500,250),(1000,750)<|box_end|>"
    # 140 px shrink to 56: two fifths.
    assert absolute.box_texts(sample)[1] == '{"bbox_2d": [28, 14, 56, 42]}'


def test_pickled_processor_gives_the_same_example(scenes):
    sample = scenes(1)[0]
    processor = Backbone("tiny").processor
    copied = pickle.loads(pickle.dumps(processor))
    ours, theirs = (p.encode(sample, mode="think", target="rationale") for p in (processor, copied))
    assert torch.equal(ours.input_ids, theirs.input_ids)
    assert torch.equal(ours.labels, theirs.labels)
    (one,), (other,) = ours.pictures, theirs.pictures
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    assert (one.num_tokens, one.source) == (other.num_tokens, other.source)


@pytest.fixture
def processor():
    return Backbone("tiny").processor


def jpeg(sample) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(sample.image)).save(buffer, "JPEG")
    return buffer.getvalue()


def fault(processor, sample, target="rationale") -> DataError:
    with pytest.raises(DataError) as caught:
        processor.encode(sample, mode="think", target=target)
    assert sample.key in str(caught.value)
    return caught.value


def test_truncated_jpeg(processor, scenes):
    sample = scenes(1)[0]
    data = jpeg(sample)
    processor.encode(replace(sample, image=data), mode="think", target="rationale")
    error = fault(processor, replace(sample, image=data[: len(data) // 2]))
    assert (error.field, "is cut off" in error.remedy) == ("image", True)


@pytest.mark.parametrize("data", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture(processor, scenes, data):
    assert fault(processor, replace(scenes(1)[0], image=data)).field == "image"


def test_damaged_png(processor, scenes):
    sample = scenes(1)[0]
    data = bytearray(sample.image)
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    assert fault(processor, replace(sample, image=bytes(data))).field == "image"


def test_size_that_is_not_the_records(processor, scenes):
    error = fault(processor, replace(scenes(1)[0], width=280))
    assert error.field == "width, height"
    assert "the picture is 140x140, the record says 280x140" in error.remedy


@pytest.mark.parametrize("box", [(-9.0, 0.0, 20.0, 20.0), (0.0, 0.0, 141.5, 20.0), (150.0, 150.0, 180.0, 180.0)])
@pytest.mark.parametrize("of_target", [True, False])
def test_box_outside_its_image(processor, scenes, box, of_target):
    sample = scenes(1)[0]
    index = sample.target if of_target else 1 - sample.target
    objects = [replace(o, box_px=box) if n == index else o for n, o in enumerate(sample.objects)]
    error = fault(processor, replace(sample, objects=tuple(objects)), target=None)
    assert error.field == f"objects[{index}].box_px"
    assert "140x140" in error.remedy


def test_elongated_picture(processor, scenes):
    """Qwen's resizing refuses sides beyond 200 to 1."""
    buffer = io.BytesIO()
    picture(4, 1000).save(buffer, "PNG")
    sample = scenes(1)[0]
    objects = tuple(replace(o, box_px=(0.0, 0.0, 4.0, 9.0)) for o in sample.objects)
    sample = replace(sample, image=buffer.getvalue(), width=4, height=1000, objects=objects)
    assert fault(processor, sample).field == "image"


def test_missing_rationale(processor, scenes):
    assert fault(processor, replace(scenes(1)[0], rationale="")).field == "rationale"


def test_rationale_of_an_object_that_is_not_there(processor, scenes):
    assert fault(processor, replace(scenes(1)[0], rationale="Look: 1 <box:7>.")).field == "rationale"


def test_name_that_pretends_to_be_a_picture(processor, scenes):
    sample = scenes(1)[0]
    objects = tuple(replace(o, entity="Magpie <|image_pad|>") for o in sample.objects)
    assert "<|image_pad|>" in fault(processor, replace(sample, objects=objects)).remedy
    assert "<|image_pad|>" in fault(processor, replace(sample, rationale="Look: <|image_pad|>.")).remedy


def test_unknown_mode(processor, scenes):
    with pytest.raises(ConfigError, match="'thinking' is not a prompt"):
        processor.encode(scenes(1)[0], mode="thinking", target=None)


CONTROL = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]


@pytest.mark.parametrize("token", CONTROL)
def test_no_text_reaches_the_model_as_a_control_token(processor, scenes, token):
    sample = scenes(1)[0]
    text = f"use {token} here"
    calls = [
        lambda: processor.encode_turns(sample, [text]),
        lambda: processor.encode_turns(sample, ["a", text, "b"]),
        lambda: processor.encode_question(sample.key, sample.image, text, "A"),
        lambda: processor.encode_question(sample.key, sample.image, "Which?", text),
        lambda: processor.encode_text(text, "A"),
        lambda: processor.encode_text("Which?", text),
        lambda: processor.encode_text(None, text),
        lambda: processor.encode_chat("k", processor.encode_turns(sample, ["a"]).pictures, ["a", text, "b"]),
    ]
    for call in calls:
        with pytest.raises(DataError, match=re.escape(f"may not hold {token}")):
            call()


def test_marks_of_names_and_boxes_are_encoded(processor, scenes):
    text = "<|object_ref_start|>Merlin<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|> <think> <image> <|x|>"
    ids = processor.encode_text(None, text).input_ids.tolist()
    assert processor.tokenizer.decode(ids[1:-1]) == text
    marks = processor.tokenizer.convert_tokens_to_ids(["<|object_ref_start|>", "<|box_end|>"])
    assert set(marks) <= set(ids)
