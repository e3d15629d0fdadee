"""Every odd picture is read as a viewer shows it, every damaged one is refused with its reason."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from kvg.errors import DataError
from kvg.pictures import (
    picture_size,
    raw_orientation,
    read_file,
    read_picture,
    read_rgb,
    standard_picture,
    upright_box,
)

from .catalogue.conftest import bad_ones, drawing, encoded, good_ones


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


@pytest.mark.parametrize(
    "trailer",
    [b"\0" * 100, b"\0" * 100_000, b"\x00\x00\x01\x0a\x0e\x00\x00\x00Image_UTC_Data1700000000000SEFH" + b"\x6b" * 80],
    ids=["zeros", "many zeros", "a phone's trailer"],
)
def test_bytes_behind_the_end_are_passed_over(trailer):
    for data in (encoded(drawing(0)), encoded(drawing(0), "PNG")):
        stored, width, height = standard_picture(data + trailer, "x")
        assert (stored, width, height) == (data + trailer, 96, 64)
        assert read_rgb(stored, "x").tobytes() == read_rgb(data, "x").tobytes()


def test_a_motion_photo_is_its_picture():
    film = struct.pack(">I", 24) + b"ftypmp42" + bytes(12) + np.random.default_rng(0).bytes(5000)
    data = encoded(drawing(0)) + film
    assert standard_picture(data, "x") == (data, 96, 64)


def test_several_pictures_in_one_jpeg_are_the_first():
    data = encoded(drawing(0), "MPO", save_all=True, append_images=[drawing(1, (40, 30))])
    assert standard_picture(data, "x") == (data, 96, 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_what_is_cut_off_is_refused(kind, share):
    data = encoded(drawing(0), kind)
    cut = data[: int(share * len(data))]
    for filled in (cut, cut + bytes(100), cut + bytes(50_000)):  # a download that never ended leaves zeros
        with pytest.raises(DataError, match="image"):
            standard_picture(filled, "x")


def ramp(kind: str) -> tuple[bytes, list[int]]:
    """A row of deep pixels, and their greys."""
    greys = [0, 64, 128, 255]
    floats = {"float 0-1": 255, "float 0-255": 1}
    if kind in floats:
        return encoded(Image.fromarray(np.array([greys], np.float32) / floats[kind]), "TIFF"), greys
    if kind == "float 0-4000":
        return encoded(Image.fromarray(np.array([[0, 1000, 2000, 4000]], np.float32)), "TIFF"), [0, 64, 128, 255]
    if kind == "int32":
        return encoded(Image.fromarray(np.array([greys], np.int32) * 257), "TIFF"), greys
    if kind == "twelve bits":  # on the scale of sixteen, as a viewer shows it
        return encoded(Image.fromarray(np.array([[0, 257, 2570, 4095]], np.uint16)), "PNG"), [0, 1, 10, 16]
    return encoded(Image.fromarray(np.array([greys], np.uint16) * 257), kind), greys


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "twelve bits", "int32", "float 0-1", "float 0-255", "float 0-4000"])
def test_deep_pixels_become_eight_bits_everywhere(kind):
    data, greys = ramp(kind)
    assert grey(read_picture(data, "x")).tolist() == [greys]
    stored, width, height = standard_picture(data, "x")
    assert (width, height) == (4, 1)
    assert grey(Image.open(io.BytesIO(stored))).tolist() == [greys]  # by any other reader


def test_what_is_no_number_is_black():
    data = encoded(Image.fromarray(np.array([[np.nan, np.inf, 1.0, 0.5]], np.float32)), "TIFF")
    assert grey(read_picture(data, "x")).tolist() == [[0, 0, 255, 128]]


def turned(number: int, kind: str = "JPEG") -> bytes:
    """A red block at (10, 20, 30, 40) of 96 x 64 stored pixels, with an EXIF orientation."""
    image = Image.new("RGB", (96, 64), "white")
    image.paste("red", (10, 20, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(image, kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_boxes_turn_with_their_picture(number, kind):
    data = turned(number, kind)
    upright = read_rgb(data, "x")
    assert picture_size(data, "x") == upright.size
    red = np.asarray(upright).astype(int)
    rows, columns = np.nonzero(red[..., 0] - red[..., 1] > 128)
    width, height, found = raw_orientation(data, "x")
    assert (width, height, found) == (96, 64, number)
    box = upright_box((10, 20, 30, 40), width, height, number)
    assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_turned_pictures_are_stored_upright():
    stored, width, height = standard_picture(turned(6), "x")
    assert (width, height) == (64, 96)
    assert Image.open(io.BytesIO(stored)).getexif().get(0x0112) is None
    assert stored.startswith(b"\x89PNG")


def test_a_damaged_note_leaves_the_picture_as_it_is():
    data = encoded(drawing(0), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\x07" * 40)
    assert read_rgb(data, "x").size == (96, 64)
    assert read_rgb(turned(9), "x").size == (96, 64)


def test_transparency_is_white_where_a_model_looks():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_rgb(encoded(image, "PNG"), "x").getpixel((0, 0)) == (255, 255, 255)
