"""How well entities are known: the file of `kvg-data probe`, ``{entity: accuracy in 0-1}``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.records import excerpt, is_utf8, parse_json, read_text
from kvg.text.names import clean_name


def read_by_entity(path: str | Path) -> dict[str, Any]:
    """A JSON object by names of entities, which are compared in one spelling (``clean_name``).

    Raises:
        DataError: it cannot be read, is no object, is empty, or two names are one.
    """
    content = parse_json(read_text(Path(path)), str(path), unique_names=True)
    if not isinstance(content, dict) or not content:
        raise DataError(str(path), "json", "holds no object of entity: level or accuracy")
    values: dict[str, Any] = {}
    for name, value in content.items():
        entity = clean_name(name)
        if not entity or not is_utf8(entity):
            raise DataError(str(path), excerpt(name), "is no name of an entity; correct it")
        if entity in values and values[entity] != value:
            raise DataError(str(path), entity, "stands there twice, with different values; keep one of them")
        values[entity] = value
    return values


def read_accuracies(path: str | Path) -> dict[str, float]:
    """Accuracies of the probe by entity.

    Raises:
        DataError: the file cannot be read, or a value is no accuracy.
    """
    return {name: accuracy_of(value, str(path), name) for name, value in read_by_entity(path).items()}


def accuracy_of(value: Any, where: str, entity: str) -> float:
    """An accuracy.

    Raises:
        DataError: it is something else than a number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(
            where, entity, f"{excerpt(value)} is neither an accuracy from 0 to 1 nor an object with its level"
        )
    return float(value)
