"""What entities look like in words, from a file that people write, and how much of a set it covers."""

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
_NOTHING: Final = ("", "~", "null", "none")  # words for a value that is not there
_NAMED: Final = 5  # entities that a message names


@dataclass(frozen=True)
class Facts:
    """The facts of a file that belong to some entities.

    Attributes:
        traits: by entity.
        missing: entities without facts, in their order.
        unknown: names in the file that no entity bears, in the order of the file.
        other_case: entity by name in the file, where only capitals differ; such facts are not used.
    """

    traits: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    other_case: dict[str, str]

    def report(self, path: str) -> None:
        """Says in the log what the file leaves out, and what in it is not used."""
        num = len(self.traits) + len(self.missing)
        if self.missing:
            log.warning(
                "%s: %d of %d entities have facts, %d have not: %s. A rationale without a teacher only names the "
                "objects where one of them has no facts; add them, or set rationalize.min_facts",
                *(path, len(self.traits), num, len(self.missing), named(self.missing)),
            )
        if self.other_case:
            pairs = [f"'{name}' (here '{entity}')" for name, entity in self.other_case.items()]
            log.warning("%s: not used, since capitals differ: %s; correct the names", path, named(pairs))
        if self.unknown:
            log.warning("%s: %d names are those of no entity: %s", path, len(self.unknown), named(self.unknown))


def read_facts(path: str | Path, entities: Collection[str], elsewhere: Collection[str] = ()) -> Facts:
    """Reads a file of facts: YAML of ``entity: its looks, comma separated``, or of ``entity: [trait, trait]``.

    Names are compared as ``clean_name`` spells them. An entity whose looks are empty has none.

    Args:
        path: of the file.
        entities: that are used, spelt as ``clean_name`` does.
        elsewhere: further entities that are known and not used here; facts about them are passed over in silence.

    Raises:
        ConfigError: the file cannot be opened, is no YAML, or holds a name twice.
        DataError: looks are no words, hold a control token, or one entity has two of them in two spellings.
    """
    looks_by_entity: dict[str, str] = {}
    for name, value in read_yaml(path, texts=True).items():
        entity, looks = clean_name(name), _looks(value, str(path), name)
        if looks_by_entity.setdefault(entity, looks) != looks:
            raise DataError(str(path), entity, "stands there twice in two spellings, with two looks; remove one")
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
    """The first of some names, in words."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _looks(value: Any, path: str, name: str) -> str:
    """Looks as they are written into rationales: traits separated by comma and space; '' where there are none.

    Raises:
        DataError: they are no words.
    """
    remedy = f"{excerpt(value)} should be its looks in words, separated by commas"
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
