"""The project file: sources of pictures, settings of the scan, splits, and settings of later commands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kvg.catalogue.listing import PictureSource
from kvg.catalogue.sharing import SplitSettings
from kvg.config.settings import class_setting, in_file, instantiate, read_yaml, settings_of
from kvg.config.value_types import checked
from kvg.errors import ConfigError
from kvg.pictures import MAX_PIXELS

T = TypeVar("T")
SCANNED = ("seed", "out", "sources", "scan", "splits", "exclude")
LATER = ("box", "compose", "probe", "rationalize", "filter", "shard")  # each is read by the command of that name


@dataclass(frozen=True)
class ScanSettings:
    """Sizes of the pictures that are used.

    Attributes:
        min_side: minimum side in pixels.
        max_pixels: maximum width times height; decoding larger pictures could fill the memory.
    """

    min_side: int = 0
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        for name, least in (("min_side", 0), ("max_pixels", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"scan.{name}", f"{getattr(self, name)} must be at least {least}")


@dataclass(frozen=True)
class Project:
    """The settings of a project file.

    Attributes:
        seed: seed of every random choice.
        out: folder of all outputs.
        sources: ``{class_path, init_args}`` of each source, by name.
        scan: sizes of the pictures that are used.
        splits: settings of the splits.
        exclude: pictures that must not be trained on: folders, and parquet files with a column ``image``.
        later: settings of the commands after ``scan``, by command.
        path: path of the file, for errors.
    """

    seed: int
    out: Path
    sources: Mapping[str, Mapping[str, Any]]
    scan: ScanSettings
    splits: SplitSettings
    exclude: tuple[str, ...]
    later: Mapping[str, Mapping[str, Any]]
    path: str = ""

    def settings(self, command: str, kind: type[T]) -> T:
        """Builds the settings of a command.

        Args:
            command: its name, one of ``LATER``.
            kind: dataclass of the settings; it gives the defaults.

        Raises:
            ConfigError: a setting is unknown or outside its range.
        """
        with in_file(self.path):
            return settings_of(kind, self.later.get(command), command)

    def build_sources(self) -> dict[str, PictureSource]:
        """Builds the sources, by name.

        Raises:
            ConfigError: a class does not exist, or a setting does not fit it.
            DataError: a folder or list is missing.
        """
        with in_file(self.path):
            return {
                name: instantiate(setting, f"sources.{name}", ("listings", "read"))
                for name, setting in self.sources.items()
            }

    def identity(self, *sections: str) -> str:
        """Returns a text that changes if one of these sections changes."""
        return json.dumps({name: getattr(self, name) for name in sections}, default=_plain, sort_keys=True)


def load_project(path: str | Path) -> Project:
    """Reads a project file.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or outside its range.
    """
    sections = read_yaml(path)
    with in_file(path):
        return _project(sections, Path(path))


def _project(sections: Mapping[str, Any], path: Path) -> Project:
    for key in sections:
        if key not in SCANNED + LATER:
            raise ConfigError(str(key), f"is unknown; use {', '.join(SCANNED + LATER)}")
    sources = sections.get("sources")
    if not isinstance(sources, dict) or not sources:
        raise ConfigError("sources", "are missing; add `sources: {name: {class_path: ..., init_args: ...}}`")
    for name, setting in sources.items():
        checked(name, str, f"sources.{name}")
        class_setting(setting, f"sources.{name}")
    later = {name: sections[name] for name in LATER if sections.get(name) is not None}
    for name, section in later.items():
        checked(section, Mapping[str, Any], name)
    for name, kind in (("seed", int), ("out", str), ("exclude", Sequence[str])):
        checked(sections.get(name), kind | None, name)
    return Project(
        seed=sections.get("seed") or 0,
        out=Path(sections.get("out") or path.with_suffix("")),
        sources=sources,
        scan=settings_of(ScanSettings, sections.get("scan"), "scan"),
        splits=settings_of(SplitSettings, sections.get("splits"), "splits"),
        exclude=tuple(sections.get("exclude") or ()),
        later=later,
        path=str(path),
    )


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)
