"""Completions that are read: parts, box in pixels and form, by the codec of the model that wrote them."""

import pytest

from kvg.text.answer import read_answer
from kvg.text.box_codec import AbsoluteCodec, ImageSize, RelativeCodec
from kvg.types import Completion

SIZE = ImageSize(200, 100, 400, 200)


@pytest.mark.parametrize(
    ("text", "codec", "box", "form", "canonical"),
    [
        ("<think>a</think><answer>(0,0),(500,1000)</answer>", RelativeCodec(), (0.0, 0.0, 100.0, 100.0), 1, True),
        ("<answer>[0, 0, 500, 1000]</answer>", RelativeCodec(), (0.0, 0.0, 100.0, 100.0), 2, False),
        ('<answer>{"bbox_2d": [0, 0, 200, 200]}</answer>', AbsoluteCodec(), (0.0, 0.0, 100.0, 100.0), 2, True),
        ("(0,0),(500,1000)", RelativeCodec(), (0.0, 0.0, 100.0, 100.0), 1, False),  # no answer block
        ("<think>(0,0),(500,1000)</think><answer>left</answer>", RelativeCodec(), None, 0, False),
        ("<think>(0,0),(500,1000)", RelativeCodec(), None, 0, False),  # cut off while thinking
        ("", RelativeCodec(), None, 0, False),
    ],
)
def test_the_box_is_that_of_the_answer(text, codec, box, form, canonical):
    answer = read_answer(Completion(text, 5, "stop"), codec, SIZE)
    assert (answer.box_px, answer.box_form, answer.canonical) == (box, form, canonical)
    assert answer.completion == Completion(text, 5, "stop")


def test_parts_are_those_of_the_completion():
    answer = read_answer(
        Completion("<think> two birds </think><answer>left</answer>", 5, "length"), RelativeCodec(), SIZE
    )
    assert (answer.rationale, answer.answer, answer.well_formed, answer.tagged) == ("two birds", "left", True, True)
