"""Answers whose convention is known by construction, and answers that show none."""

from __future__ import annotations

import random

import pytest

from kvg.evaluation.diagnostics.box_convention import BoxAnswer, convention_fits
from kvg.text.box_codec import ImageSize

SIZES = [(640, 480, 644, 476), (500, 375, 504, 364), (300, 400, 308, 392), (1024, 683, 560, 364)]
RULE = "as in this run"


def objects_of(width, height, rng, num=2):
    boxes = []
    for _ in range(num):
        x, y = rng.uniform(0, 0.6) * width, rng.uniform(0, 0.6) * height
        boxes.append((x, y, x + rng.uniform(0.1, 0.4) * width, y + rng.uniform(0.1, 0.4) * height))
    return boxes


def written(box, size, unit, order):
    """A box of the stored picture as four numbers."""
    sides = {
        "relative_1000": (1000 / size.width, 1000 / size.height),
        "pixels": (1, 1),
        "resized": (size.resized_width / size.width, size.resized_height / size.height),
        "unit": (1 / size.width, 1 / size.height),
        "percent": (100 / size.width, 100 / size.height),
    }
    across, down = sides[unit]
    x1, y1, x2, y2 = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    return {
        "xyxy": (x1, y1, x2, y2),
        "yxyx": (y1, x1, y2, x2),
        "xywh": (x1, y1, x2 - x1, y2 - y1),
        "cxcywh": ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
    }[order]


def answers(unit="relative_1000", order="xyxy", pick=0, num=12, declared=None, sizes=SIZES):
    """Perfect boxes of object ``pick``; the declared reading is that of 0-1000, or ``declared``."""
    rng, made = random.Random(1), []
    for index in range(num):
        size = ImageSize(*sizes[index % len(sizes)])
        objects = objects_of(size.width, size.height, rng)
        numbers = written(objects[pick], size, unit, order)
        own = tuple(v * side / 1000 for v, side in zip(numbers, (size.width, size.height) * 2, strict=True))
        made.append(BoxAnswer(numbers, declared(objects) if declared else own, objects, 0, {RULE: size}))
    return made


@pytest.mark.parametrize("order", ["xyxy", "yxyx", "xywh", "cxcywh"])
@pytest.mark.parametrize("unit", ["relative_1000", "pixels", "resized", "unit", "percent"])
def test_each_convention_is_named(unit, order):
    fits = convention_fits(answers(unit, order), "relative")
    units = {"relative_1000": "0-1000 of", "pixels": "in the file", "resized": f"resized picture, {RULE}",
             "unit": "0-1 of", "percent": "0-100 of"}  # fmt: skip
    orders = {"xyxy": "(x1, y1, x2, y2)", "yxyx": "(y1, x1, y2, x2)", "xywh": "(x, y, width", "cxcywh": "(centre x"}
    assert units[unit] in fits.best.titles[0]
    assert orders[order] in fits.best.titles[0]
    assert fits.best.any_iou["value"] == pytest.approx(1)
    assert fits.best.accuracy["value"] == 1
    assert fits.is_wrong == ((unit, order) != ("relative_1000", "xyxy"))
    assert fits.record()["verdict"] == ("wrong" if fits.is_wrong else "fits")


def test_the_declared_one_is_named_beside_the_best():
    fits = convention_fits(answers("resized"), "relative")
    assert fits.text().startswith(f"the answers are boxes in pixels of the resized picture, {RULE} (x1, y1, x2, y2)")
    assert "as declared, 0-1000 of width and height (x1, y1, x2, y2)" in fits.text()


def test_boxes_of_other_objects_show_the_convention_too():
    fits = convention_fits(answers("pixels", pick=1), "relative")
    assert fits.best.titles == ["pixels of the picture in the file (x1, y1, x2, y2)"]
    assert fits.best.any_iou["value"] == pytest.approx(1)
    assert fits.best.accuracy["value"] < 0.5
    assert fits.is_wrong


def test_an_iou_by_hand():
    size = ImageSize(1000, 500, 1000, 500)
    rows = [BoxAnswer((0, 0, 500, 1000), (0, 0, 500, 500), [(0, 0, 250, 500)], 0, {RULE: size})] * 6
    fits = convention_fits(rows, "relative")
    assert fits.declared.iou["value"] == 0.5  # half of the box is the object
    assert fits.declared.accuracy["value"] == 1.0
    assert not fits.is_known  # the same answer fits every picture as well


def test_a_model_that_finds_nothing_shows_nothing():
    own = answers()
    moved = [
        BoxAnswer(other.numbers, other.declared_px, one.objects_px, 0, one.sizes)
        for one, other in zip(own, own[4:] + own[:4], strict=True)
    ]
    fits = convention_fits(moved, "relative")
    assert fits.text().startswith("cannot tell: the best reading, ")
    assert fits.record()["verdict"] == "unknown"
    assert not fits.is_wrong


def test_too_few_boxes_show_nothing():
    rows = [BoxAnswer(None, None, one.objects_px, 0, one.sizes) for one in answers()[4:]] + answers()[:4]
    fits = convention_fits(rows, "relative")
    assert fits.text() == "cannot tell: only 4 of 12 answers hold a box"
    assert fits.declared.iou["n"] == 12  # an answer without a box counts as a miss


def test_readings_that_these_pictures_cannot_tell_apart_are_one():
    fits = convention_fits(answers("pixels", sizes=[(1000, 1000, 980, 980)]), "relative")
    assert fits.best.is_declared
    assert [title.partition(" (")[0] for title in fits.best.titles] == [
        "0-1000 of width and height",
        "pixels of the picture in the file",
    ]
    assert "[= 1 other on these pictures]" in fits.text()


def test_a_codec_of_its_own_is_a_reading_too():
    fits = convention_fits(answers("pixels", declared=lambda objects: objects[0]), "loc tokens")
    assert fits.best.is_declared
    assert fits.best.titles == ["pixels of the picture in the file (x1, y1, x2, y2)"]
    fits = convention_fits(answers("pixels", declared=lambda objects: (0.0, 0.0, 9.0, 9.0)), "loc tokens")
    assert fits.declared.titles == ["the codec 'loc tokens'"]
    assert fits.is_wrong
