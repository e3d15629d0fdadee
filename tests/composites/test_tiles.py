"""Pictures kept in several sizes: as good as a direct reduction, the right way round, without dark rims."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kvg.composites.tiles import Picture, Tile, origins
from kvg.errors import DataError


def photograph(seed=0, size=(480, 360)):
    """Noise of several octaves, with as much detail in each as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3), np.float32)
    for octave in range(1, 8):
        cells = rng.integers(0, 256, (size[1] >> octave or 1, size[0] >> octave or 1, 3), dtype=np.uint8)
        total += (np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)) - 127.0) * 0.7 ** (
            7 - octave
        )
    return Image.fromarray(np.clip(127 + total, 0, 255).astype(np.uint8))


def psnr(a, b):
    difference = np.asarray(a.convert("RGB")).astype(float) - np.asarray(b.convert("RGB"))
    return 10 * np.log10(255**2 / max(1e-9, (difference**2).mean()))


@pytest.mark.parametrize("scale", [1.0, 0.9, 0.72, 0.6, 0.5, 0.36, 0.25, 0.15])
def test_as_good_as_a_reduction_of_the_original(scale):
    image = photograph()
    size = round(480 * scale), round(360 * scale)
    made = Picture(image).scaled(size, (0, 0, 480, 360))
    direct = image.resize(size, Image.Resampling.BICUBIC)
    found = psnr(made, direct)
    assert found > (40 if scale > 0.2 else 37)
    file = io.BytesIO()
    direct.save(file, "JPEG", quality=90)
    assert found > psnr(Image.open(file), direct)
    # Taking single pixels instead is worse by far, so the measure can tell.
    assert scale > 0.9 or found > 6 + psnr(image.resize(size, Image.Resampling.NEAREST), direct)


def test_a_region_is_the_region_in_every_size():
    image = photograph(1)
    picture = Picture(image)
    for size in ((200, 150), (100, 75), (61, 40)):
        region = (101.5, 50.25, 401.5, 275.25)
        direct = image.resize(size, Image.Resampling.BICUBIC, box=region)
        assert psnr(picture.scaled(size, region), direct) > 38
        assert psnr(picture.scaled(size, (105.5, 50.25, 405.5, 275.25)), direct) < 36  # four pixels off


def test_cut_outs_are_cropped_and_have_no_dark_rims():
    image = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((50, 40, 349, 259), fill=(240, 200, 160, 255))
    picture = Picture(image)
    assert picture.size == (300, 220)
    for size in ((280, 205), (120, 88), (33, 24)):
        pixels = np.asarray(picture.scaled(size, (0, 0, 300, 220))).astype(int)
        shown = pixels[pixels[..., 3] > 8]
        assert np.abs(shown[:, :3] - (240, 200, 160)).max() <= 255 / 8  # of rounding where alpha is small
        solid = pixels[pixels[..., 3] > 200]
        assert np.abs(solid[:, :3] - (240, 200, 160)).max() <= 2


def test_colours_are_those_of_what_is_opaque():
    image = Image.new("RGBA", (200, 100), (255, 0, 255, 0))
    image.paste((100, 50, 20, 255), (20, 10, 100, 90))
    image.paste((200, 50, 20, 255), (100, 10, 180, 90))
    mean, deviation = Picture(image).colours
    assert np.allclose(mean, (150, 50, 20), atol=3)
    assert np.allclose(deviation, (50, 0, 0), atol=3)  # one half at 100, one at 200


def test_mirrored_half_of_the_time_and_its_box_with_it():
    image = Image.new("RGB", (100, 60), (90, 90, 90))
    image.paste((250, 0, 0), (10, 20, 30, 50))
    tile, seen = Tile(Picture(image), (10.0, 20.0, 30.0, 50.0)), []
    for seed in range(40):
        drawn = tile.mirror(random.Random(seed))
        seen.append(drawn.mirrored)
        assert drawn.box == ((70.0, 20.0, 90.0, 50.0) if drawn.mirrored else (10.0, 20.0, 30.0, 50.0))
        x1, y1, x2, y2 = map(int, drawn.box)
        pixels = np.asarray(drawn.scaled((100, 60)))
        assert (pixels[y1:y2, x1:x2, 0] > 200).all()
        half = np.asarray(drawn.scaled((50, 30), (0, 0, 50, 30)))  # the left upper quarter, whichever that is
        assert (half[..., 0] > 200).any() == (not drawn.mirrored)
    assert 10 < sum(seen) < 30


def test_an_image_with_a_box_keeps_what_is_around_the_entity():
    image = Image.new("RGBA", (100, 80), (200, 200, 200, 255))
    image.putalpha(Image.linear_gradient("L").resize((100, 80)))
    tile = Tile.of(image, box=(20.0, 10.0, 60.0, 50.0))
    assert (tile.size, tile.entity_box) == ((100, 80), (20.0, 10.0, 60.0, 50.0))
    assert Tile.of(image).size[1] < 50


def test_nothing_opaque_is_an_error_that_names_the_file():
    image = Image.new("RGBA", (10, 10), (9, 9, 9, 100))
    with pytest.raises(DataError, match=r"a/b\.png: alpha: is empty"):
        Tile.of(image, path="a/b.png")


def test_origins_tell_only_what_is_known():
    picture = Picture(Image.new("RGB", (4, 4)))
    tiles = [Tile(picture, path="b", licence="CC0"), Tile(picture, path="a"), Tile(picture, licence="CC-BY")]
    assert origins(tiles) == {"tiles": ["b", "a", ""]}
    assert origins([Tile(picture)]) == {}
