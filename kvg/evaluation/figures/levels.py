"""Mastery levels of entities, read from knowledge files and joined to cases by the entity's name.

Two formats are read: the published one (v3: ``results-visual_knowledge.json``, ``-trainood.json``, ``-testood.json``),
``{entity: {"knowledge_category": "mostly correct"}}``, and that of `kvg-data probe`, ``{entity: accuracy in 0-1}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvg.benchmark import LEVELS, knowledge_of_level, level_of
from kvg.errors import DataError
from kvg.evaluation.records.prediction import Prediction
from kvg.records import excerpt
from kvg.rewards.accuracies import accuracy_of, read_by_entity
from kvg.text.names import clean_name

Levels = Mapping[str, str]  # entity -> a name of LEVELS


def read_levels(paths: Sequence[str | Path]) -> dict[str, str]:
    """The level of each entity in the files.

    Args:
        paths: JSON files of either format.

    Raises:
        DataError: a file cannot be read or has another format, or two files disagree on an entity.
    """
    levels: dict[str, str] = {}
    sources: dict[str, Path] = {}
    for path in map(Path, paths):
        for entity, value in read_by_entity(path).items():
            level = _level(value, str(path), entity)
            if levels.get(entity, level) != level:
                remedy = f"is '{level}' here and '{levels[entity]}' in {sources[entity]}; keep one of them"
                raise DataError(str(path), entity, remedy)
            levels[entity] = level
            sources.setdefault(entity, path)
    return levels


def knowledge_of(case: Prediction, levels: Levels) -> str:
    """``known``, ``unknown``, or '' if neither the case nor a file has a value.

    The case's own value takes precedence: in the lab it is exact, while a level is an estimate. An entity in no file is
    in no group. (The published reward gives it the lowest level; a figure would then mix unknown entities with entities
    that were not probed.)
    """
    entity = clean_name(case.entity)
    if case.knowledge or entity not in levels:
        return case.knowledge
    return knowledge_of_level(levels[entity])


def without_level(cases: Sequence[Prediction], levels: Levels) -> list[str]:
    """Entities of the cases without a level, sorted and without duplicates."""
    return sorted({clean_name(case.entity) for case in cases} - levels.keys())


def _level(value: Any, where: str, entity: str) -> str:
    if isinstance(value, Mapping):
        level = value.get("knowledge_category")
        if not isinstance(level, str) or level not in LEVELS:
            remedy = f"knowledge_category {excerpt(level)} is not one of {', '.join(LEVELS)}"
            raise DataError(where, entity, remedy)
        return str(level)
    return level_of(accuracy_of(value, where, entity))
