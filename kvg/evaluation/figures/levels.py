"""How well a model knows each entity, read from the files that tell, and joined to cases by the entity's name.

Two forms are read. The published one (v3: ``results-visual_knowledge.json``, ``-trainood.json``, ``-testood.json``) is
``{entity: {"knowledge_category": "mostly correct"}}``; that of `kvg-data probe` is ``{entity: accuracy in 0-1}``.
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
    """The level of each entity that some file tells of.

    Args:
        paths: JSON files of either form.

    Raises:
        DataError: a file cannot be read, holds something else, or two of them disagree on an entity.
    """
    levels: dict[str, str] = {}
    told_by: dict[str, Path] = {}
    for path in map(Path, paths):
        for entity, value in read_by_entity(path).items():
            level = _level(value, str(path), entity)
            if levels.get(entity, level) != level:
                remedy = f"is '{level}' here and '{levels[entity]}' in {told_by[entity]}; keep one of them"
                raise DataError(str(path), entity, remedy)
            levels[entity] = level
            told_by.setdefault(entity, path)
    return levels


def knowledge_of(case: Prediction, levels: Levels) -> str:
    """``known``, ``unknown``, or '' where nothing tells.

    What the case says of itself comes first: in the lab it is a fact, while a level is an estimate. An entity in no
    file is in no group. (As a reward the published code puts it on the lowest level; as a figure that would mix what is
    not known with what was never probed.)
    """
    entity = clean_name(case.entity)
    if case.knowledge or entity not in levels:
        return case.knowledge
    return knowledge_of_level(levels[entity])


def without_level(cases: Sequence[Prediction], levels: Levels) -> list[str]:
    """Entities asked for of which no file tells, each once, in order of their names."""
    return sorted({clean_name(case.entity) for case in cases} - levels.keys())


def _level(value: Any, where: str, entity: str) -> str:
    if isinstance(value, Mapping):
        level = value.get("knowledge_category")
        if not isinstance(level, str) or level not in LEVELS:
            remedy = f"knowledge_category {excerpt(level)} is none of {', '.join(LEVELS)}"
            raise DataError(where, entity, remedy)
        return str(level)
    return level_of(accuracy_of(value, where, entity))
