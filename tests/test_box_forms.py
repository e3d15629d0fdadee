"""One picture of 200 x 100 pixels, one object at (20, 10)-(60, 40), in every unit and order."""

from __future__ import annotations

import pytest

from kvg.box_forms import BoxForm
from kvg.errors import ConfigError, DataError

RIGHT = (20.0, 10.0, 60.0, 40.0)
FORMS = {
    ("pixels", "xyxy"): [20, 10, 60, 40],
    ("pixels", "xywh"): [20, 10, 40, 30],
    ("pixels", "cxcywh"): [40, 25, 40, 30],
    ("relative_1000", "xyxy"): [100, 100, 300, 400],
    ("relative_1000", "xywh"): [100, 100, 200, 300],
    ("relative_1000", "cxcywh"): [200, 250, 200, 300],
    ("unit", "xyxy"): [0.1, 0.1, 0.3, 0.4],
    ("unit", "xywh"): [0.1, 0.1, 0.2, 0.3],
    ("unit", "cxcywh"): [0.2, 0.25, 0.2, 0.3],
}


@pytest.mark.parametrize(("form", "raw"), FORMS.items(), ids=map(" ".join, FORMS))
def test_every_unit_and_order(form, raw):
    for value in (raw, tuple(raw), [str(v) for v in raw]):
        assert BoxForm(*form).pixels(value, 200, 100, "line 3", "box") == pytest.approx(RIGHT)


@pytest.mark.parametrize("unit", ["pixels", "relative_1000"])
@pytest.mark.parametrize(
    "raw", [[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0], ["0.1", "0.2", "0.3", "0.4"], [0, 0, 1, 1]]
)
def test_a_box_in_shares_is_refused_where_another_unit_is_declared(unit, raw):
    with pytest.raises(DataError, match=rf"line 3: box: .* lies in 0-1, but box_unit is {unit}; state box_unit: unit"):
        BoxForm(unit).pixels(raw, 200, 100, "line 3", "box")


@pytest.mark.parametrize(
    "raw",
    [None, 5, "20,10,60,40", [], [20, 10, 60], [20, 10, 60, 40, 1], {"x": 1}, [20, 10, None, 40], [True, 10, 60, 40],
     [20, 10, "wide", 40], [float("nan"), 10, 60, 40], [float("inf"), 10, 60, 40], [10**400, 10, 60, 40],
     [[20], 10, 60, 40]],
)  # fmt: skip
def test_what_is_not_four_numbers(raw):
    with pytest.raises(DataError, match=r"line 3: box: .* is not four numbers \[x1, y1, x2, y2\] in pixels"):
        BoxForm().pixels(raw, 200, 100, "line 3", "box")


@pytest.mark.parametrize(
    ("form", "raw"),
    [
        (BoxForm(), [20, 10, 203, 40]),
        (BoxForm(), [60, 10, 20, 40]),
        (BoxForm(), [20, 10, 20, 40]),
        (BoxForm(), [150, 60, 40, 30]),  # x, y, width, height
        (BoxForm("relative_1000"), [100, 100, 1100, 400]),
        (BoxForm("unit"), [20, 10, 60, 40]),
        (BoxForm("pixels", "xywh"), [150, 10, 60, 40]),
        (BoxForm("pixels", "xywh"), [20, 10, -5, 40]),
        (BoxForm("pixels", "cxcywh"), [5, 5, 40, 40]),
    ],
)
def test_what_does_not_lie_in_its_picture(form, raw):
    with pytest.raises(DataError, match=r"(inside its 200x100 picture|has no area, .*); correct it, or state box_unit"):
        form.pixels(raw, 200, 100, "line 3", "box")


def test_what_has_no_area_is_told_what_it_needs():
    with pytest.raises(DataError, match="has no area, which needs x1 < x2 and y1 < y2"):
        BoxForm().pixels([60, 50, 10, 10], 200, 100, "line 3", "box")
    with pytest.raises(DataError, match="has no area, which needs width and height above 0"):
        BoxForm(format="xywh").pixels([60, 50, 0, 10], 200, 100, "line 3", "box")


def test_what_reaches_over_the_rim_by_rounding_is_cut():
    assert BoxForm().pixels([-1, 0, 201.5, 100], 200, 100, "line 3", "box") == (0, 0, 200, 100)
    with pytest.raises(DataError):
        BoxForm().pixels([-1, 0, 201.5, 100], 200, 100, "line 3", "box", rim=1)


def test_unknown_words_are_refused():
    with pytest.raises(ConfigError, match="box_unit: 'percent' is none of pixels, relative_1000, unit"):
        BoxForm("percent")
    with pytest.raises(ConfigError, match="box_format: 'ltrb' is none of xyxy, xywh, cxcywh"):
        BoxForm("pixels", "ltrb")
