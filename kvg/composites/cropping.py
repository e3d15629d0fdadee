"""Cuts photographs around the box of their entity, so that it is large enough in the tile."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvg.composites.augmentations import check_range
from kvg.composites.layouts import Cell
from kvg.composites.tiles import Tile
from kvg.errors import ConfigError
from kvg.types import Box

_MAX_MARGIN: Final = 100.0


@dataclass(frozen=True)
class Cut:
    """Settings of the cut around the box of an entity.

    Margins are shares of the square root of the box's area, because shares of its sides would give thin objects too
    little room. The four margins are sampled anew for each use of a picture, so that the frame does not show the box.

    Attributes:
        margin: range of the margin on each side.
        least: minimum side of the cut in pixels of the photograph, if the photograph is large enough.
    """

    margin: tuple[float, float]
    least: int = 64

    @staticmethod
    def of(margin: tuple[float, float] | None, least: int, field: str) -> Cut | None:
        """Builds a cut from settings; returns None if ``margin`` is None, which uses whole photographs.

        Args:
            margin: ``[low, high]``.
            least: minimum side in pixels.
            field: name of the section, for errors.

        Raises:
            ConfigError: a setting is outside its range.
        """
        if least < 1:
            raise ConfigError(f"{field}.min_cut_px", f"{least} must be at least 1")
        if margin is None:
            return None
        check_range(f"{field}.margin", margin, 0, _MAX_MARGIN)
        return Cut((float(margin[0]), float(margin[1])), least)

    def widest(self, box: Box, size: tuple[int, int]) -> Cell:
        """Returns the window that contains every possible cut.

        Args:
            box: box of the entity, in pixels of the photograph.
            size: width and height of the photograph.

        Returns:
            The window in whole pixels of the photograph.
        """
        reach = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        return _window(box, size, [self.margin[1] * reach] * 4, self.least)

    def draw(self, tile: Tile, rng: random.Random, scale: float = 1.0) -> Tile:
        """Cuts a tile around its box; returns a tile without a box unchanged.

        Args:
            tile: a photograph, or its widest cut.
            rng: random numbers.
            scale: factor by which the photograph was scaled to this tile.
        """
        if tile.box is None:
            return tile
        reach = math.sqrt((tile.box[2] - tile.box[0]) * (tile.box[3] - tile.box[1]))
        margins = [rng.uniform(*self.margin) * reach for _ in range(4)]
        return tile.cut(_window(tile.box, tile.size, margins, self.least * scale))


def tightened(tile: Tile, share: float) -> Tile:
    """Cuts a tile closer to its box.

    Args:
        tile: a tile; without a box it is not changed.
        share: share of the margins that remains, 0-1.
    """
    if tile.box is None:
        return tile
    x1, y1, x2, y2 = tile.box
    margins = [x1 * share, y1 * share, (tile.size[0] - x2) * share, (tile.size[1] - y2) * share]
    return tile.cut(_window(tile.box, tile.size, margins, 1))


def _window(box: Box, size: tuple[int, int], margins: Sequence[float], least: float) -> Cell:
    """Returns the box with margins (left, top, right, bottom), each side at least ``least``, in whole pixels."""
    spans = []
    for axis in (0, 1):
        low, high = box[axis] - margins[axis], box[axis + 2] + margins[axis + 2]
        missing = min(least, size[axis]) - (high - low)
        if missing > 0:
            low, high = low - missing / 2, high + missing / 2
            shift = max(0.0, -low) - max(0.0, high - size[axis])
            low, high = low + shift, high + shift
        spans.append((max(0, math.floor(low + 1e-6)), min(size[axis], math.ceil(high - 1e-6))))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]
