"""Draws tiles: RGBA cut-outs of one entity, whose alpha gives the exact box."""

from __future__ import annotations

import importlib
import random

from PIL import Image, ImageEnhance

from kvg.lab.sketch import Sketch
from kvg.lab.traits import Traits


def draw_tile(traits: Traits, rng: random.Random, size: int = 96) -> Image.Image:
    """Draws one entity.

    Args:
        traits: traits of the entity.
        rng: random numbers for pose, hue, light, mirroring and tilt.
        size: longer side of the result in pixels.

    Returns:
        RGBA image cropped to its opaque pixels, longer side ``size``.
    """
    sketch = Sketch(traits, rng)
    importlib.import_module(f"kvg.lab.drawings.{traits.category}").draw(sketch)
    image = sketch.image
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-7, 7), Image.Resampling.BILINEAR)
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox())
    scale = size / max(image.size)
    image = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
    )
    light = ImageEnhance.Brightness(image.convert("RGB")).enhance(rng.uniform(0.93, 1.07))
    light.putalpha(image.getchannel("A"))
    return light
