from __future__ import annotations

import random

import pytest

from kvg.composites.layouts import LAYOUTS, PUBLISHED, grid, horizontal, overlapping, reading_order, vertical


def test_horizontal_by_hand():
    # 100 wide, gap 5: 100 - 4 * 5 = 80 left for three cells, shared as 26 + 27 + 27.
    assert horizontal(3, (100, 40), 5, random.Random(0)) == [(5, 5, 31, 35), (36, 5, 63, 35), (68, 5, 95, 35)]


def test_vertical_is_horizontal_turned():
    rows = vertical(3, (40, 100), 5, random.Random(0))
    assert rows == [(y1, x1, y2, x2) for x1, y1, x2, y2 in horizontal(3, (100, 40), 5, random.Random(0))]


def test_grid_leaves_one_of_four_cells_empty():
    cells = [(0, 0, 10, 10), (10, 0, 20, 10), (0, 10, 10, 20), (10, 10, 20, 20)]
    seen = {tuple(grid(3, (20, 20), 0, random.Random(seed))) for seed in range(40)}
    assert seen == {tuple(c for c in cells if c != empty) for empty in cells}


@pytest.mark.parametrize(("canvas", "shape"), [((90, 60), (3, 2)), ((60, 90), (2, 3))])
def test_grid_follows_the_canvas(canvas, shape):
    cells = grid(6, canvas, 0, random.Random(0))
    assert (len({c[0] for c in cells}), len({c[1] for c in cells})) == shape


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("num_tiles", [2, 3, 4, 5, 6])
def test_cells_stay_inside_apart_and_in_reading_order(name, num_tiles):
    for seed in range(30):
        cells = LAYOUTS[name](num_tiles, (640, 480), 8, random.Random(seed))
        assert len(cells) == num_tiles
        assert all(8 <= x1 < x2 <= 632 and 8 <= y1 < y2 <= 472 for x1, y1, x2, y2 in cells)
        for i, a in enumerate(cells):
            for b in cells[i + 1 :]:
                apart_x = a[2] + 8 <= b[0] or b[2] + 8 <= a[0]
                apart_y = a[3] + 8 <= b[1] or b[3] + 8 <= a[1]
                assert apart_x or apart_y
        assert reading_order(cells) == cells


def test_random_layout_really_varies():
    layouts = {tuple(LAYOUTS["random"](3, (640, 480), 8, random.Random(seed))) for seed in range(10)}
    assert len(layouts) == 10


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_overlapping_cells_share_no_more_than_allowed(share):
    most = 0.0
    for seed in range(60):
        cells = overlapping(4, (640, 480), 8, random.Random(seed), share)
        assert all(8 <= x1 < x2 <= 632 and 8 <= y1 < y2 <= 472 for x1, y1, x2, y2 in cells)
        for i, a in enumerate(cells):
            for b in cells[:i]:
                across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                smaller = min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
                most = max(most, max(0, across) * max(0, down) / smaller)
    assert share * 0.9 <= most <= share
    assert set(LAYOUTS) - set(PUBLISHED) == {"overlapping"}
