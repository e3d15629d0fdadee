"""The artifact test: what each kind does to a picture, how much, and what it leaves alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.corruptions import KINDS, STRENGTHS, corrupted
from kvg.evaluation.records.prediction import Prediction
from kvg.evaluation.records.question import Question
from kvg.text.box_codec import ImageSize, RelativeCodec
from kvg.types import Sample, SceneObject

RED, BLUE, SAND = (180, 60, 60), (60, 60, 180), (200, 190, 160)


def pixels(question):
    with Image.open(io.BytesIO(question.sample.image)) as image:
        return np.asarray(image.convert("RGB"), np.float64)


def asked(image, boxes, key="k0", form="PNG", **provenance):
    buffer = io.BytesIO()
    image.save(buffer, form, quality=95)
    objects = tuple(SceneObject(f"bird {i}", tuple(map(float, box))) for i, box in enumerate(boxes))
    provenance = provenance or {"layout": "grid"}
    sample = Sample(key, buffer.getvalue(), *image.size, "bird", "seen", objects, 0, provenance=provenance)
    return Question(sample, "test")


def composite(width=140, height=140, form="PNG", key="k0"):
    """Two tiles that meet in the middle, each with a striped object in it."""
    image = Image.new("RGB", (width, height), RED)
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height), fill=BLUE)
    boxes = []
    for left in (width // 8, width // 2 + width // 8):
        box = (left, height // 4, left + width // 4, 3 * height // 4)
        for x in range(box[0], box[2]):
            draw.line((x, box[1] + height // 16, x, box[3] - height // 16), fill=(40 * (x % 6), 90, 30))
        boxes.append(box)
    return asked(image, boxes, key, form)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_each_strength_changes_more_than_the_one_before(kind, form):
    question = composite(160, 120, form)
    before, last = pixels(question), 0.0
    for strength in STRENGTHS:
        made = corrupted(question, kind, strength, seed=3)
        assert (made.artifact, made.strength, made.set_name) == (kind, strength, "test")
        assert made.sample.objects == question.sample.objects
        after = pixels(made)
        assert after.shape == before.shape
        changed = np.abs(after - before).mean()
        assert changed > last
        last = changed
        assert made.sample.image.startswith(b"\xff\xd8" if kind == "jpeg" else b"\x89PNG")
    assert last > 4
    assert (question.artifact, question.strength) == ("", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_whatever_came_before(kind):
    first, second = composite(), composite(key="k1")
    alone = corrupted(first, kind, 4, 7).sample.image
    assert [corrupted(q, kind, s, 7).sample.image for q in (second, first) for s in (5, 4)][3] == alone
    draws = kind in ("noise", "colour")
    assert (corrupted(first, kind, 4, 8).sample.image != alone) is draws
    assert (corrupted(second, kind, 4, 7).sample.image != alone) is draws


def test_a_line_tells_of_it_and_is_another_question():
    question = corrupted(composite(), "blur", 2, 0)
    line = question.line("no idea", "direct", RelativeCodec(), ImageSize(140, 140, 140, 140))
    assert (line["artifact"], line["strength"]) == ("blur", 2)
    assert Prediction.from_line(line, "line 1").id == "test/k0@blur-2"


@pytest.mark.parametrize(("strength", "sigma"), [(1, 8), (2, 16), (3, 32)])
def test_noise_has_its_deviation_and_no_mean(strength, sigma):
    question = asked(Image.new("RGB", (200, 200), (128, 128, 128)), [(0, 0, 200, 200)])
    change = pixels(corrupted(question, "noise", strength, 0)) - 128
    assert change.std() == pytest.approx(sigma, rel=0.02)  # 120,000 draws
    assert change.mean() == pytest.approx(0, abs=5 * sigma / np.sqrt(change.size))
    assert abs(np.corrcoef(change[..., 0].ravel(), change[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("side", [140, 480])
def test_blur_is_a_share_of_the_picture(side):
    """From 10% to 90% a blurred edge takes 2.563 deviations; the strongest is 2.5% of the shorter side."""
    image = Image.new("L", (side + 60, side))
    ImageDraw.Draw(image).rectangle((side // 2, 0, side + 60, side), fill=255)
    row = pixels(corrupted(asked(image, [(0, 0, 9, 9)]), "blur", 5, 0))[side // 2, :, 0]
    assert ((row > 25.5) & (row < 229.5)).sum() == pytest.approx(2.563 * 0.025 * side, abs=1.5)


def test_jpeg_is_stored_with_its_quality():
    question = composite(320, 240)
    for strength, quality in zip(STRENGTHS, (60, 40, 25, 15, 8), strict=True):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        with (
            Image.open(buffer) as wanted,
            Image.open(io.BytesIO(corrupted(question, "jpeg", strength, 0).sample.image)) as got,
        ):
            assert got.quantization == wanted.quantization


def test_colour_shifts_all_pixels_alike_and_in_proportion():
    image = Image.new("RGB", (40, 40), (120, 100, 80))
    for key in "abcdef":
        question = asked(image, [(0, 0, 20, 20)], key)
        shifts = [pixels(corrupted(question, "colour", s, 0)) - (120, 100, 80) for s in STRENGTHS]
        assert all(np.ptp(shift, axis=(0, 1)).max() == 0 for shift in shifts)
        one, five = (shifts[i][0, 0] for i in (0, 4))
        assert np.abs(five).max() > 10
        assert np.abs(five - 5 * one).max() < 0.4 * np.abs(five).max() + 3  # hue and gains multiply, so nearly


def test_a_turn_of_hue_keeps_the_sum_of_the_channels_but_for_the_gains():
    """Of a grey pixel only the gains are left: each channel at most 1.25 * 1.25 times, at least 0.75 * 0.75 times."""
    for key in "abcdef":
        grey = asked(Image.new("RGB", (9, 9), (100, 100, 100)), [(0, 0, 9, 9)], key)
        made = pixels(corrupted(grey, "colour", 5, 0))[0, 0]
        assert all(56 <= value <= 157 and value != 100 for value in made)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(140, 140), (640, 480)])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_no_pixel_of_an_object_changes_where_seams_go(size, form, strength):
    question = composite(*size, form)
    before, after = pixels(question), pixels(corrupted(question, "seams", strength, 0))
    outside = np.ones(before.shape[:2], bool)
    for one in question.sample.objects:
        x1, y1, x2, y2 = map(int, one.box_px)
        assert np.array_equal(before[y1:y2, x1:x2], after[y1:y2, x1:x2])
        outside[y1:y2, x1:x2] = False
    assert (before[outside] != after[outside]).any()


@pytest.mark.parametrize("size", [(140, 140), (640, 480)])
def test_the_border_of_tiles_fades_and_is_gone_at_last(size):
    question = composite(*size)
    steps = []
    for strength in (0, *STRENGTHS):
        image = pixels(corrupted(question, "seams", strength, 0) if strength else question)
        steps.append(np.abs(np.diff(image, axis=1))[:, size[0] // 2 - 1].max())
    assert steps[0] == 120  # 180 - 60
    # What is left of the step is what is left of the picture, and the slope of the field: 120 levels over the gap.
    assert all(steps[s] == pytest.approx(120 * (1 - s / 5), abs=8) for s in STRENGTHS)


def test_the_field_between_two_boxes_is_a_straight_slope():
    """Laplace's equation in one dimension: 180 to 60 over 121 steps, whatever has been there."""
    image, boxes = Image.new("RGB", (160, 120), (0, 255, 0)), [(0, 0, 20, 120), (140, 0, 160, 120)]
    for (left, top, right, bottom), colour in zip(boxes, (RED, BLUE), strict=True):
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom), fill=colour)
    made = pixels(corrupted(asked(image, boxes), "seams", 5, 0))
    wanted = 180 - 120 * (np.arange(20, 140) - 19) / 121
    assert np.abs(made[:, 20:140, 0] - wanted).max() < 3
    assert (made[:, 20:140, 1] == 60).all()


