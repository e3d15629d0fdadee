"""Pictures as square tiles of one size, as InternVL takes them.

A picture is stretched over the grid of tiles whose shape is closest to its own; where there are several tiles, the
whole picture follows as one more. Boxes relative to width and height are not touched by the stretching.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from kvg.backbones.picture_settings import PictureSettings, check_areas, parse_colours
from kvg.batches import Picture
from kvg.errors import ConfigError
from kvg.pictures import as_rgb
from kvg.ranges import check_whole
from kvg.records import excerpt
from kvg.text.box_codec import ImageSize

MAX_TILES: Final = 1024  # of a picture; published models allow 12


@dataclass(frozen=True)
class TileSettings(PictureSettings):
    """How a picture becomes tiles.

    Attributes:
        min_pixels: smallest area of all tiles but the one of the whole picture.
        max_pixels: largest area of them.
        tile_size: side of a tile in pixels.
        tile_tokens: visual tokens of a tile.
    """

    min_pixels: int = 448 * 448
    max_pixels: int = 12 * 448 * 448
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    tile_size: int = 448
    tile_tokens: int = 256

    @property
    def cell(self) -> int:
        """See ``PictureSettings.cell``."""
        return self.tile_size

    @property
    def num_tiles(self) -> tuple[int, int]:
        """Smallest and largest number of tiles, without the one of the whole picture."""
        area = self.tile_size**2
        return -(-self.min_pixels // area), self.max_pixels // area


def parse_tile_settings(content: Mapping[str, Any], tile_tokens: int) -> TileSettings:
    """The settings of tiles in a checkpoint's ``preprocessor_config.json``. What is left out is as published.

    ``crop_to_patches`` is not read: the published processor sets it, whatever the file says.

    Args:
        content: of that file.
        tile_tokens: visual tokens of a tile.

    Raises:
        ConfigError: a value cannot work; its field is the name in the file.
    """
    size = content.get("size", {"height": TileSettings.tile_size, "width": TileSettings.tile_size})
    if not isinstance(size, Mapping) or set(size) != {"height", "width"} or size["height"] != size["width"]:
        written = excerpt(dict(size) if isinstance(size, Mapping) else size)
        raise ConfigError("size", f"{written} is no square; write equal height and width")
    check_whole("size.height", size["height"], 1, 1 << 14)
    tiles = {name: content.get(name) or default for name, default in (("min_patches", 1), ("max_patches", 12))}
    for name, value in tiles.items():
        check_whole(name, value, 1, MAX_TILES)
    if tiles["min_patches"] > tiles["max_patches"]:
        raise ConfigError("min_patches", f"{tiles['min_patches']} is above max_patches, {tiles['max_patches']}")
    area = size["height"] ** 2
    areas = {"min_pixels": tiles["min_patches"] * area, "max_pixels": tiles["max_patches"] * area}
    values: dict[str, Any] = {**areas, **parse_colours(content)}
    return TileSettings(**values, tile_size=size["height"], tile_tokens=tile_tokens)


class TilePixels:
    """What the processors of tiles share: tiles stay bytes until the vision tower takes them.

    Attributes:
        settings: with the colours of the checkpoint.
    """

    settings: PictureSettings

    @cached_property
    def _colours(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in (self.settings.image_mean, self.settings.image_std))
        return (1 / (255 * std)).float().view(3, 1, 1), (mean / std).float().view(3, 1, 1)

    def pixel_values(self, tiles: Tensor) -> Tensor:
        """Normalised tiles, ``[tiles, 3, side, side]`` float32 on any device, from uint8."""
        scale, shift = (value.to(tiles.device) for value in self._colours)
        return tiles.to(torch.float32, copy=True).mul_(scale).sub_(shift)


class TileProcessor(TilePixels):
    """Cuts pictures into tiles, which stay bytes.

    A picture's tensor is ``tiles`` ``[tiles, 3, side, side]`` uint8, row by row, the whole picture last.

    Args:
        settings: of a checkpoint, with the areas of a config.

    Raises:
        ConfigError: the areas hold no tile.
    """

    settings: TileSettings

    def __init__(self, settings: TileSettings) -> None:
        check_areas(settings)
        least, most = settings.num_tiles
        if least > most:
            raise ConfigError("min_pixels", f"{settings.min_pixels} are {least} tiles, and max_pixels {most}; lower it")
        self.settings = settings

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles for a picture of this size."""
        side = self.settings.tile_size
        columns, rows = get_optimal_tiled_canvas((height, width), (side, side), *self.settings.num_tiles)
        return int(columns), int(rows)

    def image_size(self, width: int, height: int) -> ImageSize:
        """See ``PictureProcessor.image_size``; the resized picture is the grid of tiles."""
        columns, rows = self.grid(width, height)
        return ImageSize(width, height, columns * self.settings.tile_size, rows * self.settings.tile_size)

    def picture(self, image: Image.Image, source: bytes = b"") -> Picture:
        """See ``PictureProcessor.picture``."""
        columns, rows = self.grid(*image.size)
        side, image = self.settings.tile_size, as_rgb(image)
        cut = _bytes(image, columns * side, rows * side).reshape(rows, side, columns, side, 3)
        tiles = cut.transpose(0, 2, 4, 1, 3).reshape(rows * columns, 3, side, side)
        if len(tiles) > 1:
            tiles = np.concatenate([tiles, _bytes(image, side, side).transpose(2, 0, 1)[None]])
        tiles = np.ascontiguousarray(tiles)
        return Picture({"tiles": torch.from_numpy(tiles)}, len(tiles) * self.settings.tile_tokens, source)

    def file_content(self) -> dict[str, Any]:
        """See ``PictureProcessor.file_content``."""
        s, (least, most) = self.settings, self.settings.num_tiles
        return {
            "image_processor_type": "GotOcr2ImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "resample": 3,  # bicubic
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(s.image_mean),
            "image_std": list(s.image_std),
            "size": {"height": s.tile_size, "width": s.tile_size},
            "crop_to_patches": True,
            "min_patches": least,
            "max_patches": most,
        }


def _bytes(image: Image.Image, width: int, height: int) -> Any:
    """A picture of this size, ``[height, width, 3]`` uint8."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)
