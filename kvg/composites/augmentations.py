"""Random augmentations of tiles: noise, JPEG artifacts, colours and soft edges.

Targets, distractors and clutter sample from the same ranges. Otherwise a model could find the target by its edges, its
noise or its colours, and would not have to learn the entity.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from kvg.composites.pasting import Placing
from kvg.composites.tiles import Tile
from kvg.errors import ConfigError

Range = tuple[float, float]
_NOISE_SIGMA: Final = 32.0  # standard deviation of the precomputed noise, in grey levels; it is scaled down when used
_MAX_RATIO: Final = 2.0  # contrast changes at most by this factor or its inverse


@dataclass(frozen=True)
class Augmentations:
    """Ranges of the augmentations; the defaults change nothing.

    Attributes:
        feather: pixels over which the edge of a cut-out becomes transparent, inwards.
        border: pixels over which the border of a whole picture becomes transparent; at most two pixels of the entity's
            box do.
        harmony: share by which mean and deviation of a tile's colours move to those of the background around it.
        gain: factor on each colour channel, sampled per channel.
        gamma: exponent on brightness.
        noise: standard deviation of the Gaussian noise on a tile, in grey levels.
        tile_jpeg: probability that a tile is compressed as JPEG before it is pasted.
        tile_quality: quality of that JPEG.
        picture_noise: standard deviation of the Gaussian noise on the whole composite, in grey levels.
    """

    feather: Range = (0.0, 0.0)
    border: Range = (0.0, 0.0)
    harmony: Range = (0.0, 0.0)
    gain: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)
    noise: Range = (0.0, 0.0)
    tile_jpeg: float = 0.0
    tile_quality: Range = (50, 95)
    picture_noise: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        limits = {name: (0.0, _NOISE_SIGMA) for name in ("noise", "picture_noise")}
        limits |= {"harmony": (0, 1), "gain": (0.2, 5), "gamma": (0.2, 5), "tile_quality": (1, 100)}
        for name in (field.name for field in fields(self) if field.name != "tile_jpeg"):
            check_range(f"compositor.augmentations.{name}", getattr(self, name), *limits.get(name, (0, 100)))
        if not 0 <= self.tile_jpeg <= 1:
            raise ConfigError(
                "compositor.augmentations.tile_jpeg", f"{self.tile_jpeg} is not a probability; give 0 to 1"
            )

    def on_tile(
        self, image: Image.Image, tile: Tile, placing: Placing, ground: Ground, rng: random.Random
    ) -> Image.Image:
        """Augments a tile before it is pasted.

        Args:
            image: pixels of the tile in the size in which it is pasted, RGB or RGBA.
            tile: the tile.
            placing: where it is pasted.
            ground: background on which it is pasted.
            rng: random numbers.

        Returns:
            RGB, or RGBA if parts are transparent.
        """
        image = self._recoloured(image, tile, placing, ground, rng)
        sigma = rng.uniform(*self.noise)
        if sigma > 0:
            image = noisy(image, sigma, rng)
        if self.tile_jpeg and rng.random() < self.tile_jpeg:
            image = _stored(image, round(rng.uniform(*self.tile_quality)), tile)
        soft = rng.uniform(*self.border) if tile.box is not None or image.mode == "RGB" else 0.0
        if image.mode == "RGBA" and (radius := rng.uniform(*self.feather)) > 0:
            image.putalpha(_feathered(image.getchannel("A"), radius))
        if soft > 0:
            alpha = _bordered(placing, soft)
            if image.mode == "RGBA":
                alpha = ImageChops.multiply(alpha, image.getchannel("A"))
            image.putalpha(alpha)
        return image

    def on_picture(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Adds noise to a whole composite."""
        sigma = rng.uniform(*self.picture_noise)
        return noisy(image, sigma, rng) if sigma > 0 else image

    def _recoloured(
        self, image: Image.Image, tile: Tile, placing: Placing, ground: Ground, rng: random.Random
    ) -> Image.Image:
        """Applies harmony, gain and gamma, as one table of 256 values per channel."""
        share, gamma = rng.uniform(*self.harmony), rng.uniform(*self.gamma)
        gains = [rng.uniform(*self.gain) for _ in range(3)]
        if not share and gamma == 1 and gains == [1.0] * 3:
            return image
        greys = np.arange(256, dtype=np.float64)
        table = []
        around = ground.colours(placing) if share else None
        for channel, gain in enumerate(gains):
            values = greys
            if around:
                (mean, deviation), (wanted, spread) = (
                    (c[0][channel], c[1][channel]) for c in (tile.picture.colours, around)
                )
                ratio = min(_MAX_RATIO, max(1 / _MAX_RATIO, (spread + 1) / (deviation + 1)))
                values = (values - mean) * (1 + share * (ratio - 1)) + mean + share * (wanted - mean)
            values = 255 * (np.clip(values, 0, 255) / 255) ** gamma * gain
            table += np.clip(np.rint(values), 0, 255).astype(int).tolist()
        return image.point(table + list(range(256)) * (image.mode == "RGBA"))


