"""Pictures as rows and columns of square tiles, as SmolVLM and Idefics3 take them.

A picture is scaled until its longer side has a fixed length, up or down, and then a little more until both sides are
multiples of a tile's. Where that gives several tiles, the whole picture follows as one more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from kvg.backbones.picture_settings import PictureSettings, check_areas, parse_colours
from kvg.backbones.tile_processor import TilePixels
from kvg.batches import Picture
from kvg.errors import ConfigError
from kvg.pictures import as_rgb
from kvg.ranges import check_whole
from kvg.records import excerpt
from kvg.text.box_codec import ImageSize

MAX_SIDE: Final = 4096  # in transformers, too
_LANCZOS: Final = 1


@dataclass(frozen=True)
class SplitSettings(PictureSettings):
    """How a picture becomes rows and columns of tiles.

    Attributes:
        min_pixels: area of a tile; every picture has one at least.
        max_pixels: area of a square whose side is the length of a picture's longer side, in whole tiles.
        tile_size: side of a tile in pixels.
        tile_tokens: visual tokens of a tile.
    """

    min_pixels: int = 512 * 512
    max_pixels: int = 2048 * 2048
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    tile_size: int = 512
    tile_tokens: int = 64

    @property
    def cell(self) -> int:
        """See ``PictureSettings.cell``."""
        return self.tile_size

    @property
    def longest_edge(self) -> int:
        """Length of a picture's longer side: whole tiles."""
        return math.isqrt(self.max_pixels) // self.tile_size * self.tile_size


def parse_split_settings(content: Mapping[str, Any], tile_tokens: int) -> SplitSettings:
    """The settings of tiles in a checkpoint's ``preprocessor_config.json``. What is left out is as in transformers.

    Args:
        content: of that file.
        tile_tokens: visual tokens of a tile.

    Raises:
        ConfigError: a value cannot work; its field is the name in the file.
    """
    if content.get("do_image_splitting") not in (None, True):
        raise ConfigError("do_image_splitting", f"{excerpt(content['do_image_splitting'])} is not true; set it to true")
    edges = {}
    for name, default, most in (("max_image_size", 364, MAX_SIDE), ("size", 4 * 364, MAX_SIDE)):
        value = content.get(name) or {"longest_edge": default}
        if not isinstance(value, Mapping) or set(value) != {"longest_edge"}:
            form = excerpt(dict(value) if isinstance(value, Mapping) else value)
            raise ConfigError(name, f"{form} is not a mapping with longest_edge alone; write it so")
        check_whole(f"{name}.longest_edge", value["longest_edge"], 1, most)
        edges[name] = value["longest_edge"]
    tile, longest = edges["max_image_size"], edges["size"]
    if longest % tile:
        remedy = f"{longest} is no multiple of max_image_size.longest_edge, which is {tile}; change one of them"
        raise ConfigError("size.longest_edge", remedy)
    values: dict[str, Any] = {"min_pixels": tile**2, "max_pixels": longest**2, **parse_colours(content, _LANCZOS)}
    return SplitSettings(**values, tile_size=tile, tile_tokens=tile_tokens)


class SplitProcessor(TilePixels):
    """Cuts pictures into rows and columns of tiles, which stay bytes.

    A picture's tensors are ``tiles`` ``[tiles, 3, side, side]`` uint8, row by row, the whole picture last, and ``grid``
    ``[1, 2]``: rows and columns; both are 0 where the whole picture is the only tile.

    Args:
        settings: of a checkpoint, with the areas of a config.

    Raises:
        ConfigError: the areas hold no tile, or the smallest is not that of a tile.
    """

    settings: SplitSettings

    def __init__(self, settings: SplitSettings) -> None:
        check_areas(settings)
        if settings.min_pixels != settings.tile_size**2:
            remedy = f"{settings.min_pixels} has no effect: all pictures get the longer side that max_pixels allows"
            raise ConfigError("min_pixels", f"{remedy}; leave it out")
        self.settings = settings

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the first of the two resizes."""
        edge, ratio = self.settings.longest_edge, width / height
        if width >= height:
            other = int(edge / ratio)
            return edge, max(1, other + other % 2)
        other = int(edge * ratio)
        return max(1, other + other % 2), edge

    def image_size(self, width: int, height: int) -> ImageSize:
        """See ``PictureProcessor.image_size``; the resized picture is the grid of tiles."""
        first, second = self.scaled(width, height)
        ratio = first / second
        if first >= second:
            first = self._whole_tiles(first)
            second = self._whole_tiles(int(first / ratio))
        else:
            second = self._whole_tiles(second)
            first = self._whole_tiles(int(second * ratio))
        return ImageSize(width, height, first, second)

    def _whole_tiles(self, length: int) -> int:
        side = self.settings.tile_size
        return -(-length // side) * side

    def picture(self, image: Image.Image, source: bytes = b"") -> Picture:
        """See ``PictureProcessor.picture``."""
        size, side = self.image_size(*image.size), self.settings.tile_size
        rows, columns = size.resized_height // side, size.resized_width // side
        image = _resized(_resized(as_rgb(image), *self.scaled(*image.size)), size.resized_width, size.resized_height)
        cut = np.array(image).reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
        tiles = cut.reshape(rows * columns, 3, side, side)
        if len(tiles) > 1:
            tiles = np.concatenate([tiles, np.array(_resized(image, side, side)).transpose(2, 0, 1)[None]])
        else:
            rows = columns = 0
        tensors = {"tiles": torch.from_numpy(np.ascontiguousarray(tiles)), "grid": torch.tensor([[rows, columns]])}
        return Picture(tensors, len(tiles) * self.settings.tile_tokens, source)

    def file_content(self) -> dict[str, Any]:
        """See ``PictureProcessor.file_content``."""
        s = self.settings
        return {
            "image_processor_type": "SmolVLMImageProcessor",
            "do_convert_rgb": True,
            "do_image_splitting": True,
            "do_resize": True,
            "do_pad": True,
            "resample": _LANCZOS,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(s.image_mean),
            "image_std": list(s.image_std),
            "size": {"longest_edge": s.longest_edge},
            "max_image_size": {"longest_edge": s.tile_size},
        }


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
