"""Mirrors tiles, except those whose text must not be mirrored, such as coins and number plates."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kvg.composites.tiles import Tile
from kvg.errors import ConfigError


@dataclass(frozen=True)
class Mirroring:
    """Rules for mirroring: half of the allowed tiles are mirrored.

    Attributes:
        allowed: whether any tile is mirrored.
        never: groups whose tiles are not mirrored, as ``setting/group``.
    """

    allowed: bool = True
    never: frozenset[str] = frozenset()

    @staticmethod
    def of(mirror: bool, groups: Mapping[str, tuple[Sequence[str], Collection[str]]], field: str) -> Mirroring:
        """Builds the rules from settings.

        Args:
            mirror: whether any tile is mirrored.
            groups: for each setting the groups that it excludes, and all existing groups.
            field: name of the section, for errors.

        Raises:
            ConfigError: a group does not exist.
        """
        never: set[str] = set()
        for setting, (names, known) in groups.items():
            for name in names:
                if name not in known:
                    raise ConfigError(f"{field}.{setting}", f"{name!r} is none of {', '.join(sorted(known))}")
            never |= {f"{setting}/{name}" for name in names}
        return Mirroring(mirror, frozenset(never))

    def draw(self, tile: Tile, rng: random.Random, **groups: str) -> Tile:
        """Mirrors a tile with probability 0.5 if that is allowed.

        The random number is always drawn, so that the rules do not change other parts of a composite.

        Args:
            tile: the original tile.
            rng: random numbers.
            groups: the tile's group for each setting.
        """
        other = tile.mirror(rng)
        forbidden = not self.allowed or any(f"{setting}/{name}" in self.never for setting, name in groups.items())
        return tile if forbidden else other