class Ground:
    """Mean colours of a background, from a reduced copy.

    Args:
        image: the background.
    """

    def __init__(self, image: Image.Image) -> None:
        self._step = max(1, min(image.size) // 24)
        self._image = image

    def colours(self, placing: Placing) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and standard deviation of red, green, blue of the background where a tile will be pasted."""
        if not hasattr(self, "_pixels"):
            self._pixels = np.asarray(self._image.reduce(self._step), np.float32)
        left, top, right, bottom = (value // self._step for value in placing.frame)
        part = self._pixels[top : bottom + 1, left : right + 1].reshape(-1, 3)
        return tuple(part.mean(0).tolist()), tuple(part.std(0).tolist())


def noisy(image: Image.Image, sigma: float, rng: random.Random) -> Image.Image:
    """Adds Gaussian noise, independent per pixel and channel; does not change alpha.

    Args:
        image: picture in RGB or RGBA.
        sigma: standard deviation in grey levels.
        rng: random numbers.
    """
    stock = _noise_stock(1 << max(9, math.ceil(math.log2(max(image.size) * 1.25))))
    x, y = (rng.randrange(stock.shape[axis] - length + 1) for axis, length in ((1, image.width), (0, image.height)))
    # Fixed point: 127 * 256 fits into sixteen bits, for which processors have fast vector instructions.
    grain = np.multiply(
        stock[y : y + image.height, x : x + image.width], round(256 * sigma / _NOISE_SIGMA), dtype=np.int16
    )
    grain += 128
    grain >>= 8
    grain += np.asarray(image.convert("RGB"))
    made = Image.fromarray(np.clip(grain, 0, 255, out=grain).astype(np.uint8))
    if image.mode == "RGBA":
        made.putalpha(image.getchannel("A"))
    return made


def check_range(field: str, value: object, low: float, high: float) -> None:
    """Checks a range.

    Raises:
        ConfigError: it is not two numbers between ``low`` and ``high``, the smaller one first.
    """
    good = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    if not good or not low <= value[0] <= value[1] <= high:  # type: ignore[index]
        raise ConfigError(field, f"{value!r} is not a range [low, high] within {low:g} to {high:g}")


@lru_cache(maxsize=2)
def _noise_stock(side: int) -> NDArray[np.int8]:
    """Returns Gaussian noise, ``[side, side, 3]``. It is cached: sampling it takes longer than making a composite."""
    values: NDArray[np.float32] = np.random.default_rng(0).standard_normal((side, side, 3), np.float32) * _NOISE_SIGMA
    made: NDArray[np.int8] = np.clip(np.rint(values), -127, 127).astype(np.int8)
    return made


def _stored(image: Image.Image, quality: int, tile: Tile) -> Image.Image:
    """Compresses a picture as JPEG and decodes it again."""
    plain, alpha = image.convert("RGB"), None
    if image.mode == "RGBA":
        # Fill transparent parts with the mean colour: JPEG would spread black into the edge of the cut-out.
        alpha = image.getchannel("A")
        mean = tuple(round(value) for value in tile.picture.colours[0])
        plain = Image.composite(plain, Image.new("RGB", image.size, mean), alpha.point(lambda a: 255 * (a > 32)))
    buffer = io.BytesIO()
    plain.save(buffer, "JPEG", quality=quality)
    made = Image.open(buffer)
    made.load()
    if alpha is not None:
        made.putalpha(alpha)
    return made


def _feathered(alpha: Image.Image, radius: float) -> Image.Image:
    """Softens the edge of an alpha mask inwards; pixels outside have no colour that could be shown."""
    pad = math.ceil(2 * radius) + 1
    room = Image.new("L", (alpha.width + 2 * pad, alpha.height + 2 * pad), 0)
    room.paste(alpha, (pad, pad))
    soft = room.filter(ImageFilter.GaussianBlur(radius / 2))
    return ImageChops.darker(alpha, soft.crop((pad, pad, pad + alpha.width, pad + alpha.height)))


def _bordered(placing: Placing, width: float) -> Image.Image:
    """Returns the alpha of a whole picture that fades towards its frame, and hardly inside the entity's box."""
    profiles = []
    for axis in (0, 1):
        low, high = placing.frame[axis], placing.frame[axis + 2]
        places = np.arange(high - low) + 0.5
        rooms = placing.box[axis] - low, high - placing.box[axis + 2]
        ramps = [
            np.clip(distance / min(width, max(2.0, room)), 0, 1)
            for distance, room in zip((places, places[::-1]), rooms, strict=True)
        ]
        profiles.append(np.minimum(*ramps))
    alpha = profiles[1][:, None] * profiles[0][None]
    return Image.fromarray(np.rint(255 * alpha * alpha * (3 - 2 * alpha)).astype(np.uint8))
