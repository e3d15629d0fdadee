"""Layouts of tiles on a canvas: horizontal, vertical, grid, random (paper v3, appendix B.1), and overlapping."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

Cell = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels of the canvas
Rectangle = TypeVar("Rectangle", bound=tuple[float, float, float, float])
Layout = Callable[[int, tuple[int, int], int, random.Random], list[Cell]]

_MAX_SIZE_ATTEMPTS: Final = 20
_MAX_PLACE_ATTEMPTS: Final = 12


def horizontal(num_tiles: int, canvas: tuple[int, int], gap: int, rng: random.Random) -> list[Cell]:
    """Places cells in one row.

    Args:
        num_tiles: number of cells.
        canvas: width and height in pixels.
        gap: pixels between cells, and between cells and the border.
        rng: not used; all layouts have the same signature.

    Returns:
        Cells that do not overlap, in reading order (rows from the top, each from the left).

    >>> horizontal(2, (100, 50), 10, random.Random(0))
    [(10, 10, 45, 40), (55, 10, 90, 40)]
    """
    return _regular(num_tiles, 1, canvas, gap)


def vertical(num_tiles: int, canvas: tuple[int, int], gap: int, rng: random.Random) -> list[Cell]:
    """Places cells in one column. See ``horizontal``.

    >>> vertical(2, (50, 100), 0, random.Random(0))
    [(0, 0, 50, 50), (0, 50, 50, 100)]
    """
    return _regular(1, num_tiles, canvas, gap)


def grid(num_tiles: int, canvas: tuple[int, int], gap: int, rng: random.Random) -> list[Cell]:
    """Places cells in a grid that is as square as possible; surplus cells are chosen at random and stay empty."""
    long = math.ceil(math.sqrt(num_tiles))
    short = math.ceil(num_tiles / long)
    columns, rows = (long, short) if canvas[0] >= canvas[1] else (short, long)
    cells = _regular(columns, rows, canvas, gap)
    return [cells[i] for i in sorted(rng.sample(range(len(cells)), num_tiles))]


def scattered(num_tiles: int, canvas: tuple[int, int], gap: int, rng: random.Random) -> list[Cell]:
    """Places cells of random position and size without overlap; uses a grid if that fails."""
    room = min((canvas[0] - gap) * (canvas[1] - gap) / num_tiles, (min(canvas) - gap) ** 2)
    for attempt in range(_MAX_SIZE_ATTEMPTS):
        side = math.sqrt(room) * 0.95**attempt - gap  # smaller each time, until all cells fit
        cells: list[Cell] = []
        for _ in range(num_tiles * _MAX_PLACE_ATTEMPTS):
            cell = _thrown(side, canvas, gap, rng)
            if not any(_nearer_than(gap, cell, other) for other in cells):
                cells.append(cell)
            if len(cells) == num_tiles:
                return reading_order(cells)
    return grid(num_tiles, canvas, gap, rng)


def overlapping(
    num_tiles: int, canvas: tuple[int, int], gap: int, rng: random.Random, share: float = 0.25
) -> list[Cell]:
    """Places cells of random position and size that may overlap; uses ``scattered`` if that fails.

    Args:
        num_tiles: number of cells.
        canvas: width and height in pixels.
        gap: pixels between cells and the border.
        rng: random numbers.
        share: maximum share of the smaller of two cells that lies in the other.

    Returns:
        Cells in no particular order.
    """
    room = min((canvas[0] - gap) * (canvas[1] - gap) / num_tiles, (min(canvas) - gap) ** 2)
    for attempt in range(_MAX_SIZE_ATTEMPTS):
        side = math.sqrt(room) * (1 + share / 2) * 0.96**attempt - gap
        cells: list[Cell] = []
        for _ in range(num_tiles * _MAX_PLACE_ATTEMPTS):
            cell = _thrown(side, canvas, gap, rng)
            if all(_shared(cell, other) <= share for other in cells):
                cells.append(cell)
            if len(cells) == num_tiles:
                return cells
    return scattered(num_tiles, canvas, gap, rng)


PUBLISHED: Final[dict[str, Layout]] = {
    "horizontal": horizontal,
    "vertical": vertical,
    "grid": grid,
    "random": scattered,
}
LAYOUTS: Final[dict[str, Layout]] = {**PUBLISHED, "overlapping": overlapping}


def reading_order(cells: Sequence[Rectangle]) -> list[Rectangle]:
    """Sorts cells or boxes into rows from the top, each from the left.

    A cell belongs to a row if its centre lies above the lower edge of the row's topmost cell.

    >>> reading_order([(60, 40, 90, 70), (50, 0, 80, 30), (0, 10, 30, 40)])
    [(0, 10, 30, 40), (50, 0, 80, 30), (60, 40, 90, 70)]
    """
    rows: list[list[Rectangle]] = []
    for cell in sorted(cells, key=lambda c: (c[1], c[0])):
        if rows and (cell[1] + cell[3]) / 2 < rows[-1][0][3]:
            rows[-1].append(cell)
        else:
            rows.append([cell])
    return [cell for row in rows for cell in sorted(row)]


def _regular(columns: int, rows: int, canvas: tuple[int, int], gap: int) -> list[Cell]:
    xs = _spans(columns, canvas[0], gap)
    ys = _spans(rows, canvas[1], gap)
    return [(x1, y1, x2, y2) for y1, y2 in ys for x1, x2 in xs]


def _spans(parts: int, length: int, gap: int) -> list[tuple[int, int]]:
    room = length - gap * (parts + 1)
    return [(gap + i * gap + i * room // parts, gap + i * gap + (i + 1) * room // parts) for i in range(parts)]


def _thrown(side: float, canvas: tuple[int, int], gap: int, rng: random.Random) -> Cell:
    """Samples a cell with sides of 0.75 to 1 times ``side``."""
    draw = rng.random  # several times as fast as ``randint``
    width, height = canvas[0] - 2 * gap, canvas[1] - 2 * gap
    w = max(1, min(width, int(side * (0.75 + 0.25 * draw()))))
    h = max(1, min(height, int(side * (0.75 + 0.25 * draw()))))
    x, y = gap + int(draw() * (width - w + 1)), gap + int(draw() * (height - h + 1))
    return x, y, x + w, y + h


def _shared(a: Cell, b: Cell) -> float:
    """Returns the share of the smaller cell that lies in the other."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return across * down / smaller if across > 0 and down > 0 else 0.0


def _nearer_than(gap: int, a: Cell, b: Cell) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap
