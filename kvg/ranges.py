"""Checks of settings: whole numbers, numbers of a range, one of several words; one wording for all of them."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from kvg.errors import ConfigError


def check_whole(field: str, value: Any, low: int, high: int | None = None) -> None:
    """Refuses what is no whole number, or lies outside a range.

    Args:
        field: dotted name of the setting.
        value: of any type; a bool is no number.
        low: least value that works.
        high: greatest value that works; None for no limit.

    Raises:
        ConfigError: it cannot work.

    >>> check_whole("data.batch_size", 0, 1)
    Traceback (most recent call last):
    ...
    kvg.errors.ConfigError: data.batch_size: 0 must be a whole number of at least 1
    """
    if type(value) is not int or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(field, f"{value!r} must be a whole number {limits}")


def check_number(
    field: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: bool = False,
    below: bool = False,
) -> None:
    """Refuses what is no finite number, or lies outside a range.

    Args:
        field: dotted name of the setting.
        value: of any type; a bool is no number.
        low: least value that works; None for no limit.
        high: greatest value that works; None for no limit.
        above: whether ``low`` itself is too small.
        below: whether ``high`` itself is too great.

    Raises:
        ConfigError: it cannot work.

    >>> check_number("backbone.lora.dropout", 1.5, 0, 1, below=True)
    Traceback (most recent call last):
    ...
    kvg.errors.ConfigError: backbone.lora.dropout: 1.5 must be a number of at least 0 and below 1
    """
    works = type(value) is int or (isinstance(value, float) and math.isfinite(value))
    works = works and (low is None or value > low or (value == low and not above))
    works = works and (high is None or value < high or (value == high and not below))
    if not works:
        limits = [] if low is None else [f"above {low}" if above else f"of at least {low}"]
        limits += [] if high is None else [f"below {high}" if below else f"at most {high}"]
        raise ConfigError(field, f"{value!r} must be a number {' and '.join(limits) or 'that is finite'}")


def check_choice(field: str, value: Any, known: Collection[str]) -> None:
    """Refuses what is none of several words.

    Args:
        field: dotted name of the setting.
        value: of any type.
        known: the words.

    Raises:
        ConfigError: it is none of them.

    >>> check_choice("backbone.dtype", "half", ("auto", "float32"))
    Traceback (most recent call last):
    ...
    kvg.errors.ConfigError: backbone.dtype: 'half' is not one of auto, float32
    """
    if value not in known:
        raise ConfigError(field, f"'{value}' is not one of {', '.join(known)}")
