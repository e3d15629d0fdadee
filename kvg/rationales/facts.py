"""Reads the traits of entities from a user's file of facts, and reports how many entities it covers."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvg.config.settings import read_yaml
from kvg.errors import DataError
from kvg.records import excerpt
from kvg.text.names import caseless, clean_name
from kvg.text.special_tokens import check_plain
from kvg.types import traits_of

log = logging.getLogger(__name__)
_NOTHING: Final = ("", "~", "null", "none")  # texts that mean no value
_NAMED: Final = 5  # maximum number of entities in a message


@dataclass(frozen=True)
class Facts:
    """The facts of a file that belong to some entities.

    Attributes:
        traits: traits by entity.
        missing: entities without facts, in their order.
        unknown: names in the file that are not entities, in the order of the file.
        other_case: entity by name in the file, for names that differ only in capitals; such facts are not used.
    """

    traits: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    other_case: dict[str, str]

    def report(self, path: str) -> None:
        """Logs the entities without facts, and the facts that are not used."""
        num = len(self.traits) + len(self.missing)
        if self.missing:
            log.warning(
                "%s: %d of %d entities have facts, %d have none: %s. A rationale without a teacher only names the "
                "objects if one of them has no facts; add them, or set rationalize.min_facts",
                *(path, len(self.traits), num, len(self.missing), named(self.missing)),
            )
        if self.other_case:
            pairs = [f"'{name}' (here '{entity}')" for name, entity in self.other_case.items()]
            log.warning("%s: not used, since capitals differ: %s; correct the names", path, named(pairs))
        if self.unknown:
            log.warning("%s: %d names are not entities: %s", path, len(self.unknown), named(self.unknown))


def read_facts(path: str | Path, entities: Collection[str], elsewhere: Collection[str] = ()) -> Facts:
    """Reads a file of facts: YAML ``entity: traits, separated by commas``, or ``entity: [trait, trait]``.

    Names are compared after ``clean_name``. An entity with an empty value has no traits.

    Args:
        path: path of the file.
        entities: entities that need facts, after ``clean_name``.
        elsewhere: further known entities; facts about them are ignored without a message.

    Raises:
        ConfigError: the file cannot be opened, is not YAML, or contains a name twice.
        DataError: a value is not words, contains a control token, or an entity has different values in two spellings.
    """
    looks_by_entity: dict[str, str] = {}
    for name, value in read_yaml(path, texts=True).items():
        entity, looks = clean_name(name), _looks(value, str(path), name)
        if looks_by_entity.setdefault(entity, looks) != looks:
            raise DataError(str(path), entity, "occurs twice in two spellings, with different traits; remove one")
    by_case = {caseless(entity): entity for entity in entities}
    known = {*entities, *elsewhere}
    strange = [name for name in looks_by_entity if name not in known]
    other_case = {name: by_case[caseless(name)] for name in strange if caseless(name) in by_case}
    return Facts(
        traits={entity: traits_of(looks_by_entity[entity]) for entity in entities if looks_by_entity.get(entity)},
        missing=tuple(entity for entity in entities if not looks_by_entity.get(entity)),
        unknown=tuple(name for name in strange if name not in other_case),
        other_case=other_case,
    )


def named(names: Sequence[str]) -> str:
    """Joins the first of some names for a message."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _looks(value: Any, path: str, name: str) -> str:
    """Returns the traits of a value, separated by comma and space, as rationales write them; '' if there are none.

    Raises:
        DataError: the value is not words.
    """
    remedy = f"{excerpt(value)} should be traits in words, separated by commas"
    if not isinstance(value, str | list):
        raise DataError(path, name, remedy)
    parts = value.split(",") if isinstance(value, str) else value
    if not all(isinstance(part, str) for part in parts):
        raise DataError(path, name, remedy)
    traits = [trait for part in parts if (trait := clean_name(part)).lower() not in _NOTHING]
    looks = ", ".join(dict.fromkeys(traits))
    if looks and not any(character.isalpha() for character in looks):
        raise DataError(path, name, remedy)
    check_plain(looks, path, name)
    return looks
