"""User settings: YAML files, the dataclasses of their sections, and the classes that they name.

All input comes from users. Damaged, mistyped or unknown settings raise a ``ConfigError`` that names the key and the
correct form; no other exception is raised.

Overlays of ``kvg`` are merged and read by jsonargparse, see ``kvg.training.resolved``. Sections of other files are read
here, because jsonargparse accepts the text ``"4"`` as a number, does not list the known settings if one is unknown, and
does not name the wrong item of a list.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kvg.config.search_path import import_class
from kvg.config.value_types import checked, words_of
from kvg.errors import ConfigError, KVGError

T = TypeVar("T")


def read_yaml(path: str | Path, texts: bool = False) -> dict[str, Any]:
    """Reads a YAML file of settings.

    Args:
        path: path of the file.
        texts: whether all keys and values stay text, also numbers and words such as ``no``.

    Raises:
        ConfigError: the file cannot be opened, is not a YAML mapping, or contains a key twice.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            settings = yaml.load(file.read(), _Texts if texts else _Settings)
    except OSError as error:
        raise ConfigError("config", f"{path} cannot be opened ({error.strerror}); correct the path") from error
    except _TwiceError as error:
        raise ConfigError("config", f"{path} contains {error}; remove one") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError("config", f"{path} is not YAML ({error}); correct it") from error
    if not isinstance(settings, dict):
        raise ConfigError("config", f"{path} contains no settings; write `name: value` lines")
    return settings


@contextmanager
def in_file(path: str | Path) -> Iterator[None]:
    """Adds the path of the file to the message of a ``ConfigError``."""
    try:
        yield
    except ConfigError as error:
        if str(path) in error.remedy:
            raise
        raise ConfigError(error.field, f"{error.remedy} (in {path})") from error


def instantiate(setting: Any, field: str, needs: Sequence[str] | type = ()) -> Any:
    """Builds the object that ``class_path`` names, with its ``init_args``.

    Args:
        setting: ``{class_path, init_args}``.
        field: name of the setting, for errors.
        needs: methods that the object must have, or its base class.

    Raises:
        ConfigError: the class does not exist, lacks a method, or takes other arguments.
        KVGError: raised by the class itself.
    """
    kind, init_args = named_class(setting, field, needs)
    try:
        return kind(**init_args)
    except KVGError:
        raise
    except Exception as error:  # a user's class can raise any exception
        reason = str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {error}"
        raise _bad_arguments(setting, field, reason) from error


def named_class(setting: Any, field: str, needs: Sequence[str] | type = ()) -> tuple[Any, dict[str, Any]]:
    """Returns the class that a setting names and its checked arguments; does not build it.

    Args:
        setting: ``{class_path, init_args}``.
        field: name of the setting, for errors.
        needs: methods that the class must have, or its base class.

    Raises:
        ConfigError: the class does not exist, lacks a method, or takes other arguments.
    """
    class_path, init_args = class_setting(setting, field)
    kind = import_class(field, class_path)
    if not _is_of_kind(kind, needs):
        if isinstance(needs, type):
            required = f"; name a subclass of {needs.__module__}.{needs.__qualname__}"
        else:
            required = f"; name a class with the methods {', '.join(needs)}" if needs else ""
        raise ConfigError(f"{field}.class_path", f"'{class_path}' is not a suitable class{required}")
    for key, hint in _parameters(kind).items():
        if key in init_args:
            checked(init_args[key], hint, f"{field}.init_args.{key}")
    try:
        inspect.signature(kind).bind(**init_args)
    except ValueError:  # the class has no signature
        pass
    except TypeError as error:
        raise _bad_arguments(setting, field, str(error)) from error
    return kind, init_args


def _is_of_kind(kind: Any, needs: Sequence[str] | type) -> bool:
    if isinstance(needs, type):
        return isinstance(kind, type) and issubclass(kind, needs)
    return callable(kind) and all(callable(getattr(kind, method, None)) for method in needs)


def _bad_arguments(setting: Mapping[str, Any], field: str, reason: str) -> ConfigError:
    return ConfigError(f"{field}.init_args", f"{reason}; see the arguments of {setting['class_path']}")


