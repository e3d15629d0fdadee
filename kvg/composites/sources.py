"""Where tiles come from: the protocol of a source, and what it knows of an entity."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from kvg.composites.tiles import Tile


@dataclass(frozen=True)
class EntityInfo:
    """What is known of an entity.

    Attributes:
        category: its category.
        split: ``seen`` or ``unseen``.
        knowledge: ``known``, ``unknown`` or '' where nobody has measured it.
        traits: its looks in words; empty where nobody has written them down.
    """

    category: str
    split: str = "seen"
    knowledge: str = ""
    traits: tuple[str, ...] = ()


class TileSource(Protocol):
    """A supply of single-entity pictures. Picklable, so that composites can be made by several processes."""

    def categories(self) -> tuple[str, ...]:
        """All categories, in a fixed order."""

    def entities(self, category: str) -> tuple[str, ...]:
        """The entities of a category, in a fixed order."""

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Entities of the same category that are easily mistaken for this one; may be empty."""

    def info(self, entity: str) -> EntityInfo:
        """What is known of an entity."""

    def tile(self, entity: str, rng: random.Random) -> Image.Image | Tile:
        """A picture of an entity.

        Returns:
            A tile, or an RGBA image whose opaque pixels are the entity. A tile that is kept is pasted much faster.

        Raises:
            DataError: the picture cannot be read.
        """
