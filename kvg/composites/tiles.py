"""A picture of one entity, kept in several sizes, so that it can be pasted in any size quickly."""

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

# Sizes are kept in steps of sqrt(0.5), and any other is made from the next larger one. A filter with a support of one
# pixel then costs a third of a bicubic one from the original, and no detail is lost (tests/composites/test_tiles.py).
# It has no negative lobes, either, which would put a bright line around cut-outs: colours overshoot where alpha cannot.
_FILTER: Final = Image.Resampling.HAMMING
_SMALL = 48  # pixels: the size at which the colours of a picture are looked at


@dataclass(frozen=True)
class _Level:
    """A picture in one of its sizes, and the factors by which places on it differ."""

    image: Image.Image
    scale: tuple[float, float] = (1.0, 1.0)


class Picture:
    """The pixels of a tile.

    Args:
        image: RGB or RGBA.
        path: where it comes from, for errors.
        cropped: a cut-out is cropped to its opaque pixels.

    Attributes:
        cut_out: whether anything is transparent.

    Raises:
        DataError: nothing is opaque.
    """

    def __init__(self, image: Image.Image, path: str = "", cropped: bool = True) -> None:
        self.cut_out = image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
        if not self.cut_out:
            self._levels = [_Level(image.convert("RGB"))]
            return
        bounds = opaque(image).getbbox()
        if bounds is None:
            raise DataError(path or "tile", "alpha", "is empty, so there is no entity; remove it")
        # Straight RGBA would drag the colour of transparent pixels into the rim.
        self._levels = [_Level((image.crop(bounds) if cropped else image).convert("RGBa"))]

    @property
    def size(self) -> tuple[int, int]:
        """Width, height in pixels."""
        return self._levels[0].image.size

    @property
    def num_bytes(self) -> int:
        """Main memory of all sizes together."""
        return 4 * self.size[0] * self.size[1] * 2

    def scaled(self, size: tuple[int, int], region: tuple[float, float, float, float]) -> Image.Image:
        """A region of it in another size.

        Args:
            size: width, height wanted, in pixels.
            region: x1, y1, x2, y2 in its pixels.

        Returns:
            RGB, or RGBA of a cut-out.
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
        """Of what is opaque."""
        level = self._level(max(0, 2 * math.ceil(math.log2(max(self.size) / _SMALL))))
        pixels = np.asarray(level.image.convert("RGBA" if self.cut_out else "RGB"), np.float32)
        inside = pixels[pixels[..., 3] > 127] if self.cut_out else pixels.reshape(-1, 3)
        inside = inside if len(inside) else pixels.reshape(-1, pixels.shape[-1])
        return tuple(inside.mean(0)[:3].tolist()), tuple(inside.std(0)[:3].tolist())

    def _level(self, number: int) -> _Level:
        """It in about ``sqrt(0.5) ** number`` of its size."""
        number = min(number, 2 * int(math.log2(max(2, min(self.size)))))  # two pixels are left of the shorter side
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
    """A picture as it is to be pasted.

    Attributes:
        picture: its pixels.
        box: where on it the entity is, in pixels of the tile as it is to be seen; None where all of it is the entity.
        mirrored: left and right are to change sides.
        path: where it comes from, '' where that is nowhere.
        licence: of the picture, where one is known.
        window: x1, y1, x2, y2 in pixels of the picture: the part of it that is the tile; None for all of it.
    """

    picture: Picture
    box: Box | None = None
    mirrored: bool = False
    path: str = ""
    licence: str = ""
    window: tuple[int, int, int, int] | None = None

    @staticmethod
    def of(image: Image.Image, box: Box | None = None, path: str = "") -> Tile:
        """A tile of an image.

        Args:
            image: RGB or RGBA.
            box: where on it the entity is; None where its opaque pixels are the entity.
            path: where it comes from.

        Raises:
            DataError: nothing on it is opaque.
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
        """Where on it the entity is."""
        return self.box or (0.0, 0.0, float(self.size[0]), float(self.size[1]))

    def mirror(self, rng: random.Random) -> Tile:
        """The same, with left and right changed half of the time."""
        if rng.random() >= 0.5:
            return self
        box = self.box and (self.size[0] - self.box[2], self.box[1], self.size[0] - self.box[0], self.box[3])
        return replace(self, box=box, mirrored=not self.mirrored)

    def cut(self, part: tuple[int, int, int, int]) -> Tile:
        """A part of it.

        Args:
            part: x1, y1, x2, y2 in whole pixels of the tile as it is to be seen; holds the box.
        """
        box = self.box and (self.box[0] - part[0], self.box[1] - part[1], self.box[2] - part[0], self.box[3] - part[1])
        left, top, _, _ = self.window or (0, 0, *self.size)
        x1, x2 = (self.size[0] - part[2], self.size[0] - part[0]) if self.mirrored else (part[0], part[2])
        return replace(self, box=box, window=(left + x1, top + part[1], left + x2, top + part[3]))

    def scaled(self, size: tuple[int, int], region: tuple[float, float, float, float] | None = None) -> Image.Image:
        """A region of the tile as it is to be seen, all of it by default. See ``Picture.scaled``."""
        region = region or (0.0, 0.0, float(self.size[0]), float(self.size[1]))
        if self.mirrored:
            region = (self.size[0] - region[2], region[1], self.size[0] - region[0], region[3])
        if self.window is not None:
            left, top = self.window[:2]
            region = (region[0] + left, region[1] + top, region[2] + left, region[3] + top)
        made = self.picture.scaled(size, region)
        return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else made


def origins(tiles: Sequence[Tile]) -> dict[str, list[str]]:
    """Where tiles come from, each in its turn; empty where that is not known of any."""
    return {"tiles": [tile.path for tile in tiles]} if any(tile.path for tile in tiles) else {}
