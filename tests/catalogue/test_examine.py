"""Boxes by alpha and boxes that are told."""

from __future__ import annotations

import pytest
from PIL import Image

from kvg.catalogue.examine import alpha_box
from kvg.errors import DataError


def with_alpha(size, *opaque, value=255):
    image = Image.new("RGBA", size, (9, 9, 9, 0))
    for bounds in opaque:
        image.paste((9, 9, 9, value), bounds)
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (with_alpha((40, 30), (5, 6, 20, 25)), (5, 6, 20, 25)),
        (with_alpha((40, 30), (0, 0, 20, 30), (19, 0, 40, 3)), (0, 0, 40, 30)),  # cut out, and touches every rim
        (with_alpha((40, 30), (0, 0, 40, 30)), None),  # nothing is transparent
        (with_alpha((40, 30), (5, 6, 20, 25), (30, 0, 40, 30)).convert("RGB"), None),
    ],
)
def test_boxes_of_what_is_opaque(image, expected):
    assert alpha_box(image) == expected


def test_soft_rims_do_not_count():
    image = with_alpha((40, 30), (5, 6, 20, 25))
    image.paste((9, 9, 9, 100), (20, 6, 30, 25))
    assert alpha_box(image) == (5, 6, 20, 25)
    with pytest.raises(DataError, match="no entity"):
        alpha_box(with_alpha((40, 30), (5, 6, 20, 25), value=90))
