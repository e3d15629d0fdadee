"""The project file: where pictures come from, and how they are looked at and shared out."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from kvg.catalogue.listing import PictureSource
from kvg.catalogue.sharing import SplitSettings
from kvg.errors import ConfigError
from kvg.pictures import MAX_PIXELS
from kvg.records import excerpt

T = TypeVar("T")
SCANNED = ("seed", "out", "sources", "scan", "splits", "exclude")
LATER = ("box", "compose", "probe", "rationalize", "filter", "shard")  # each belongs to the command of that name


@dataclass(frozen=True)
class ScanSettings:
    """Which pictures are used.

    Attributes:
        min_side: pictures with a side shorter than this many pixels are not.
        max_pixels: nor are larger ones, which could fill the memory when they are decoded.
    """

    min_side: int = 0
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Project:
    """A project file as it was read.

    Attributes:
        seed: of every random choice.
        out: folder of everything that is made.
        sources: by name, each ``{class_path, init_args}``.
        scan: which pictures are used.
        splits: how they are shared out.
        exclude: what must not be trained on: folders of pictures, and parquet files with a column ``image``.
        later: settings of the commands that come after ``scan``, by their names.
    """

    seed: int
    out: Path
    sources: Mapping[str, Mapping[str, Any]]
    scan: ScanSettings
    splits: SplitSettings
    exclude: tuple[str, ...]
    later: Mapping[str, Mapping[str, Any]]

    def settings(self, command: str, kind: type[T]) -> T:
        """The settings of a command.

        Args:
            command: its name, one of ``LATER``.
            kind: dataclass of them; what the project file leaves out has its defaults.

        Raises:
            ConfigError: one is unknown or cannot work.
        """
        return settings_of(kind, self.later.get(command), command)

    def build_sources(self) -> dict[str, PictureSource]:
        """The sources, by name.

        Raises:
            ConfigError: a class or setting does not exist or does not fit.
            DataError: a folder or list is missing.
        """
        return {name: instantiate(setting, f"sources.{name}") for name, setting in self.sources.items()}

    def identity(self, *sections: str) -> str:
        """Text that changes when one of these sections does."""
        return json.dumps({name: getattr(self, name) for name in sections}, default=_plain, sort_keys=True)


def load_project(path: str | Path) -> Project:
    """Reads a project file.

    Raises:
        ConfigError: it cannot be read, or a setting is unknown or cannot work.
    """
    found = read_yaml(path)
    for key in found:
        if key not in SCANNED + LATER:
            raise ConfigError(str(key), f"is unknown in {path}; use {', '.join(SCANNED + LATER)}")
    sources = found.get("sources")
    if not isinstance(sources, dict) or not sources:
        raise ConfigError(
            "sources", f"are missing in {path}; add `sources: {{name: {{class_path: ..., init_args: ...}}}}`"
        )
    seed = found.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError("seed", f"{seed!r} is not a whole number")
    _check_type("out", found.get("out"), str | None)
    _check_type("exclude", found.get("exclude"), Sequence[str] | None)
    return Project(
        seed=seed,
        out=Path(found.get("out") or Path(path).with_suffix("")),
        sources={str(name): setting for name, setting in sources.items()},
        scan=settings_of(ScanSettings, found.get("scan"), "scan"),
        splits=settings_of(SplitSettings, found.get("splits"), "splits"),
        exclude=tuple(str(entry) for entry in found.get("exclude") or ()),
        later={name: found[name] or {} for name in LATER if name in found},
    )


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds settings.

    Raises:
        ConfigError: it cannot be opened, or is something else.
    """
    try:
        found = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError("config", f"{path} cannot be opened ({error.strerror}); correct the path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none is a ValueError
        raise ConfigError("config", f"{path} is no YAML ({error}); correct it") from error
    if not isinstance(found, dict):
        raise ConfigError("config", f"{path} holds no settings; write `name: value` lines")
    return found


def instantiate(setting: Any, field: str) -> Any:
    """Builds what ``class_path`` names with its ``init_args``.

    Args:
        setting: ``{class_path, init_args}``.
        field: where it stands, for errors.

    Raises:
        ConfigError: there is no such class, or it takes other arguments.
    """
    class_path = str(setting.get("class_path", "")) if isinstance(setting, Mapping) else ""
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{field}.class_path", f"'{class_path}' cannot be imported ({error}); correct it") from error
    try:
        return kind(**(setting.get("init_args") or {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{field}.init_args", f"{error}; see the arguments of {class_path}") from error


def settings_of(kind: type[T], values: Any, field: str) -> T:
    """Builds the dataclass of a section.

    Args:
        kind: the dataclass; checks its own values.
        values: what the file holds; None for nothing.
        field: where it stands, for errors.

    Raises:
        ConfigError: a setting is unknown or missing, or cannot work.
    """
    if values is not None and not isinstance(values, dict):
        raise ConfigError(field, f"{values!r} are no settings; write `name: value` lines")
    known = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values or {}:
        if key not in known:
            raise ConfigError(f"{field}.{key}", f"is unknown; choose from {', '.join(known)}")
    types = get_type_hints(kind)
    for key, value in (values or {}).items():
        _check_type(f"{field}.{key}", value, types[key])
    try:
        return kind(**(values or {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(field, f"{error}; correct the value") from error


def _check_type(field: str, value: Any, annotation: Any) -> None:
    """Checks a value of a YAML file against the plain part of a type: numbers, texts, lists and mappings.

    Raises:
        ConfigError: it is of another type.
    """
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    words = []
    for kind in kinds:
        plain = get_origin(kind) or kind
        if plain not in _YAML_TYPES:
            return  # nothing that can be told from a YAML file
        accepted, word = _YAML_TYPES[plain]
        if isinstance(value, accepted) and (plain is bool or not isinstance(value, bool)):
            return
        words.append(word)
    raise ConfigError(field, f"{excerpt(value)} should be {' or '.join(words)}")


_YAML_TYPES: Final[dict[Any, tuple[tuple[type, ...], str]]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    type(None): ((type(None),), "null"),
    abc.Sequence: ((list, tuple), "a list"),
    abc.Mapping: ((dict,), "`name: value` lines"),
}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)
