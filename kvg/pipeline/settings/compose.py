"""Section ``compose`` of a project file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvg.composites.settings import CompositorConfig
from kvg.config.settings import settings_of
from kvg.errors import ConfigError

TILES = "kvg.composites.catalogue_tiles.CatalogueTiles"
SEEDS_A_PROJECT = 100  # each set of a project has its own seed, since keys contain the seed


@dataclass(frozen=True)
class SetSettings:
    """One set in section ``compose`` of a project file.

    Attributes:
        num: number of composites.
        uses: uses of their pictures: ``train``, ``val``, ``test``; None for ``train``.
        compositor: settings that override the section's settings of the compositor.
    """

    num: int
    uses: Sequence[str] | None = None
    compositor: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ComposeSettings:
    """Section ``compose`` of a project file.

    Attributes:
        sets: sets by name.
        facts: YAML file ``{entity: traits, separated by commas}``, for the card writer.
        compositor: settings of ``kvg.composites.compositor.CompositorConfig``.
        tiles: further settings of ``kvg.composites.catalogue_tiles.CatalogueTiles``.
        samples_per_shard: size of every shard but the last.
    """

    sets: Mapping[str, SetSettings] = field(default_factory=dict)
    facts: str | None = None
    compositor: Mapping[str, Any] = field(default_factory=dict)
    tiles: Mapping[str, Any] = field(default_factory=dict)
    samples_per_shard: int = 500

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        if not self.sets:
            raise ConfigError("compose.sets", "names no set; add `train: {num: 1000}`")
        if self.samples_per_shard < 1:
            raise ConfigError("compose.samples_per_shard", f"{self.samples_per_shard} must be at least 1")
        for name, setting in self.sets.items():
            where = f"compose.sets.{name}"
            if not str(name).isidentifier():
                raise ConfigError(where, "is not a plain name; use letters, digits and underscores")
            if setting.num < 1:
                raise ConfigError(f"{where}.num", f"{setting.num} must be at least 1")
            self.compositor_of(setting)
        if len(self.sets) > SEEDS_A_PROJECT:
            raise ConfigError("compose.sets", f"are more than {SEEDS_A_PROJECT}")

    def source(self, setting: SetSettings, path: str) -> dict[str, Any]:
        """Returns the source of tiles of a set, ``{class_path, init_args}``.

        Args:
            setting: settings of the set, one of ``sets``.
            path: path of the project file.
        """
        own = {"project": path, "uses": list(setting.uses or ["train"]), "facts": self.facts}
        return {"class_path": TILES, "init_args": {**self.tiles, **own}}

    def compositor_of(self, setting: SetSettings) -> CompositorConfig:
        """Returns the settings of the compositor of a set.

        Raises:
            ConfigError: a setting is unknown or outside its range.
        """
        return settings_of(CompositorConfig, self.merged_compositor(setting), "compositor")

    def merged_compositor(self, setting: SetSettings) -> dict[str, Any]:
        """Returns the section's settings of the compositor, overridden by those of a set, in the form of the file."""
        return {**self.compositor, **(setting.compositor or {})}


def check_names(names: Sequence[str] | None, known: Mapping[str, Any], where: str) -> None:
    """Checks that all names are names of sets.

    Raises:
        ConfigError: a set does not exist.
    """
    for name in names or ():
        if name not in known:
            raise ConfigError(where, f"have no '{name}'; there are {', '.join(known)}")
