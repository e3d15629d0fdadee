"""Cutting photographs around the box of their entity, so that it is not lost in what surrounds it."""

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
    """How much of a photograph is left around the box of its entity.

    Margins are shares of the square root of the box's area: a share of its sides would make ribbons of thin objects.
    Each of the four is drawn anew whenever the picture is used, so that its frame does not tell the box.

    Attributes:
        margin: range of the margin on each side.
        least: pixels of the photograph that a side of the cut has at least, where the photograph has them.
    """

    margin: tuple[float, float]
    least: int = 64

    @staticmethod
    def of(margin: tuple[float, float] | None, least: int, field: str) -> Cut | None:
        """A cut as it stands in YAML; None where ``margin`` is None: photographs are used whole.

        Args:
            margin: ``[low, high]``.
            least: pixels.
            field: of the settings, for errors.

        Raises:
            ConfigError: one of them cannot work.
        """
        if least < 1:
            raise ConfigError(f"{field}.min_cut_px", f"{least} must be at least 1")
        if margin is None:
            return None
        check_range(f"{field}.margin", margin, 0, _MAX_MARGIN)
        return Cut((float(margin[0]), float(margin[1])), least)

    def widest(self, box: Box, size: tuple[int, int]) -> Cell:
        """All that can be part of a cut.

        Args:
            box: of the entity, in pixels of the photograph.
            size: width, height of the photograph.

        Returns:
            A window in whole pixels of the photograph.
        """
        reach = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        return _window(box, size, [self.margin[1] * reach] * 4, self.least)

    def draw(self, tile: Tile, rng: random.Random, scale: float = 1.0) -> Tile:
        """A tile cut around its box; one without a box as it is.

        Args:
            tile: a photograph, or its widest cut.
            rng: decides.
            scale: by which the photograph was shrunk to this tile.
        """
        if tile.box is None:
            return tile
        reach = math.sqrt((tile.box[2] - tile.box[0]) * (tile.box[3] - tile.box[1]))
        margins = [rng.uniform(*self.margin) * reach for _ in range(4)]
        return tile.cut(_window(tile.box, tile.size, margins, self.least * scale))


def tightened(tile: Tile, share: float) -> Tile:
    """A tile with less around its box.

    Args:
        tile: with a box.
        share: of the room around the box that stays, 0-1.
    """
    if tile.box is None:
        return tile
    x1, y1, x2, y2 = tile.box
    margins = [x1 * share, y1 * share, (tile.size[0] - x2) * share, (tile.size[1] - y2) * share]
    return tile.cut(_window(tile.box, tile.size, margins, 1))


def _window(box: Box, size: tuple[int, int], margins: Sequence[float], least: float) -> Cell:
    """The box with margins (left, above, right, below), at least ``least`` a side, in whole pixels of the picture."""
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
