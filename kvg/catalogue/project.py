"""The part of a project file that the catalogue needs: sources of pictures, sizes of used pictures, and splits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kvg.catalogue.listing import PictureSource
from kvg.catalogue.sharing import SplitSettings
from kvg.config.settings import class_setting, in_file, instantiate, read_yaml, settings_of
from kvg.errors import ConfigError
from kvg.pictures import MAX_PIXELS

T = TypeVar("T", bound="CatalogueProject")
LATER = ("box", "probe", "compose", "rationalize", "filter", "shard")  # each is read by the command of that name
SOURCE_METHODS = ("listings", "read")  # methods of a ``kvg.catalogue.listing.PictureSource``


@dataclass(frozen=True)
class ScanSettings:
    """How pictures are opened.

    Attributes:
        min_side: minimum side in pixels.
        max_pixels: maximum width times height; decoding larger pictures could fill the memory.
        close_ups: names of sources whose pictures show the entity and little else: the whole picture is its box, unless
            a box is listed or the picture has transparent pixels.
    """

    min_side: int = 0
    max_pixels: int = MAX_PIXELS
    close_ups: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        for name, least in (("min_side", 0), ("max_pixels", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"scan.{name}", f"{getattr(self, name)} must be at least {least}")
        if isinstance(self.close_ups, str):
            raise ConfigError("scan.close_ups", f"'{self.close_ups}' should be a list of names of sources")


@dataclass(frozen=True)
class CatalogueProject:
    """The part of a project file that the catalogue needs.

    Attributes:
        sources: ``{class_path, init_args}`` of each source, by name.
        seed: seed of every random choice.
        out: folder of all outputs; by default the path of the file without its suffix.
        scan: how pictures are opened.
        splits: settings of the splits.
        exclude: pictures that must not be trained on: folders, and parquet files with a column ``image``.
        path: path of the file, for errors; not a setting.
    """

    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    out: Path = Path()
    scan: ScanSettings = field(default_factory=ScanSettings)
    splits: SplitSettings = field(default_factory=SplitSettings)
    exclude: Sequence[str] = ()
    path: str = field(default="", init=False)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: there is no source, or one is not ``{class_path, init_args}``.
        """
        if not self.sources:
            raise ConfigError("sources", "are missing; add `sources: {name: {class_path: ..., init_args: ...}}`")
        for name, setting in self.sources.items():
            if not name:
                raise ConfigError("sources", "have an empty name; give the source a name")
            class_setting(setting, f"sources.{name}")
        for name in self.scan.close_ups:
            if name not in self.sources:
                raise ConfigError("scan.close_ups", f"'{name}' is no source; there are {', '.join(self.sources)}")

    def build_sources(self) -> dict[str, PictureSource]:
        """Builds the sources, by name.

        Raises:
            ConfigError: a class does not exist, or a setting does not fit it.
            DataError: a folder or list is missing.
        """
        with in_file(self.path):
            return {
                name: instantiate(setting, f"sources.{name}", SOURCE_METHODS) for name, setting in self.sources.items()
            }

    def identity(self, *sections: str) -> str:
        """Returns a text that changes if one of these sections changes."""
        return json.dumps({name: getattr(self, name) for name in sections}, default=_plain, sort_keys=True)


def read_project(path: str | Path, kind: type[T]) -> T:
    """Reads a project file.

    Args:
        path: path of the file.
        kind: ``CatalogueProject``, which skips the sections of later steps, or a subclass with these sections.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or outside its range.
    """
    sections = {name: value for name, value in read_yaml(path).items() if value is not None}
    with in_file(path):
        if kind is CatalogueProject:
            sections = {name: value for name, value in sections.items() if name not in LATER}
        sections.setdefault("out", str(Path(path).with_suffix("")))
        project = settings_of(kind, sections)
    object.__setattr__(project, "path", str(path))
    return project


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)
