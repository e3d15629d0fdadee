"""Supersampled drawing in unit coordinates; all drawings of the lab use it."""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable, Sequence

from PIL import Image, ImageChops, ImageDraw

from kvg.lab.traits import COLOURS, Traits

Point = tuple[float, float]
Colour = tuple[int, int, int]
SIZE = 256  # pixels of the supersampled square; tiles end up 4-6 times smaller
OUTLINE = 6  # outline width in those pixels, about 1.5 px on a 64-px tile


def tinted(name: str, rng: random.Random, hue: float = 0.012, light: float = 0.05) -> Colour:
    """Returns the named colour with a small random shift of hue and lightness; it stays far from all other names."""
    h, v, s = colorsys.rgb_to_hls(*(c / 255 for c in COLOURS[name]))
    h, v = (h + rng.uniform(-hue, hue)) % 1.0, min(1.0, max(0.0, v + rng.uniform(-light, light)))
    r, g, b = colorsys.hls_to_rgb(h, v, s)
    return round(r * 255), round(g * 255), round(b * 255)


def shade(colour: Colour, factor: float) -> Colour:
    """Makes a colour darker (factor < 1) or lighter (factor > 1)."""
    if factor <= 1:
        return tuple(round(c * factor) for c in colour)  # type: ignore[return-value]
    return tuple(round(255 - (255 - c) / factor) for c in colour)  # type: ignore[return-value]


class Sketch:
    """An RGBA square whose coordinates run from 0 to 1, x to the right and y down.

    ``main`` and ``accent`` are the jittered colours of the traits, ``ink`` the outline. Draw from back to front.
    """

    def __init__(self, traits: Traits, rng: random.Random) -> None:
        self.traits, self.rng = traits, rng
        self.main = tinted(traits.colour, rng)
        self.accent = tinted(traits.accent, rng)
        self.ink: Colour = (70, 64, 70) if traits.colour == "black" else (30, 26, 30)
        self.image = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))

    # -- plain shapes ----------------------------------------------------------------------------------------------
    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: Colour, outline: bool = True) -> None:
        """Draws a filled ellipse; centre and radii are in unit coordinates."""
        box = [(cx - rx) * SIZE, (cy - ry) * SIZE, (cx + rx) * SIZE, (cy + ry) * SIZE]
        ImageDraw.Draw(self.image).ellipse(box, fill=fill, outline=self.ink if outline else None, width=OUTLINE)

    def polygon(self, points: Sequence[Point], fill: Colour, outline: bool = True) -> None:
        """Draws a filled polygon."""
        pen = ImageDraw.Draw(self.image)
        dots = [(x * SIZE, y * SIZE) for x, y in points]
        pen.polygon(dots, fill=fill)
        if outline:
            pen.line([*dots, dots[0], dots[1]], fill=self.ink, width=OUTLINE, joint="curve")

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """Draws a line with round joints and without outline; ``width`` is in unit coordinates."""
        pen = ImageDraw.Draw(self.image)
        dots = [(x * SIZE, y * SIZE) for x, y in points]
        pen.line(dots, fill=fill, width=max(1, round(width * SIZE)), joint="curve")
        r = width * SIZE / 2
        for x, y in (dots[0], dots[-1]):
            pen.ellipse([x - r, y - r, x + r, y + r], fill=fill)

    def limb(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """Draws a line with an outline, for legs, tails, necks and stems."""
        self.line(points, self.ink, width + 2 * OUTLINE / SIZE)
        self.line(points, fill, width)

    # -- the patterned body ----------------------------------------------------------------------------------------
    def body(self, silhouette: Callable[[ImageDraw.ImageDraw, float], None], pattern: bool = True) -> None:
        """Fills a silhouette with the main colour and the pattern of the traits, and draws its outline.

        ``silhouette(pen, scale)`` draws on a one-band mask with ``fill=255``, and multiplies unit coordinates by
        ``scale``. It can make several overlapping calls of ``pen.ellipse`` and ``pen.polygon`` for a compound shape.
        """
        mask = Image.new("L", (SIZE, SIZE), 0)
        silhouette(ImageDraw.Draw(mask), float(SIZE))
        bounds = mask.getbbox()
        if bounds is None:
            return
        fill = Image.new("RGB", (SIZE, SIZE), self.main)
        if pattern and self.traits.pattern != "plain":
            self._lay_pattern(fill, bounds)
        grown = _grow(mask, OUTLINE // 2)
        shrunk = ImageChops.invert(_grow(ImageChops.invert(mask), OUTLINE // 2))
        self.image.paste(self.ink, (0, 0), grown)
        self.image.paste(fill, (0, 0), shrunk)

    def _lay_pattern(self, fill: Image.Image, bounds: tuple[int, int, int, int]) -> None:
        pen, (x1, y1, x2, y2), rng = ImageDraw.Draw(fill), bounds, self.rng
        width, height = x2 - x1, y2 - y1
        if self.traits.pattern == "top":
            pen.rectangle([x1, y1, x2, y1 + height * rng.uniform(0.38, 0.46)], fill=self.accent)
        elif self.traits.pattern == "base":
            pen.rectangle([x1, y1 + height * rng.uniform(0.54, 0.62), x2, y2], fill=self.accent)
        elif self.traits.pattern == "stripes":
            step = max(width, height) / rng.uniform(5.0, 6.0)
            lean = rng.uniform(-0.2, 0.2) * height
            x = x1 - rng.uniform(0.0, 0.5) * step
            while x < x2 + step:
                dots = [(x + lean, y1), (x + lean + step * 0.48, y1), (x - lean + step * 0.48, y2), (x - lean, y2)]
                pen.polygon(dots, fill=self.accent)
                x += step
        else:
            step = max(0.4 * min(width, height), 0.16 * max(width, height), 0.115 * SIZE)
            radius, odd = step * 0.3, False
            y = y1 + step * rng.uniform(0.2, 0.5)
            while y < y2 + step:
                x = x1 + step * (rng.uniform(0.1, 0.3) + 0.5 * odd)
                while x < x2 + step:
                    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=self.accent)
                    x += step
                y, odd = y + step * 0.8, not odd


def _grow(mask: Image.Image, by: int) -> Image.Image:
    """Dilates a mask by ``by`` pixels, by eight shifted copies: many times faster than a rank filter."""
    grown = mask
    for k in range(8):
        angle = k * math.pi / 4
        grown = ImageChops.lighter(
            grown, ImageChops.offset(mask, round(by * math.cos(angle)), round(by * math.sin(angle)))
        )
    return grown
