"""The sets of a project: where each step of the data engine finds what the step before has left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvg.catalogue.entry import CATALOGUE
from kvg.catalogue.project import Project, load_project
from kvg.config.settings import in_file
from kvg.config.value_types import checked
from kvg.errors import ConfigError, DataError
from kvg.pipeline.compose import compose_job, with_seed
from kvg.shards.manifest import MANIFEST

COMPOSITES, RATIONALES, FILTERED, SHARDS = "composites", "rationales", "filtered", "shards"  # folders of a project
TILES = "kvg.composites.catalogue_tiles.CatalogueTiles"
SEEDS_A_PROJECT = 100  # sets of one project have seeds of their own, since a key is made of the seed


@dataclass(frozen=True)
class SetSettings:
    """One set in section ``compose`` of a project file.

    Attributes:
        num: composites.
        uses: pictures that they are made of: ``train``, ``val``, ``test``; None for those of ``train``.
        compositor: what differs from the section's settings of the compositor.
    """

    num: int
    uses: Sequence[str] | None = None
    compositor: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ComposeSettings:
    """Section ``compose`` of a project file.

    Attributes:
        sets: by name.
        facts: YAML file of ``{entity: its looks, comma separated}``, for the card writer.
        compositor: settings of ``kvg.composites.compositor.CompositorConfig``.
        tiles: further settings of ``kvg.composites.catalogue_tiles.CatalogueTiles``.
        samples_per_shard: of every shard but the last.
    """

    sets: Mapping[str, SetSettings] = field(default_factory=dict)
    facts: str | None = None
    compositor: Mapping[str, Any] = field(default_factory=dict)
    tiles: Mapping[str, Any] = field(default_factory=dict)
    samples_per_shard: int = 500

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        if not self.sets:
            raise ConfigError("compose.sets", "names no set; add `train: {num: 1000}`")
        if self.samples_per_shard < 1:
            raise ConfigError("compose.samples_per_shard", f"{self.samples_per_shard} must be at least 1")
        for name, setting in self.sets.items():
            where = f"compose.sets.{name}"
            if not str(name).isidentifier():
                raise ConfigError(where, "is no plain name; use letters, digits and underscores")
            if setting.num < 1:
                raise ConfigError(f"{where}.num", f"{setting.num} is no number of composites")
        if len(self.sets) > SEEDS_A_PROJECT:
            raise ConfigError("compose.sets", f"are more than {SEEDS_A_PROJECT}")


@dataclass(frozen=True)
class ComposedSet:
    """What ``compose`` makes of a project under one name.

    Attributes:
        name: of the set.
        out: folder for its shards.
        num: composites.
        seed: decides all of them.
        samples_per_shard: of every shard but the last.
        config: see ``kvg.pipeline.compose.compose``.
    """

    name: str
    out: Path
    num: int
    seed: int
    samples_per_shard: int
    config: dict[str, Any]

    def is_complete(self) -> bool:
        """Whether the set is there, made with these settings of these pictures."""
        job = compose_job(with_seed(self.config, self.seed), self.out, self.num, self.samples_per_shard)
        return job.is_complete()


def composed_sets(path: str | Path, names: Sequence[str] | None = None) -> list[ComposedSet]:
    """The sets that a project file asks for.

    Args:
        path: of the project file.
        names: only these; None for all.

    Raises:
        ConfigError: a setting cannot work, or there is no such set.
        DataError: the project has not been scanned.
    """
    project = load_project(path)
    settings = project.settings("compose", ComposeSettings)
    check_names(names, settings.sets, "compose.sets")
    if not (project.out / CATALOGUE).is_file():
        raise DataError(str(project.out / CATALOGUE), "catalogue", f"is missing; run `kvg-data scan {path}` first")
    return [
        ComposedSet(
            name=name,
            out=project.out / COMPOSITES / name,
            num=setting.num,
            seed=project.seed * SEEDS_A_PROJECT + number,
            samples_per_shard=settings.samples_per_shard,
            config={**compose_config(settings, setting, str(path)), "made_of": checksums(project, settings.facts)},
        )
        for number, (name, setting) in enumerate(settings.sets.items())
        if names is None or name in names
    ]


def compose_config(settings: ComposeSettings, setting: SetSettings, path: str) -> dict[str, Any]:
    """``source`` and ``compositor`` of a set.

    Args:
        settings: section ``compose``.
        setting: of the set, one of ``settings.sets``.
        path: of the project file.
    """
    init_args = {
        **settings.tiles,
        "project": path,
        "uses": list(setting.uses or ["train"]),
        "facts": settings.facts,
    }
    return {
        "source": {"class_path": TILES, "init_args": init_args},
        "compositor": {**settings.compositor, **(setting.compositor or {})},
    }


def set_names(project: Project, wanted: Sequence[str] | None, section: str) -> list[str]:
    """The sets that a step works on: those that are asked for, else those of its section, else all.

    Raises:
        ConfigError: there is no such set.
    """
    made = project.settings("compose", ComposeSettings).sets
    own = project.later.get(section, {}).get("sets")
    with in_file(project.path):
        checked(own, Sequence[str] | None, f"{section}.sets")
    check_names(wanted, made, "compose.sets")
    check_names(own, made, f"{section}.sets")
    return list(wanted or own or made)


def latest(project: Project, name: str) -> Path:
    """Where a set stands before it is filtered or mixed: with rationales where these are there.

    Raises:
        DataError: it has not been composed.
    """
    for step in (RATIONALES, COMPOSITES):
        if (project.out / step / name / MANIFEST).is_file():
            return project.out / step / name
    raise DataError(str(project.out / COMPOSITES / name), MANIFEST, "is missing; run `kvg-data compose` first")


def check_names(names: Sequence[str] | None, known: Mapping[str, Any], where: str) -> None:
    """Checks that every name is that of a set.

    Raises:
        ConfigError: one is not.
    """
    for name in names or ():
        if name not in known:
            raise ConfigError(where, f"have no '{name}'; there are {', '.join(known)}")


def checksums(project: Project, facts: str | None) -> dict[str, str]:
    """What composites are made of, beside the pictures: SHA-256 of each file that is there, by name."""
    files = [project.out / name for name in (CATALOGUE, "boxes.jsonl", "knowledge.json")]
    files += [*sorted(project.out.glob("bad_boxes*.jsonl")), *([Path(facts)] if facts else [])]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}
