"""What is new in GLM-4.1V: areas of two frames, a turn that ends where the next begins, and its form of boxes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.glm4v.processing_glm4v import Glm4vProcessor

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.glm4v import FramesProcessor, Glm4V
from kvg.backbones.picture_settings import PatchSettings
from kvg.errors import ConfigError
from kvg.text.box_codec import ImageSize

SIZES = ((133, 97), (641, 479), (4000, 21), (1, 150), (7, 13), (448, 448), (29, 27), (1009, 997))
# As published with the checkpoint, but for videos. It prints what the model said as it is: a text, never a list.
PUBLISHED = """[gMASK]<sop>
{%- for msg in messages %}
    {%- if msg.role == 'system' %}
<|system|>
{{ msg.content }}
    {%- elif msg.role == 'user' %}
<|user|>{{ '\\n' }}
        {%- if msg.content is string %}
{{ msg.content }}
        {%- else %}
            {%- for item in msg.content %}
                {%- if item.type == 'image' or 'image' in item %}
<|begin_of_image|><|image|><|end_of_image|>
                {%- elif item.type == 'text' %}
{{ item.text }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
    {%- elif msg.role == 'assistant' %}
<|assistant|>
{{ msg.content }}
    {%- endif %}
{%- endfor %}
{% if add_generation_prompt %}<|assistant|>
{% endif %}"""


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("tiny", Glm4V()).eval()


@pytest.mark.parametrize("areas", [(784, 19_600), (6_272, 100_352)])
def test_pictures_are_cut_as_transformers_cuts_them(areas):
    ours = FramesProcessor(PatchSettings(*areas))
    theirs = Glm4vImageProcessorPil(size={"shortest_edge": 2 * areas[0], "longest_edge": 2 * areas[1]})
    for size in SIZES:
        expected, picture = theirs(images=noise(*size), return_tensors="pt"), ours.picture(noise(*size))
        assert picture.tensors["grid"].tolist() == expected["image_grid_thw"].tolist(), size
        assert (ours.pixel_values(picture.tensors["patches"]) - expected["pixel_values"]).abs().max() < 1e-5, size


def test_an_export_is_what_transformers_needs(tmp_path):
    backbone = Backbone("tiny", Glm4V(), min_pixels=3136, max_pixels=100_352)
    backbone.export(tmp_path)
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(theirs) is Glm4vImageProcessorPil
    assert (theirs.size.shortest_edge, theirs.size.longest_edge) == (6272, 200_704)
    assert Backbone(str(tmp_path)).processor.pictures.settings == backbone.processor.pictures.settings


@pytest.mark.parametrize("template", [None, PUBLISHED], ids=["own", "published"])
def test_prompts_are_those_of_the_published_template(backbone, template):
    processor = type(backbone.processor)(backbone.processor.tokenizer, Glm4V())
    tokenizer, image = processor.tokenizer, noise(140, 140)
    own, tokenizer.chat_template = tokenizer.chat_template, template or tokenizer.chat_template
    try:
        for turns in (["a"], ["a", "b <think>c</think>", "d"]):
            for num in (0, 1, 2):
                said = [
                    {"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(turns)
                ]
                said[0]["content"] = [{"type": "image"}] * num + [{"type": "text", "text": turns[0]}]
                expected = tokenizer.apply_chat_template(
                    said, chat_template=PUBLISHED, tokenize=False, add_generation_prompt=True
                )
                assert processor.chat(*turns, num_images=num) == expected
                picture = processor.picture(image)
                tokens = Glm4vProcessor.replace_image_token(_Named, {"image_grid_thw": picture.tensors["grid"]}, 0)
                assert tokens == "<|image|>" * 25
                ids = processor.encode_chat("k", [picture] * num, turns).input_ids.tolist()
                assert ids == tokenizer.encode(expected.replace("<|image|>", tokens), add_special_tokens=False)
    finally:
        tokenizer.chat_template = own
    assert processor.chat("a") == ("[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>a<|assistant|>\n")


class _Named:
    """What that method of transformers' processor reads of it."""

    image_token = "<|image|>"
    image_processor = Glm4vImageProcessorPil()


def test_an_answer_ends_where_the_users_turn_begins(backbone, scenes):
    (sample,) = scenes(1)
    example = backbone.processor.encode(sample, mode="direct", target="answer")
    x1, y1, x2, y2 = (round(value * 1000 / 140) for value in sample.box_px)
    said = backbone.processor.tokenizer.decode(example.labels[example.labels != -100])
    assert said == f"<|begin_of_box|>[{x1}, {y1}, {x2}, {y2}]<|end_of_box|><|user|>"
    assert backbone.processor.ids("<|user|>")[0] in backbone.end_token_ids


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("<|begin_of_box|>[100, 100, 500, 990]<|end_of_box|>", True),
        ("<|begin_of_box|>[[100,100,500,990]]<|end_of_box|>", True),
        ("[100, 100, 500, 990]", True),
        ("<|begin_of_box|>[[100, 100, 500, 990], [1, 2, 3, 4]]<|end_of_box|>", False),
        ("<|begin_of_box|>[[100, 100, 500, 990]<|end_of_box|>", False),
        ("(100,100),(500,990)", False),
    ],
)
def test_boxes_in_the_brackets_that_were_published(backbone, text, canonical):
    assert backbone.codec.is_canonical(text) is canonical
    if canonical:
        assert backbone.codec.decode(text, ImageSize(200, 100, 224, 112)) == (20.0, 10.0, 100.0, 99.0)


def test_areas_of_a_file_are_those_of_two_frames():
    family = Glm4V()
    assert family.picture_settings({}, None) == PatchSettings(6272, 28 * 28 * 7500)
    stored = family.picture_settings({"size": {"shortest_edge": 12_545, "longest_edge": 200_705}}, None)
    assert (stored.min_pixels, stored.max_pixels) == (6273, 100_352)
    assert family.picture_settings({"min_pixels": 1, "max_pixels": 2}, None) == family.picture_settings({}, None)
    with pytest.raises(ConfigError, match="size: 448 is no mapping"):
        family.picture_settings({"size": 448}, None)
    with pytest.raises(ConfigError, match="shortest_edge / frames: 392 must be"):
        family.picture_settings({"size": {"shortest_edge": 784}}, None)
