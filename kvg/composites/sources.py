"""The protocol of a source of tiles, and its information about an entity."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from kvg.composites.tiles import Tile


@dataclass(frozen=True)
class EntityInfo:
    """Information about an entity.

    Attributes:
        category: its category.
        split: ``seen`` or ``unseen``.
        knowledge: ``known``, ``unknown``, or '' if it has not been measured.
        traits: its traits; empty if there are none.
    """

    category: str
    split: str = "seen"
    knowledge: str = ""
    traits: tuple[str, ...] = ()


class TileSource(Protocol):
    """A source of single-entity pictures. It must be picklable, so that several processes can make composites."""

    def categories(self) -> tuple[str, ...]:
        """Returns all categories in a fixed order."""

    def entities(self, category: str) -> tuple[str, ...]:
        """Returns the entities of a category in a fixed order."""

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Returns similar entities of the same category; may be empty."""

    def info(self, entity: str) -> EntityInfo:
        """Returns the information about an entity."""

    def tile(self, entity: str, rng: random.Random) -> Image.Image | Tile:
        """Returns a picture of an entity.

        Returns:
            A tile, or an RGBA image whose opaque pixels are the entity. A cached tile is pasted much faster.

        Raises:
            DataError: the picture cannot be read.
        """
