from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kvg.composites.settings import CompositorConfig
from kvg.composites.sources import EntityInfo
from kvg.config.settings import settings_of

COLOURS = {"Red": (220, 0, 0), "Green": (0, 160, 0), "Blue": (0, 0, 220), "Black": (0, 0, 0)}


class DiscSource:
    """Discs on a transparent ground, not centred, so that a box taken from the tile's frame would be wrong."""

    def categories(self) -> tuple[str, ...]:
        return ("disc", "other")

    def entities(self, category: str) -> tuple[str, ...]:
        return tuple(COLOURS) if category == "disc" else ("One", "Two")

    def neighbours(self, entity: str) -> tuple[str, ...]:
        return ("Green",) if entity == "Red" else ()

    def info(self, entity: str) -> EntityInfo:
        if entity in COLOURS:
            return EntityInfo("disc", "seen", "known", (entity.lower(), "round"))
        return EntityInfo("other", "unseen", "unknown")

    def tile(self, entity: str, rng: random.Random) -> Image.Image:
        image = Image.new("RGBA", (100, 80), (255, 255, 255, 0))
        ImageDraw.Draw(image).ellipse((30, 10, 89, 69), fill=(*COLOURS.get(entity, (90, 90, 90)), 255))
        return image


@pytest.fixture
def source() -> DiscSource:
    return DiscSource()


def config(**changes):
    settings = {
        "canvas_sizes": [(300, 200)],
        "image_format": "png",
        "backgrounds": {"white": 1},
        "categories": ["disc"],
    }
    return settings_of(CompositorConfig, {**settings, **changes}, "compositor")


def pixels(sample) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB")).astype(int)
