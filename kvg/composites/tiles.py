"""Tiles: pictures of one entity, stored in several sizes so that they can be resized quickly."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from PIL import Image

from kvg.catalogue.examine import opaque
from kvg.errors import DataError
from kvg.types import Box

Colours = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of red, green, blue, in 0-255

# Stored sizes differ by a factor of sqrt(0.5); any other size is made from the next larger one. A filter with a support
# of one pixel then takes a third of the time of a bicubic filter on the original, without loss of detail
# (tests/composites/test_tiles.py). It has no negative lobes; these would put a bright line around cut-outs.
_FILTER: Final = Image.Resampling.HAMMING
_SMALL = 48  # longer side in pixels of the copy from which mean colours are computed


@dataclass(frozen=True)
class _Level:
    """A picture in one of its sizes, and its scale across and down relative to the full size."""

    image: Image.Image
    scale: tuple[float, float] = (1.0, 1.0)


class Picture:
    """The pixels of a tile.

    Args:
        image: picture in RGB or RGBA.
        path: path of the picture, for errors.
        cropped: whether a cut-out is cropped to its opaque pixels.

    Attributes:
        cut_out: whether any pixel is transparent.

    Raises:
        DataError: no pixel is opaque.
    """

    def __init__(self, image: Image.Image, path: str = "", cropped: bool = True) -> None:
        self.cut_out = image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
        if not self.cut_out:
            self._levels = [_Level(image.convert("RGB"))]
            return
        bounds = opaque(image).getbbox()
        if bounds is None:
            raise DataError(path or "tile", "alpha", "is empty, so there is no entity; remove it")
        # Premultiplied alpha keeps the colour of transparent pixels out of the edge.
        self._levels = [_Level((image.crop(bounds) if cropped else image).convert("RGBa"))]

    @property
    def size(self) -> tuple[int, int]:
        """Width, height in pixels."""
        return self._levels[0].image.size

    @property
    def num_bytes(self) -> int:
        """Returns the memory of all sizes together."""
        return 4 * self.size[0] * self.size[1] * 2

    def scaled(self, size: tuple[int, int], region: tuple[float, float, float, float]) -> Image.Image:
        """Resizes a region.

        Args:
            size: width and height of the result, in pixels.
            region: x1, y1, x2, y2 in pixels of the picture.

        Returns:
            RGB, or RGBA for a cut-out.
        """
        reduction = min((region[2] - region[0]) / size[0], (region[3] - region[1]) / size[1])
        level = self._level(max(0, math.floor(2 * math.log2(reduction) + 1e-9)))
        across, down = level.scale
        (width, height), (x1, y1, x2, y2) = level.image.size, region
        box = x1 * across, y1 * down, min(x2 * across, width), min(y2 * down, height)
        made = level.image.resize(size, _FILTER, box=box)
        return made.convert("RGBA") if self.cut_out else made

    @cached_property
    def colours(self) -> Colours:
        """Mean and standard deviation of the colours of opaque pixels."""
        level = self._level(max(0, 2 * math.ceil(math.log2(max(self.size) / _SMALL))))
        pixels = np.asarray(level.image.convert("RGBA" if self.cut_out else "RGB"), np.float32)
        inside = pixels[pixels[..., 3] > 127] if self.cut_out else pixels.reshape(-1, 3)
        inside = inside if len(inside) else pixels.reshape(-1, pixels.shape[-1])
        return tuple(inside.mean(0)[:3].tolist()), tuple(inside.std(0)[:3].tolist())

    def _level(self, number: int) -> _Level:
        """Returns the picture in about ``sqrt(0.5) ** number`` of its size."""
        number = min(number, 2 * int(math.log2(max(2, min(self.size)))))  # the shorter side keeps two pixels
        while len(self._levels) <= number:
            larger, factor = (
                (self._levels[-2].image, 0.5) if len(self._levels) > 1 else (self._levels[0].image, 0.5**0.5)
            )
            size = math.ceil(larger.width * factor), math.ceil(larger.height * factor)
            made = larger.resize(size, _FILTER if self.cut_out else Image.Resampling.LANCZOS)
            self._levels.append(_Level(made, (size[0] / self.size[0], size[1] / self.size[1])))
        return self._levels[number]


@dataclass(frozen=True)
class Tile:
    """A picture, or a part of it, to be pasted.

    Attributes:
        picture: its pixels.
        box: box of the entity in pixels of the tile, after mirroring; None if the whole tile is the entity.
        mirrored: whether the tile is mirrored.
        path: path of the picture; '' if there is none.
        licence: licence of the picture; '' if unknown.
        window: x1, y1, x2, y2 in pixels of the picture: the part that is the tile; None for the whole picture.
    """

    picture: Picture
    box: Box | None = None
    mirrored: bool = False
    path: str = ""
    licence: str = ""
    window: tuple[int, int, int, int] | None = None

    @staticmethod
    def of(image: Image.Image, box: Box | None = None, path: str = "") -> Tile:
        """Makes a tile from an image.

        Args:
            image: picture in RGB or RGBA.
            box: box of the entity; None if its opaque pixels are the entity.
            path: path of the picture.

        Raises:
            DataError: no pixel is opaque.
        """
        return Tile(Picture(image, path, cropped=box is None), box, path=path)

    @property
    def size(self) -> tuple[int, int]:
        """Width, height in pixels."""
        if self.window is None:
            return self.picture.size
        return self.window[2] - self.window[0], self.window[3] - self.window[1]

    @property
    def entity_box(self) -> Box:
        """Returns the box of the entity; the whole tile if ``box`` is None."""
        return self.box or (0.0, 0.0, float(self.size[0]), float(self.size[1]))

    def mirror(self, rng: random.Random) -> Tile:
        """Mirrors the tile with probability 0.5."""
        if rng.random() >= 0.5:
            return self
        box = self.box and (self.size[0] - self.box[2], self.box[1], self.size[0] - self.box[0], self.box[3])
        return replace(self, box=box, mirrored=not self.mirrored)

    def cut(self, part: tuple[int, int, int, int]) -> Tile:
        """Cuts out a part.

        Args:
            part: x1, y1, x2, y2 in whole pixels of the tile, after mirroring; it must contain the box.
        """
        box = self.box and (self.box[0] - part[0], self.box[1] - part[1], self.box[2] - part[0], self.box[3] - part[1])
        left, top, _, _ = self.window or (0, 0, *self.size)
        x1, x2 = (self.size[0] - part[2], self.size[0] - part[0]) if self.mirrored else (part[0], part[2])
        return replace(self, box=box, window=(left + x1, top + part[1], left + x2, top + part[3]))

    def scaled(self, size: tuple[int, int], region: tuple[float, float, float, float] | None = None) -> Image.Image:
        """Resizes a region of the tile, after mirroring; the whole tile by default. See ``Picture.scaled``."""
        region = region or (0.0, 0.0, float(self.size[0]), float(self.size[1]))
        if self.mirrored:
            region = (self.size[0] - region[2], region[1], self.size[0] - region[0], region[3])
        if self.window is not None:
            left, top = self.window[:2]
            region = (region[0] + left, region[1] + top, region[2] + left, region[3] + top)
        made = self.picture.scaled(size, region)
        return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else made


def origins(tiles: Sequence[Tile]) -> dict[str, list[str]]:
    """Returns the paths of tiles for the provenance; empty if none is known."""
    return {"tiles": [tile.path for tile in tiles]} if any(tile.path for tile in tiles) else {}
