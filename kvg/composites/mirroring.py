"""Which tiles may be mirrored: coins, number plates and liveries would carry mirrored text."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kvg.composites.tiles import Tile
from kvg.errors import ConfigError


@dataclass(frozen=True)
class Mirroring:
    """Which tiles are mirrored half of the time.

    Attributes:
        allowed: whether any tile is.
        never: groups (sources, categories) whose tiles are not, each after the name of its setting.
    """

    allowed: bool = True
    never: frozenset[str] = frozenset()

    @staticmethod
    def of(mirror: bool, groups: Mapping[str, tuple[Sequence[str], Collection[str]]], field: str) -> Mirroring:
        """The settings as they stand in YAML.

        Args:
            mirror: whether any tile is mirrored.
            groups: by name of the setting the groups that it excludes, and all that there are.
            field: of the settings, for errors.

        Raises:
            ConfigError: there is no such group.
        """
        never: set[str] = set()
        for setting, (names, known) in groups.items():
            for name in names:
                if name not in known:
                    raise ConfigError(f"{field}.{setting}", f"{name!r} is none of {', '.join(sorted(known))}")
            never |= {f"{setting}/{name}" for name in names}
        return Mirroring(mirror, frozenset(never))

    def draw(self, tile: Tile, rng: random.Random, **groups: str) -> Tile:
        """The tile, mirrored half of the time where that is allowed.

        The draw is made in any case: what is forbidden changes nothing else of a composite.

        Args:
            tile: as it was photographed.
            rng: decides.
            groups: the tile's own group by name of the setting.
        """
        other = tile.mirror(rng)
        forbidden = not self.allowed or any(f"{setting}/{name}" in self.never for setting, name in groups.items())
        return tile if forbidden else other
