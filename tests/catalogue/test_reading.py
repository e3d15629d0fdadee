"""Every odd picture is read as a viewer shows it, every damaged one is refused with its reason."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kvg.catalogue.reading import read_file, read_picture
from kvg.errors import DataError

from .conftest import bad_ones, drawing, encoded, good_ones


def grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), dtype=float)


@pytest.mark.parametrize("name", good_ones(0))
def test_odd_ones_look_as_they_should(name):
    found, expected = read_picture(good_ones(0)[name], name), drawing(0)
    if name.startswith("turned"):
        expected = expected.transpose(Image.Transpose.ROTATE_270)
    assert found.mode == "RGB"
    assert found.size == expected.size
    assert np.abs(grey(found) - grey(expected)).mean() < 6  # JPEG, a palette of 256 colours


def test_sixteen_bits_become_eight_by_scale():
    deep = Image.fromarray(np.array([[0, 257, 65535, 32896]], dtype=np.uint16))
    assert grey(read_picture(encoded(deep, "PNG"), "deep")).tolist() == [[0, 1, 255, 128]]


def test_transparency_stays():
    image = drawing(1).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 90))
    assert read_picture(encoded(image, "PNG"), "x").getpixel((3, 3))[3] == 90
    palette = Image.new("P", (4, 4))
    assert read_picture(encoded(palette, "PNG", transparency=0), "x").mode == "RGBA"


@pytest.mark.parametrize("name", bad_ones(0))
def test_damaged_ones_are_refused_with_their_reason(name):
    data, reason = bad_ones(0)[name]
    with pytest.raises(DataError, match=reason) as error:
        read_picture(data, name)
    assert error.value.where == name


def test_large_ones_are_not_decoded():
    with pytest.raises(DataError, match="96x64 pixels, more than 6000"):
        read_picture(encoded(drawing(0)), "x", 6000)
    assert read_picture(encoded(drawing(0)), "x", 96 * 64).size == (96, 64)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be opened"):
        read_file(tmp_path / "none.jpg")
