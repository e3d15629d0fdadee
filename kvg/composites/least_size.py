"""The minimum size of an object in a composite: how much of its cell a tile fills, and how closely it is cut."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvg.composites.cropping import tightened
from kvg.composites.layouts import Cell
from kvg.composites.pasting import fitting
from kvg.composites.tiles import Tile
from kvg.errors import DataError
from kvg.types import Box

_MARGIN_SHARES: Final = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of the margins around a box, in the order of trying


@dataclass(frozen=True)
class LeastSize:
    """The minimum size of an object's box.

    Attributes:
        px: minimum of its shorter side, in pixels.
        share: minimum share of the composite that it covers.
    """

    px: int = 0
    share: float = 0.0

    def holds(self, box: Box, canvas: tuple[int, int]) -> bool:
        """Returns whether a box is large enough for its composite."""
        width, height = box[2] - box[0], box[3] - box[1]
        return min(width, height) >= self.px and width * height >= self.share * canvas[0] * canvas[1]

    def fill(self, tile: Tile, cell: Cell, canvas: tuple[int, int]) -> float:
        """Returns the share of its cell's side that a tile has to fill, at most 1; 0 if there is no minimum."""
        return min(1.0, self._scale(tile, canvas) / fitting(tile, cell))

    def tightened(self, tile: Tile, cell: Cell, canvas: tuple[int, int]) -> Tile:
        """Cuts a tile closer to its box if its object would be too small otherwise."""
        wanted = self._scale(tile, canvas)
        if not wanted or tile.box is None:
            return tile
        for share in _MARGIN_SHARES:
            cut = tightened(tile, share) if share < 1 else tile
            if fitting(cut, cell) >= wanted:
                break
        return cut

    def _scale(self, tile: Tile, canvas: tuple[int, int]) -> float:
        """Returns the least scale at which its object is large enough, also after rounding."""
        x1, y1, x2, y2 = tile.entity_box
        width, height = x2 - x1, y2 - y1
        scale = self.px / min(width, height)
        if self.share:
            by_share = math.sqrt(self.share * canvas[0] * canvas[1] / (width * height))
            # Rounding reduces each side by up to half a pixel.
            scale = max(scale, by_share * (1 + 0.5 / (by_share * width)) * (1 + 0.5 / (by_share * height)))
        return scale


class TooSmall:
    """Objects that were too small in the layouts that were tried.

    Args:
        least: the minimum size.
    """

    def __init__(self, least: LeastSize) -> None:
        self._least = least
        self._times: Counter[int] = Counter()
        self._largest: dict[int, tuple[Tile, Box]] = {}

    def add(self, number: int, tile: Tile, box: Box) -> None:
        """Adds an object that was too small in one layout."""
        self._times[number] += 1
        if number not in self._largest or _short_side(box) > _short_side(self._largest[number][1]):
            self._largest[number] = tile, box

    def error(self, entities: Sequence[str]) -> DataError:
        """Returns the error for the object that was too small most often.

        Args:
            entities: entities of the composite, by number.
        """
        number = self._times.most_common(1)[0][0]
        tile, (x1, y1, x2, y2) = self._largest[number]
        entity = entities[number]
        wanted = f"min_object_px is {self._least.px}, min_object_share {self._least.share:g}"
        remedy = (
            f"{entity} has {x2 - x1:.0f} x {y2 - y1:.0f} pixels at best ({wanted}); use larger canvases, fewer objects "
            "or lower limits"
        )
        return DataError(tile.path or entity, "object size", remedy)


def _short_side(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])
