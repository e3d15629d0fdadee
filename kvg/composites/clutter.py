"""Clutter: small objects of other categories, or patches of texture, below all entities of a composite."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Protocol

from PIL import Image

from kvg.composites.augmentations import Ground
from kvg.composites.backgrounds import texture
from kvg.composites.entity_sampler import EntitySampler
from kvg.composites.layouts import Cell
from kvg.composites.pasting import Placing, place
from kvg.composites.tiles import Picture, Tile

_SIDE: Final = (0.25, 0.55)  # range of the side, as a share of the square root of the smallest entity's area
_PATCHES: Final = 0.3  # share of patches if there are other categories
_MAX_ATTEMPTS: Final = 12
_MAX_HIDDEN: Final = 0.4  # maximum share that entities may cover; a covered object would be useless


class Maker(Protocol):
    """The part of a compositor that clutter needs."""

    sampler: EntitySampler

    def tile(self, entity: str, rng: random.Random) -> Tile:
        """Returns a tile of an entity."""

    def treated(self, tile: Tile, placing: Placing, ground: Ground, rng: random.Random) -> Image.Image:
        """Returns the augmented picture to paste."""


def clutter(
    image: Image.Image,
    maker: Maker,
    category: str,
    num: tuple[int, int],
    placings: Sequence[Placing],
    rng: random.Random,
) -> None:
    """Pastes clutter onto a background.

    Each object is smaller than the smallest entity, and belongs to another category than the target. An object is left
    out if no place is found that is free enough.

    Args:
        image: the background; it is changed.
        maker: makes tiles.
        category: category of the target.
        num: range of the number of objects.
        placings: placings of the entities.
        rng: random numbers.

    Raises:
        DataError: a tile cannot be read.
    """
    ground = Ground(image.copy())
    smallest = min((p.box[2] - p.box[0]) * (p.box[3] - p.box[1]) for p in placings) ** 0.5
    for _ in range(rng.randint(*num)):
        cell = _free(image.size, max(8, int(smallest * rng.uniform(*_SIDE))), [p.frame for p in placings], rng)
        if cell is None:
            continue
        other = None if rng.random() < _PATCHES else maker.sampler.other_category_entity(category, rng)
        tile = maker.tile(other, rng) if other else _patch(cell, rng)
        placing = place(tile, cell, 1.0, 1, rng)
        made = maker.treated(tile, placing, ground, rng)
        image.paste(made, placing.frame[:2], made if made.mode == "RGBA" else None)


def _free(canvas: tuple[int, int], side: int, taken: Sequence[Cell], rng: random.Random) -> Cell | None:
    for _ in range(_MAX_ATTEMPTS):
        x, y = (rng.randint(0, max(0, length - side)) for length in canvas)
        cell = (x, y, min(canvas[0], x + side), min(canvas[1], y + side))
        hidden = sum(_common(cell, other) for other in taken)
        if hidden <= _MAX_HIDDEN * side * side:
            return cell
    return None


def _common(a: Cell, b: Cell) -> int:
    """Returns the number of pixels that two cells share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _patch(cell: Cell, rng: random.Random) -> Tile:
    """Makes a rectangle of texture."""
    width, height = (
        max(4, int((high - low) * rng.uniform(0.5, 1.0))) for low, high in ((cell[0], cell[2]), (cell[1], cell[3]))
    )
    return Tile(Picture(texture((width, height), rng)))
