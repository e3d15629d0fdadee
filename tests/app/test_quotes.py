"""Quoted boxes: which there are while a text comes, how the text looks, and what is on the picture."""

from __future__ import annotations

import pytest
from PIL import Image

from kvg.app.examples import load_examples, question_key, true_boxes
from kvg.app.quotes import answer_box, picture_with_boxes, read_quotes, text_as_html
from kvg.errors import DataError
from kvg.pipeline.grounding import BOX_COLOUR
from kvg.text.answer import read_answer
from kvg.text.box_codec import AbsoluteCodec, ImageSize, RelativeCodec
from kvg.types import Completion

SIZE = ImageSize(200, 100, 224, 112)
TEXT = (
    "<think>1 (0,0),(100,200) red <b>; 2 (500,500),(900,900) blue; 1 (0,0),(100,200)</think>"
    "<answer>(500,500),(900,900)</answer>"
)
ONE, TWO = (0.0, 0.0, 20.0, 20.0), (100.0, 50.0, 180.0, 90.0)


def test_boxes_are_numbered_and_the_answer_is_known_apart():
    quotes = read_quotes(TEXT, RelativeCodec(), SIZE, TWO)
    assert [(quote.number, quote.box_px) for quote in quotes] == [(1, ONE), (2, TWO), (1, ONE), (0, TWO)]
    assert [TEXT[quote.start : quote.stop] for quote in quotes][1] == "(500,500),(900,900)"
    assert quotes[-1].colour == BOX_COLOUR


def test_the_answer_is_the_one_that_is_read_at_the_end_however_much_has_come():
    for end in range(len(TEXT) + 1):
        box = answer_box(TEXT[:end], RelativeCodec(), SIZE)
        assert box == (TWO if end >= TEXT.rindex(")") + 1 else None)
    assert read_answer(Completion(TEXT, 9, "stop"), RelativeCodec(), SIZE).box_px == TWO


def test_a_box_of_another_convention_is_in_pixels_of_the_picture():
    text = 'It is here: {"bbox_2d": [56, 28, 112, 56]}'
    (quote,) = read_quotes(text, AbsoluteCodec(), SIZE, None)
    assert (quote.number, quote.box_px) == (1, (50.0, 25.0, 100.0, 50.0))


def test_html_has_no_tags_of_the_model():
    html = text_as_html(TEXT, read_quotes(TEXT, RelativeCodec(), SIZE, TWO))
    assert "think" not in html
    assert "red &lt;b&gt;; 2 <span" in html
    assert html.count('style="--box: rgb(37, 99, 235)"><b>1</b> (0,0),(100,200)</span>') == 2
    assert html.endswith('style="--box: rgb(255, 40, 40)">(500,500),(900,900)</span>')
    assert html.count("Answer</span> <span") == 1


def test_boxes_are_where_the_numbers_say_on_an_enlarged_picture():
    picture = Image.new("RGB", (200, 100), "white")
    quotes = read_quotes(TEXT, RelativeCodec(), SIZE, TWO)
    sized = picture_with_boxes(picture, quotes, TWO)
    assert sized.size == (1120, 560)
    assert sized.getpixel((560, 400)) == BOX_COLOUR  # left side of the answer
    assert sized.getpixel((560 - 8, 400)) == quotes[1].colour  # the same box, around it
    assert sized.getpixel((112, 60)) == quotes[0].colour
    assert max(picture_with_boxes(Image.new("RGB", (4000, 3000)), [], None).size) == 1400
    assert picture_with_boxes(Image.new("RGB", (1, 4000)), [], None).size == (1, 1400)


def test_examples_are_of_both_splits(lab_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the demo has not run here
    for examples in (load_examples(None), load_examples(lab_shards(tmp_path / "set", 60))):
        assert [example.split for example in examples] == ["unseen"] * 6 + ["seen"] * 6
        assert len({example.entity for example in examples}) == 12
    first = examples[0]
    assert true_boxes(examples)[question_key(first.picture, f" {first.entity} ")] == first.box_px
    with pytest.raises(DataError, match="nowhere"):
        load_examples(tmp_path / "nowhere")
