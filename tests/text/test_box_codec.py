"""Codecs: hand-worked coordinates of each convention, the round trip, and tables of readable and unreadable texts."""

from __future__ import annotations

import pickle
import random

import pytest

from kvg.text.box_codec import AbsoluteCodec, BoxCodec, ImageSize, RelativeCodec, to_norm
from kvg.types import Box

# Stored at 400 x 200, seen by the model at 448 x 224: a factor of 1.12 on both axes.
SIZE = ImageSize(400, 200, 448, 224)
BOX: Box = (100.0, 50.0, 300.0, 150.0)


def test_to_norm() -> None:
    assert to_norm(BOX, SIZE) == (250.0, 250.0, 750.0, 750.0)


@pytest.mark.parametrize(
    ("codec", "box", "text"),
    [
        (RelativeCodec(), BOX, "<|box_start|>(250,250),(750,750)<|box_end|>"),
        (RelativeCodec(as_json=True), BOX, '{"bbox_2d": [250, 250, 750, 750]}'),
        (AbsoluteCodec(), BOX, '{"bbox_2d": [112, 56, 336, 168]}'),
        (RelativeCodec(), (0, 0, 400, 200), "<|box_start|>(0,0),(1000,1000)<|box_end|>"),
        (RelativeCodec(), (-8, -8, 500, 500), "<|box_start|>(0,0),(1000,1000)<|box_end|>"),
        (AbsoluteCodec(), (-8, -8, 500, 500), '{"bbox_2d": [0, 0, 448, 224]}'),
        # 1.1 px of 400 is 2.75 -> 3; of 200 it is 5.5 -> 6 (half to even), 10.3 px of 200 is 51.5 -> 52
        (RelativeCodec(), (1.1, 1.1, 10.3, 10.3), "<|box_start|>(3,6),(26,52)<|box_end|>"),
        # thinner than a grid step: kept one step wide, also at the far border
        (RelativeCodec(), (100.0, 50.0, 100.1, 150.0), "<|box_start|>(250,250),(251,750)<|box_end|>"),
        (RelativeCodec(), (399.9, 50.0, 400.0, 150.0), "<|box_start|>(999,250),(1000,750)<|box_end|>"),
    ],
)
def test_encode(codec: BoxCodec, box: Box, text: str) -> None:
    assert codec.encode(box, SIZE) == text
    assert codec.is_canonical(text)


@pytest.mark.parametrize(
    "text",
    [
        "<|box_start|>(250,250),(750,750)<|box_end|>",
        "(250,250),(750,750)",  # special tokens stripped
        "<|object_ref_start|>Merlin<|object_ref_end|><|box_start|>(250,250),(750,750)<|box_end|>",
        "(250, 250), (750, 750)",
        "(250.0,250.0),(750.0,750.0)",
        "the box is [250, 250, 750, 750].",
        "[250,250,750,750]",  # refused by the published patterns, which ask for spaces
        "(250,250,750,750)",
        '```json\n[{"bbox_2d": [250, 250, 750, 750], "label": "Merlin"}]\n```',
        "first (1,2),(3,4), better (250,250),(750,750)",  # the last one counts
        "[1, 2, 3, 4] (250,250),(750,750) [5, 6, 7, 8]",  # corner form before bracket form
    ],
)
def test_relative_reads(text: str) -> None:
    assert RelativeCodec().decode(text, SIZE) == BOX


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot see it",
        "250 250 750 750",
        "250,250,750,750",
        "(250,250)",
        "(250,250),(750",
        "(250,250),(750,750",
        "(a,b),(c,d)",
        "[250, 250, 750]",
        "[250, 250, 750, 750, 1]",
        "(250,,250),(750,750)",
        "(٢٥٠,250),(750,750)",
        "(nan,nan),(nan,nan)",
    ],
)
def test_unreadable(text: str) -> None:
    assert RelativeCodec().decode(text, SIZE) is None
    assert AbsoluteCodec().decode(text, SIZE) is None


