"""Checks values from files against type annotations, and describes types in words."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kvg.errors import ConfigError
from kvg.records import excerpt

_WORDS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "null",
}


def checked(value: Any, hint: Any, field: str) -> None:
    """Checks the type of a value.

    Args:
        value: value from YAML or JSON.
        hint: annotation of the setting. Only plain types, collections and unions of these are checked.
        field: dotted name of the setting, for errors.

    Raises:
        ConfigError: the value has another type.

    >>> checked([[640, 480]], Sequence[tuple[int, int]], "canvas_sizes")
    >>> checked("5", int, "max_attempts")
    Traceback (most recent call last):
        ...
    kvg.errors.ConfigError: max_attempts: '5' should be a whole number; write 5 without quotes
    """
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Annotated:
        checked(value, parts[0], field)
    elif kind in (typing.Union, types.UnionType):
        _check_union(value, hint, parts, field)
    elif kind is typing.Literal:
        if value not in parts:
            raise _wrong(value, hint, field)
    elif _is_class(kind, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, field)
        for key, held in value.items():
            checked(key, parts[0], f"{field}.{key}")
            checked(held, parts[1], f"{field}.{key}")
    elif _is_class(kind, Collection):
        _check_items(value, hint, kind, parts, field)
    elif (
        (hint in _WORDS and not _is_plain(value, hint))
        or (hint in (list, tuple) and not isinstance(value, list | tuple))
        or (hint is dict and not isinstance(value, Mapping))
        or (dataclasses.is_dataclass(hint) and not isinstance(value, Mapping | typing.cast(type, hint)))
    ):
        raise _wrong(value, hint, field)


def _check_union(value: Any, hint: Any, parts: Sequence[Any], field: str) -> None:
    errors = []
    for part in parts:
        try:
            return checked(value, part, field)
        except ConfigError as error:
            errors.append(error)
    # The error about one wrong item of a list is more precise than that about the list.
    inner = [error for error in errors if error.field != field]
    raise inner[0] if len(inner) == 1 else _wrong(value, hint, field)


def _check_items(value: Any, hint: Any, kind: Any, parts: Sequence[Any], field: str) -> None:
    if not isinstance(value, list | tuple):
        raise _wrong(value, hint, field)
    if kind is tuple and Ellipsis not in parts:
        if len(value) != len(parts):
            raise _wrong(value, hint, field)
        items = list(parts)
    else:
        items = [parts[0]] * len(value)
    for number, (item, part) in enumerate(zip(value, items, strict=True)):
        checked(item, part, f"{field}[{number}]")


def _is_plain(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str | Path) and bool(str(value))
    return isinstance(value, hint)


def _is_class(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


def _wrong(value: Any, hint: Any, field: str) -> ConfigError:
    remedy = f"{'null' if value is None else excerpt(value)} should be {words_of(hint)}"
    if isinstance(value, str) and _takes_numbers(hint):
        try:
            float(value)
            remedy += f"; write {value.strip()} without quotes"
            if "e" in value.lower() and "." not in value:
                remedy += " and with a point, such as 1.0e-5"
        except ValueError:
            pass
    return ConfigError(field, remedy)


def _takes_numbers(hint: Any) -> bool:
    return bool({int, float} & {hint, *typing.get_args(hint)})


def words_of(hint: Any) -> str:
    """Describes a type in words.

    >>> words_of(tuple[int, int] | None)
    'a list of a whole number, a whole number or null'
    """
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Annotated:
        return words_of(parts[0])
    if kind in (typing.Union, types.UnionType):
        return " or ".join(words_of(part) for part in parts)
    if kind is typing.Literal:
        return "one of " + ", ".join(map(str, parts))
    if _is_class(kind, Mapping) or hint is dict or dataclasses.is_dataclass(hint):
        return "a mapping of `name: value` lines"
    if _is_class(kind, Collection):
        inner = [parts[0]] if Ellipsis in parts or kind is not tuple else parts
        return "a list of " + ", ".join(words_of(part) for part in inner)
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