def test_no_new_border_appears_around_the_boxes():
    """A gradient stays one, and no object's colours flow out of its box, though they touch it."""
    y, x = np.mgrid[0:120, 0:160]
    image = Image.fromarray(np.stack([60 + 0.5 * x, 60 + y, 200 - 0.5 * x], -1).round().astype(np.uint8))
    draw, boxes = ImageDraw.Draw(image), [(20, 30, 60, 80), (100, 40, 140, 90)]
    for box in boxes:
        draw.ellipse((box[0], box[1], box[2] - 1, box[3] - 1), fill=(0, 0, 0))
    made = pixels(corrupted(asked(image, boxes), "seams", 5, 0))
    for x1, y1, x2, y2 in boxes:
        around = np.zeros((120, 160), bool)
        around[y1 - 1 : y2 + 1, x1 - 1 : x2 + 1] = True
        around[y1:y2, x1:x2] = False
        assert np.abs(made - np.asarray(image, float))[around].max() < 6


def test_a_border_that_touches_the_boxes_fades_alike():
    """The box is the tile: beside it there is at last what is in it, not the ground that it was pasted on.

    From one to the other it is 20 px, in which the field climbs 120 grey levels.
    """
    image = Image.new("RGB", (140, 140), SAND)
    draw, boxes = ImageDraw.Draw(image), [(10, 20, 60, 120), (80, 20, 130, 120)]
    for box, colour in zip(boxes, (RED, BLUE), strict=True):
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=colour)
    question = asked(image, boxes)
    for strength in STRENGTHS:
        made, left = pixels(corrupted(question, "seams", strength, 0)), 1 - strength / 5
        for (x1, y1, x2, _), colour in zip(boxes, (RED, BLUE), strict=True):
            wanted = np.add(colour, left * np.subtract(SAND, colour))
            assert np.abs(made[y1 + 5 : y1 + 90, x1 - 1] - wanted).max() < 12
            assert np.abs(made[y1 - 1, x1 + 5 : x2 - 5] - wanted).max() < 12


@pytest.mark.parametrize(
    "question",
    [
        asked(Image.new("RGB", (40, 40)), [(0, 0, 20, 20)]),
        asked(Image.new("RGB", (40, 40)), [(0, 0, 20, 20), (20, 20, 40, 40)], question_id="bird/1"),
    ],
)
def test_seams_need_all_objects_of_the_picture(question):
    with pytest.raises(DataError, match="sample k0: objects: needs a composite"):
        corrupted(question, "seams", 1, 0)


@pytest.mark.parametrize(
    ("kind", "strength", "field"), [("rain", 1, "artifact"), ("blur", 0, "strength"), ("blur", 6, "strength")]
)
def test_what_there_is_not(kind, strength, field):
    with pytest.raises(ConfigError, match=f"{field}: .* is not one of"):
        corrupted(composite(), kind, strength, 0)


def test_a_damaged_picture_is_named():
    question = composite()
    sample = question.sample
    broken = Question(Sample("k0", sample.image[:60], 140, 140, "bird", "seen", sample.objects, 0))
    with pytest.raises(DataError, match="sample k0: image: is cut off"):
        corrupted(broken, "noise", 1, 0)
