"""Sizes, places and what can be seen of things that lie one over the other, by hand."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from kvg.composites.pasting import Placing, fills, place, visible
from kvg.composites.tiles import Picture, Tile


def whole(size, box=None):
    return Tile(Picture(Image.new("RGB", size)), box)


def solid(left, top, right, bottom):
    """A placing that is all entity."""
    frame = (left, top, right, bottom)
    return Placing(frame, frame, (0, 0, right - left, bottom - top))


def test_the_uppermost_hides_the_others():
    # 10 x 10 at the origin; 10 x 10 over its right half; 4 x 4 over a corner of both.
    low, middle, high = solid(0, 0, 10, 10), solid(5, 0, 15, 10), solid(3, 0, 7, 4)
    found = visible((20, 20), [low, middle, high], [None] * 3, [True, False, True])
    # Of the lowest 50 pixels are left, less 2 x 4 below the third; all of its columns 0 to 4 can still be seen.
    assert found[0] == ((0.0, 0.0, 5.0, 10.0), pytest.approx(0.58))
    # Of the second 100 less 2 x 4; its box does not change, since each column and row still shows.
    assert found[1] == ((5.0, 0.0, 15.0, 10.0), pytest.approx(0.08))
    assert found[2] == ((3.0, 0.0, 7.0, 4.0), 0.0)


def test_what_cannot_be_seen_at_all_has_no_box():
    below, above = solid(2, 2, 6, 6), solid(0, 0, 9, 9)
    found = visible((10, 10), [below, above], [None, None], [True, True])
    assert found == [(None, 1.0), ((0.0, 0.0, 9.0, 9.0), 0.0)]


def test_a_cut_out_hides_by_its_shape_and_a_picture_by_its_frame():
    # The cut-out is opaque in its right half alone; the entity of the picture below lies under its left half.
    cut = Image.new("L", (10, 10), 0)
    cut.paste(255, (5, 0, 10, 10))
    frame = (0, 0, 10, 10)
    picture = Placing((0, 0, 10, 10), (1, 1, 5, 9), (0, 0, 10, 10))
    over = Placing(frame, frame, (0, 0, 10, 10))
    found = visible((10, 10), [picture, over], [None, cut], [True, False])
    assert found == [((1.0, 1.0, 5.0, 9.0), 0.0), ((5.0, 0.0, 10.0, 10.0), 0.0)]
    # The other way round the picture hides all of it, though its entity takes the left half only.
    found = visible((10, 10), [over, picture], [cut, None], [False, True])
    assert found == [(None, 1.0), ((1.0, 1.0, 5.0, 9.0), 0.0)]


def test_same_scale_gives_about_the_same_area():
    tiles = [whole((100, 50)), whole((50, 100)), whole((80, 80), (20, 20, 60, 40))]
    cells = [(0, 0, 300, 200), (300, 0, 400, 200), (400, 0, 640, 300)]
    for seed in range(20):
        rng = random.Random(seed)
        shares = fills(tiles, cells, (0.8, 1.0), True, rng)
        assert max(shares) <= 1.0
        boxes = [place(t, c, s, 1, rng).box for t, c, s in zip(tiles, cells, shares, strict=True)]
        areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes]
        assert max(areas) / min(areas) < 1.15
        free = fills(tiles, cells, (0.8, 1.0), False, random.Random(seed))
        assert all(0.8 <= share <= 1.0 for share in free)


def test_a_box_inside_a_picture_is_carried_along():
    tile = whole((100, 80), (20.0, 10.0, 60.0, 50.0))
    placed = place(tile, (0, 0, 200, 160), 1.0, 1, random.Random(0))
    assert placed == Placing((0, 0, 200, 160), (40, 20, 120, 100), (0, 0, 100, 80))


def test_a_feeler_thinner_than_a_pixel_belongs_to_its_insect_and_hides_nothing():
    alpha = Image.new("L", (10, 10), 0)
    alpha.paste(255, (4, 4, 10, 10))
    alpha.paste(60, (4, 0, 5, 4))
    below, insect = solid(0, 0, 10, 10), solid(0, 0, 10, 10)
    found = visible((10, 10), [below, insect], [None, alpha], [True, False])
    assert found[1] == ((4.0, 0.0, 10.0, 10.0), 0.0)
    assert found[0] == ((0.0, 0.0, 10.0, 10.0), pytest.approx(0.36))
