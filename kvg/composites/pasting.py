"""Places tiles on a canvas: the size, the position, and the visible part of each."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kvg.catalogue.examine import OPAQUE
from kvg.composites.layouts import Cell
from kvg.composites.tiles import Tile
from kvg.types import Box

Mask = NDArray[np.bool_]  # [height, width]
_VISIBLE: Final = 31  # alpha above this is visible; parts thinner than a pixel never become opaque
_SIDE_JITTER: Final = 0.03  # entities of the same size differ by up to this share of their sides


@dataclass(frozen=True)
class Placing:
    """Where a tile is pasted.

    Attributes:
        frame: area of the canvas that is pasted over, in whole pixels.
        box: box of the entity on the canvas, in whole pixels.
        region: region of the tile that fills ``frame``, in pixels of the tile.
    """

    frame: Cell
    box: Cell
    region: tuple[float, float, float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Returns width and height of ``frame``."""
        return self.frame[2] - self.frame[0], self.frame[3] - self.frame[1]


def fills(
    tiles: Sequence[Tile], cells: Sequence[Cell], fill: tuple[float, float], same: bool, rng: random.Random
) -> list[float]:
    """Samples the share of its cell's side that each tile fills.

    Args:
        tiles: tiles to paste.
        cells: cell of each tile.
        fill: range of that share.
        same: whether all entities get about the same area, limited by the smallest one.
        rng: random numbers.
    """
    if not same:
        return [rng.uniform(*fill) for _ in tiles]
    sides = []
    for tile, cell in zip(tiles, cells, strict=True):
        x1, y1, x2, y2 = tile.entity_box
        sides.append(math.sqrt((x2 - x1) * (y2 - y1)) * fitting(tile, cell))
    wanted = min(sides) * rng.uniform(*fill)
    return [wanted / side * rng.uniform(1 - _SIDE_JITTER, 1) for side in sides]


def place(tile: Tile, cell: Cell, fill: float, step: int, rng: random.Random) -> Placing:
    """Places a tile in its cell such that the corners of the entity's box are multiples of ``step`` pixels."""
    scale = fill * fitting(tile, cell)
    spans, sources = [], []
    for axis in (0, 1):
        low, high, length = cell[axis], cell[axis + 2], tile.size[axis]
        near, far = tile.entity_box[axis], tile.entity_box[axis + 2]
        first, last = -(-low // step), high // step
        steps = min(max(1, round((far - near) * scale / step)), last - first)
        factor = steps * step / (far - near)
        # The whole tile should fit into the cell, not only its entity, as far as the grid allows.
        lowest = min(max(first, -int(-(low + near * factor) // step)), last - steps)
        highest = max(lowest, min(last - steps, int((high - (length - far) * factor) // step - steps)))
        start = rng.randint(lowest, highest) * step
        left = max(low, -int(-(start - near * factor) // 1))
        right = min(high, int(start + (length - near) * factor + 1e-6))
        spans.append((start, start + steps * step, left, right))
        sources.append((max(0.0, near + (left - start) / factor), min(float(length), near + (right - start) / factor)))
    (x1, x2, left, right), (y1, y2, top, bottom) = spans
    region = (sources[0][0], sources[1][0], sources[0][1], sources[1][1])
    return Placing((left, top, right, bottom), (x1, y1, x2, y2), region)


def visible(
    canvas: tuple[int, int], placings: Sequence[Placing], shapes: Sequence[Image.Image | None], whole: Sequence[bool]
) -> list[tuple[Box | None, float]]:
    """Computes the visible parts of entities that overlap.

    The entity of a cut-out is its visible pixels, including thin parts such as legs. The entity of a whole picture is
    its box, but the picture hides other entities with its whole frame.

    Args:
        canvas: width and height in pixels.
        placings: placings from the lowest to the uppermost.
        shapes: alpha of each; None if it is opaque.
        whole: whether each is a whole picture.

    Returns:
        For each the box around its visible pixels, None if there are none, and the share that is hidden.
    """
    covered = np.zeros((canvas[1], canvas[0]), bool)
    extents: list[tuple[Box | None, float]] = []
    for placing, shape, is_whole in reversed(list(zip(placings, shapes, whole, strict=True))):
        left, top, right, bottom = placing.frame
        over = covered[top:bottom, left:right]
        alpha = np.full(over.shape, 255, np.uint8) if shape is None else np.asarray(shape)
        body = alpha > _VISIBLE
        if is_whole:
            x1, y1, x2, y2 = placing.box
            body = np.zeros_like(over)
            body[y1 - top : y2 - top, x1 - left : x2 - left] = True
        seen = body & ~over
        total = int(body.sum())
        extents.append((extent(seen, left, top), 1 - int(seen.sum()) / total if total else 1.0))
        over |= alpha > OPAQUE
    return extents[::-1]


def extent(mask: Mask, left: int = 0, top: int = 0) -> Box | None:
    """Returns the box around the true pixels, moved by ``left`` and ``top``; None if there are none.

    >>> extent(np.array([[False, False, False], [False, True, True]]), 10, 20)
    (11.0, 21.0, 13.0, 22.0)
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    return float(left + x1), float(top + y1), float(left + x2), float(top + y2)


def fitting(tile: Tile, cell: Cell) -> float:
    """Returns the scale at which a tile fills its cell."""
    return min((cell[2] - cell[0]) / tile.size[0], (cell[3] - cell[1]) / tile.size[1])
