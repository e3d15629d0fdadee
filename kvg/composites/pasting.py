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
_THIN: Final = 31  # alpha above this can be seen: what is thinner than a pixel is never opaque
_ALIKE: Final = 0.03  # sides that are to be the same differ by up to this share


@dataclass(frozen=True)
class Placing:
    """Where a tile is pasted.

    Attributes:
        frame: of what is pasted, on the canvas, in whole pixels.
        box: of the entity, on the canvas, in whole pixels.
        region: of the tile that fills ``frame``, in its pixels.
    """

    frame: Cell
    box: Cell
    region: tuple[float, float, float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Width, height of what is pasted."""
        return self.frame[2] - self.frame[0], self.frame[3] - self.frame[1]


def fills(
    tiles: Sequence[Tile], cells: Sequence[Cell], fill: tuple[float, float], same: bool, rng: random.Random
) -> list[float]:
    """The share of its cell's side that each tile is to take.

    Args:
        tiles: to be pasted.
        cells: of each.
        fill: range of that share.
        same: all entities are to have about the same area, that of the one with the least room.
        rng: decides.
    """
    if not same:
        return [rng.uniform(*fill) for _ in tiles]
    sides = []
    for tile, cell in zip(tiles, cells, strict=True):
        x1, y1, x2, y2 = tile.entity_box
        sides.append(math.sqrt((x2 - x1) * (y2 - y1)) * fitting(tile, cell))
    wanted = min(sides) * rng.uniform(*fill)
    return [wanted / side * rng.uniform(1 - _ALIKE, 1) for side in sides]


def place(tile: Tile, cell: Cell, fill: float, step: int, rng: random.Random) -> Placing:
    """Puts a tile into its cell so that the entity's box falls on the grid of ``step`` pixels."""
    scale = fill * fitting(tile, cell)
    spans, sources = [], []
    for axis in (0, 1):
        low, high, length = cell[axis], cell[axis + 2], tile.size[axis]
        near, far = tile.entity_box[axis], tile.entity_box[axis + 2]
        first, last = -(-low // step), high // step
        steps = min(max(1, round((far - near) * scale / step)), last - first)
        factor = steps * step / (far - near)
        # Room for the whole picture, not only for the entity in it, as far as the grid allows.
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
    """What can be seen of entities that lie one over the other.

    The entity is what is opaque of a cut-out, thin legs and feelers included, and the box on a whole picture, which
    hides what lies below it with all of its frame.

    Args:
        canvas: width, height in pixels.
        placings: from the lowest to the uppermost.
        shapes: alpha of each; None where all of it is opaque.
        whole: whether each is a whole picture.

    Returns:
        For each the box around its visible pixels, None where there are none, and the share that is hidden.
    """
    covered = np.zeros((canvas[1], canvas[0]), bool)
    extents: list[tuple[Box | None, float]] = []
    for placing, shape, is_whole in reversed(list(zip(placings, shapes, whole, strict=True))):
        left, top, right, bottom = placing.frame
        over = covered[top:bottom, left:right]
        alpha = np.full(over.shape, 255, np.uint8) if shape is None else np.asarray(shape)
        body = alpha > _THIN
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
    """The box around what is true, moved by ``left`` and ``top``; None where nothing is.

    >>> extent(np.array([[False, False, False], [False, True, True]]), 10, 20)
    (11.0, 21.0, 13.0, 22.0)
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    return float(left + x1), float(top + y1), float(left + x2), float(top + y2)


def fitting(tile: Tile, cell: Cell) -> float:
    """The scale at which a tile fills its cell."""
    return min((cell[2] - cell[0]) / tile.size[0], (cell[3] - cell[1]) / tile.size[1])