def test_absolute_reads_pixels_of_the_resized_image() -> None:
    text = '```json\n[\n\t{"bbox_2d": [112, 56, 336, 168], "label": "Merlin"}\n]\n```'
    assert AbsoluteCodec().decode(text, SIZE) == pytest.approx(BOX)


def test_conventions_are_not_interchangeable() -> None:
    text = AbsoluteCodec().encode(BOX, SIZE)
    assert RelativeCodec().decode(text, SIZE) == pytest.approx((44.8, 11.2, 134.4, 33.6))


def test_out_of_range_is_clamped() -> None:
    assert RelativeCodec().decode("(-5,10),(1200,2000)", SIZE) == (0.0, 2.0, 400.0, 200.0)
    assert AbsoluteCodec().decode("[-5, 0, 9999, 9999]", SIZE) == (0.0, 0.0, 400.0, 200.0)
    assert RelativeCodec().decode(f"(0,0),({'9' * 400},500)", SIZE) == (0.0, 0.0, 400.0, 100.0)


def test_swapped_corners_are_left_for_the_iou_to_refuse() -> None:
    assert RelativeCodec().decode("(750,750),(250,250)", SIZE) == (300.0, 150.0, 100.0, 50.0)


def test_unit_boxes_are_a_named_quirk() -> None:
    text = "(0.25, 0.25), (0.75, 0.75)"
    assert RelativeCodec(published_unit_boxes=True).decode(text, SIZE) == BOX
    assert RelativeCodec().decode(text, SIZE) == pytest.approx((0.1, 0.05, 0.3, 0.15))


@pytest.mark.parametrize("codec", [RelativeCodec(), RelativeCodec(as_json=True), AbsoluteCodec()])
def test_round_trip_is_within_half_a_step(codec: BoxCodec) -> None:
    rng = random.Random(0)
    for _ in range(200):
        width, height = rng.randint(30, 2000), rng.randint(30, 2000)
        size = ImageSize(width, height, 28 * rng.randint(2, 40), 28 * rng.randint(2, 40))
        x1, y1 = rng.uniform(0, width * 0.7), rng.uniform(0, height * 0.7)
        box = (x1, y1, rng.uniform(x1 + width * 0.1, width), rng.uniform(y1 + height * 0.1, height))
        read = codec.decode(codec.encode(box, size), size)
        assert read is not None
        steps = (1000, 1000) if isinstance(codec, RelativeCodec) else (size.resized_width, size.resized_height)
        for axis in range(4):
            extent = (width, height)[axis % 2]
            assert abs(read[axis] - box[axis]) <= 0.5 * extent / steps[axis % 2] + 1e-9


@pytest.mark.parametrize(
    ("text", "relative", "as_json"),
    [
        ("(1,2),(3,4)", True, False),
        ("<|object_ref_start|>Merlin<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", True, False),
        (" (1,2),(3,4)\n", True, False),
        ("(1, 2),(3, 4)", False, False),  # reads, but earns no half, as published
        ("(1.0,2.0),(3.0,4.0)", False, False),
        ("(1,2),(3,4) and (5,6),(7,8)", False, False),
        ("the box: (1,2),(3,4)", False, False),
        ('{"bbox_2d": [1, 2, 3, 4]}', False, True),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "Merlin"}]\n```', False, True),
        ('{"bbox_2d": [1.5, 2, 3, 4]}', False, False),
        ('{"bbox_2d": [1, 2, 3]}', False, False),
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]', False, False),
        ("[1, 2, 3, 4]", False, False),
        ("", False, False),
    ],
)
def test_canonical(text: str, relative: bool, as_json: bool) -> None:
    assert RelativeCodec().is_canonical(text) is relative
    assert RelativeCodec(as_json=True).is_canonical(text) is as_json
    assert AbsoluteCodec().is_canonical(text) is as_json


def test_codecs_travel_to_worker_processes() -> None:
    codec = pickle.loads(pickle.dumps(RelativeCodec(as_json=True)))
    assert codec.encode(BOX, SIZE) == '{"bbox_2d": [250, 250, 750, 750]}'