def class_setting(setting: Any, field: str) -> tuple[str, dict[str, Any]]:
    """Returns the two parts of ``{class_path, init_args}``.

    Raises:
        ConfigError: the setting has another form.
    """
    if not isinstance(setting, Mapping):
        raise ConfigError(field, f"{setting!r} names no class; write {{class_path: ..., init_args: ...}}")
    for key in setting:
        if key not in ("class_path", "init_args"):
            raise ConfigError(f"{field}.{key}", "is unknown; choose from class_path, init_args")
    class_path, init_args = setting.get("class_path"), setting.get("init_args")
    if not isinstance(class_path, str):
        raise ConfigError(f"{field}.class_path", f"{class_path!r} names no class; write package.module.Class")
    if init_args is None:
        return class_path, {}
    if not isinstance(init_args, Mapping) or not all(isinstance(name, str) for name in init_args):
        raise ConfigError(f"{field}.init_args", f"{init_args!r} are not settings; write `name: value` lines")
    return class_path, dict(init_args)


def settings_of(kind: type[T], values: Any, field: str = "") -> T:
    """Builds the dataclass of a section, and those of the sections in it.

    Args:
        kind: the dataclass. Its annotations give the types of the values, and it checks the values itself. A field
            whose type is a dataclass, or a mapping of names to one, is a section of its own.
        values: content of the section; None for an empty section.
        field: name of the section, for errors; '' for a whole file.

    Raises:
        ConfigError: a setting is unknown, missing, of another type, or outside its range.
    """
    if values is not None and not isinstance(values, Mapping):
        raise ConfigError(field, f"{values!r} are not settings; write `name: value` lines")
    hints = typing.get_type_hints(kind)
    entries = [entry for entry in dataclasses.fields(kind) if entry.init]  # type: ignore[arg-type]
    known, inside = [entry.name for entry in entries], f"{field}." if field else ""
    for key, value in (values or {}).items():
        if key not in known:
            raise ConfigError(f"{inside}{key}", f"is unknown; choose from {', '.join(known)}")
        checked(value, hints[key], f"{inside}{key}")
    given = {key: _built(value, hints[key], f"{inside}{key}") for key, value in (values or {}).items()}
    for entry in entries:
        if entry.name not in given and entry.default is entry.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{inside}{entry.name}", f"is missing; it should be {words_of(hints[entry.name])}")
    try:
        return kind(**given)
    except TypeError as error:
        raise ConfigError(field, f"{error}; correct the value") from error


def _built(value: Any, hint: Any, field: str) -> Any:
    """Returns a checked value, with mappings replaced by the dataclasses that its annotation names."""
    for kind in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
            return settings_of(kind, value, field)
    if hint is Path:
        return Path(value)
    if typing.get_origin(hint) is Mapping and isinstance(value, Mapping):
        of_items = typing.get_args(hint)[1]
        return {key: _built(item, of_items, f"{field}.{key}") for key, item in value.items()}
    return value


def _parameters(kind: Any) -> dict[str, Any]:
    """Returns the types of a class's arguments by name; without those that cannot be resolved."""
    try:
        hints = typing.get_type_hints(kind.__init__ if inspect.isclass(kind) else kind)
        names = inspect.signature(kind).parameters
    except Exception:  # some annotations can be resolved only by a type checker
        return {}
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: hints[name] for name, given in names.items() if given.kind in plain and name in hints}


class _TwiceError(Exception):
    """A mapping contains a key twice."""


def _mapping(loader: yaml.Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Builds a mapping, and raises an error if a key occurs twice: YAML itself silently uses the last one."""
    own = [(loader.construct_object(key), key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]  # type: ignore[no-untyped-call]
    lines: dict[Any, int] = {}
    for name, key in own:
        line = key.start_mark.line + 1
        if isinstance(name, typing.Hashable) and lines.setdefault(name, line) != line:
            raise _TwiceError(f"'{name}' twice, in lines {lines[name]} and {line}")
    if isinstance(loader, yaml.SafeLoader):
        loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


class _Settings(yaml.SafeLoader):
    """Safe loader that raises an error if a key occurs twice."""


class _Texts(yaml.BaseLoader):
    """Like ``_Settings``, but every scalar stays text."""


for _loader in (_Settings, _Texts):
    _loader.add_constructor("tag:yaml.org,2002:map", _mapping)  # type: ignore[no-untyped-call]
