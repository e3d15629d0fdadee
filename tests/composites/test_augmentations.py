"""Traces on tiles: each does what it says, none shows where the entity ends, and by default there are none."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kvg.composites.augmentations import Augmentations, Ground, noisy
from kvg.composites.pasting import Placing
from kvg.composites.tiles import Picture, Tile
from kvg.errors import ConfigError
from tests.composites.test_tiles import photograph


def laid(augmentations, image, box=None, seed=0, ground=None):
    """What is pasted of an image in its own size."""
    tile = Tile(Picture(image), box)
    width, height = tile.size
    frame = (0, 0, width, height)
    inner = tuple(int(v) for v in box) if box else frame
    placing = Placing(frame, inner, (0.0, 0.0, float(width), float(height)))
    scaled = tile.scaled(tile.size)
    ground = Ground(ground or Image.new("RGB", (width, height), (10, 20, 30)))
    return scaled, augmentations.on_tile(scaled.copy(), tile, placing, ground, random.Random(seed))


def disc(size=120, colour=(200, 120, 40)):
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((0, 0, size - 1, size - 1), fill=(*colour, 255))
    return image


def array(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("image", [photograph(size=(90, 60)), disc()], ids=["whole", "cut-out"])
def test_by_default_nothing_changes(image):
    before, after = laid(Augmentations(), image)
    assert (after.mode, after.tobytes()) == (before.mode, before.tobytes())
    picture = photograph(size=(90, 60))
    assert Augmentations().on_picture(picture, random.Random(0)).tobytes() == picture.tobytes()


@pytest.mark.parametrize("sigma", [0.5, 3.0, 12.0])
def test_noise_has_the_deviation_asked_for(sigma):
    grey = Image.new("RGB", (640, 480), (128, 128, 128))
    difference = array(noisy(grey, sigma, random.Random(3))) - 128
    expected = (sigma**2 + 1 / 12) ** 0.5  # rounding to whole grey levels adds the variance of a step
    assert difference.std() == pytest.approx(expected, rel=0.03)
    assert abs(difference.mean()) < 0.15
    channels = difference.reshape(-1, 3).T
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.02


def test_noise_leaves_alpha_alone():
    before, after = laid(Augmentations(noise=(6, 6)), disc())
    assert after.getchannel("A").tobytes() == before.getchannel("A").tobytes()
    assert (array(after) != array(before)).any()


def test_gain_and_gamma_by_hand():
    grey = Image.new("RGB", (8, 8), (51, 102, 204))
    assert laid(Augmentations(gain=(1.25, 1.25)), grey)[1].getpixel((3, 3)) == (64, 128, 255)
    # 255 * (51 / 255) ** 2 = 10.2, 255 * 0.4 ** 2 = 40.8, 255 * 0.8 ** 2 = 163.2
    assert laid(Augmentations(gamma=(2, 2)), grey)[1].getpixel((3, 3)) == (10, 41, 163)
    drawn = {laid(Augmentations(gain=(0.8, 1.2)), grey, seed=s)[1].getpixel((0, 0)) for s in range(5)}
    assert len(drawn) == 5


def test_harmony_moves_colours_to_those_of_the_ground_by_its_share():
    image = Image.new("RGB", (48, 48), (100, 100, 100))
    image.paste((140, 140, 140), (24, 0, 48, 48))  # mean 120, deviation 20
    ground = Image.new("RGB", (48, 48), (40, 40, 40))
    ground.paste((80, 80, 80), (24, 0, 48, 48))  # mean 60, deviation 20
    assert laid(Augmentations(harmony=(1, 1)), image, ground=ground)[1].getpixel((2, 20))[0] == pytest.approx(40, abs=2)
    half = laid(Augmentations(harmony=(0.5, 0.5)), image, ground=ground)[1]
    assert [half.getpixel((x, 20))[0] for x in (2, 45)] == pytest.approx([70, 110], abs=2)


def test_a_feathered_rim_softens_inwards_only():
    before, after = laid(Augmentations(feather=(2, 2)), disc())
    was, now = array(before.getchannel("A")), array(after.getchannel("A"))
    assert (now <= was).all()
    assert (now[60, 5:115] == 255).all()
    rim = now[60, :5]
    assert list(rim) == sorted(rim)
    assert 100 < rim[0] < 200  # the outermost pixel of a straight rim is about half of it
    assert np.ptp(array(after)[now > 8][:, :3], axis=0).max() <= 255 / 8  # and no colour comes in from outside


def test_a_soft_border_stops_at_the_entity():
    image = Image.new("RGB", (100, 80), (200, 60, 60))
    alpha = array(laid(Augmentations(border=(12, 12)), image, (30, 2, 90, 70))[1].getchannel("A"))
    assert (alpha[4:68, 30:90] == 255).all()  # two pixels at most, where it lies at the border
    assert alpha[40, 0] < 20
    assert 100 < alpha[40, 6] < 170  # halfway
    assert alpha[40, 13] == 255
    assert alpha[40, 92] == 215  # 7.5 of the 10 pixels that there are: 3 * 0.75 ** 2 - 2 * 0.75 ** 3 = 0.84
    assert alpha[40, 99] < 60


@pytest.mark.parametrize("quality", [20, 60])
def test_a_tile_that_was_a_jpeg_has_no_dark_rim(quality):
    before, after = laid(Augmentations(tile_jpeg=1.0, tile_quality=(quality, quality)), disc())
    assert after.getchannel("A").tobytes() == before.getchannel("A").tobytes()
    shown = array(before)[..., 3] > 40
    difference = np.abs(array(after)[..., :3] - array(before)[..., :3])[shown]
    assert difference.max() < 24  # black around it would make it 60 and more
    picture = photograph(2, (160, 120))
    rough, fine = (laid(Augmentations(tile_jpeg=1.0, tile_quality=(q, q)), picture) for q in (quality, 95))
    errors = [np.abs(array(a) - array(b)).mean() for b, a in (rough, fine)]
    assert errors[0] > 1.5 * errors[1] > 0


def test_a_tile_is_a_jpeg_as_often_as_its_chance():
    picture = photograph(2, (32, 24))
    pairs = [laid(Augmentations(tile_jpeg=0.3, tile_quality=(30, 30)), picture, seed=s) for s in range(200)]
    assert 40 < sum(a.tobytes() != b.tobytes() for a, b in pairs) < 80


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("feather", 2),
        ("feather", (2, 1)),
        ("noise", (0, 40)),
        ("harmony", (0, 1.5)),
        ("gain", (0, 1)),
        ("tile_quality", (0, 90)),
        ("border", ("a", "b")),
        ("tile_jpeg", 1.5),
    ],
)
def test_settings_that_cannot_work(setting, value):
    with pytest.raises(ConfigError) as caught:
        Augmentations(**{setting: value})
    assert caught.value.field == f"compositor.augmentations.{setting}"
