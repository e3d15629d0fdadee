"""Reads the accuracies that `kvg-data probe` writes: ``{entity: accuracy in 0-1}``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.records import excerpt, is_utf8, parse_json, read_text
from kvg.text.names import clean_name


def read_by_entity(path: str | Path) -> dict[str, Any]:
    """Reads a JSON object with entity names as keys, normalized by ``clean_name``.

    Raises:
        DataError: the file cannot be read, is not an object or is empty, or two names are equal with different values.
    """
    content = parse_json(read_text(Path(path)), str(path), unique_names=True)
    if not isinstance(content, dict) or not content:
        raise DataError(str(path), "json", "is not a JSON object of entity: level or accuracy")
    values: dict[str, Any] = {}
    for name, value in content.items():
        entity = clean_name(name)
        if not entity or not is_utf8(entity):
            raise DataError(str(path), excerpt(name), "is not the name of an entity; correct it")
        if entity in values and values[entity] != value:
            raise DataError(str(path), entity, "occurs twice with different values; keep one of them")
        values[entity] = value
    return values


def read_accuracies(path: str | Path) -> dict[str, float]:
    """Reads the probe's accuracies by entity.

    Raises:
        DataError: the file cannot be read, or a value is not an accuracy.
    """
    return {name: accuracy_of(value, str(path), name) for name, value in read_by_entity(path).items()}


def accuracy_of(value: Any, where: str, entity: str) -> float:
    """Checks that a value is an accuracy, and returns it.

    Raises:
        DataError: the value is not a number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(
            where, entity, f"{excerpt(value)} is neither an accuracy from 0 to 1 nor an object with its level"
        )
    return float(value)
