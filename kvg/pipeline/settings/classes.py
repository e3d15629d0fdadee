"""Checks of the classes that a project file names."""

from __future__ import annotations

from kvg.config.settings import named_class
from kvg.errors import ConfigError
from kvg.text.box_codec import BoxCodec

TILE_METHODS = ("categories", "entities", "neighbours", "info", "tile")  # of a ``kvg.composites.sources.TileSource``


def check_codec(setting: object, field: str) -> None:
    """Checks that a setting names a box codec.

    Raises:
        ConfigError: the class does not exist or is not a box codec.
    """
    kind, _ = named_class(setting, field)
    if not (isinstance(kind, type) and issubclass(kind, BoxCodec)):
        raise ConfigError(f"{field}.class_path", "is not a box codec; use one of kvg.text.box_codec")
