"""What lies behind the tiles: pale, so that it can be mistaken for no entity."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Callable
from typing import Final

from PIL import Image, ImageFilter

Background = Callable[[tuple[int, int], random.Random], Image.Image]


def white(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """White."""
    return Image.new("RGB", canvas, (255, 255, 255))


def plain(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """One pale colour."""
    return Image.new("RGB", canvas, _pale(rng))


def gradient(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """From one pale colour to another, across or down."""
    ramp = Image.linear_gradient("L")
    if rng.random() < 0.5:
        ramp = ramp.transpose(Image.Transpose.ROTATE_90)
    return Image.composite(plain(canvas, rng), plain(canvas, rng), ramp.resize(canvas))


def clouds(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """Soft blotches of two pale colours."""
    cells = (max(2, canvas[0] // 40), max(2, canvas[1] // 40))
    blotches = Image.frombytes("L", cells, rng.randbytes(cells[0] * cells[1]))
    mask = blotches.resize(canvas, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(3))
    return Image.composite(plain(canvas, rng), plain(canvas, rng), mask)


BACKGROUNDS: Final[dict[str, Background]] = {"white": white, "plain": plain, "gradient": gradient, "clouds": clouds}


def _pale(rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.02, 0.22), rng.uniform(0.82, 1.0))
    return round(red * 255), round(green * 255), round(blue * 255)
