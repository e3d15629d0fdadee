"""The sets of a project: the folders in which each step of the data engine finds the results of the step before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvg.catalogue.boxing import TICKS
from kvg.catalogue.corrections import CORRECTIONS
from kvg.catalogue.entry import CATALOGUE
from kvg.errors import DataError
from kvg.pipeline.compose import compose_job, with_seed
from kvg.pipeline.settings.compose import SEEDS_A_PROJECT, ComposeSettings, check_names
from kvg.pipeline.settings.project import Project, load_project
from kvg.shards.manifest import MANIFEST

COMPOSITES, RATIONALES, FILTERED, SHARDS = "composites", "rationales", "filtered", "shards"  # folders of a project


@dataclass(frozen=True)
class ComposedSet:
    """A set that ``compose`` makes.

    Attributes:
        name: name of the set.
        out: folder for its shards.
        num: number of composites.
        seed: seed of all composites.
        samples_per_shard: size of every shard but the last.
        config: see ``kvg.pipeline.compose.compose``.
    """

    name: str
    out: Path
    num: int
    seed: int
    samples_per_shard: int
    config: dict[str, Any]

    def is_complete(self) -> bool:
        """Returns whether the set exists and was made with these settings from these pictures."""
        job = compose_job(with_seed(self.config, self.seed), self.out, self.num, self.samples_per_shard)
        return job.is_complete()


def composed_sets(path: str | Path, names: Sequence[str] | None = None) -> list[ComposedSet]:
    """Returns the sets of a project file.

    Args:
        path: path of the project file.
        names: names of the sets; None for all.

    Raises:
        ConfigError: a setting is outside its range, or a set does not exist.
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
            config={
                "source": settings.source(setting, str(path)),
                "compositor": settings.merged_compositor(setting),
                "made_of": checksums(project, settings.facts),
            },
        )
        for number, (name, setting) in enumerate(settings.sets.items())
        if names is None or name in names
    ]


def set_names(project: Project, wanted: Sequence[str] | None, section: str) -> list[str]:
    """Returns the sets that a step works on: ``wanted``, else those of its section, else all.

    Raises:
        ConfigError: a set does not exist.
    """
    made = project.settings("compose", ComposeSettings).sets
    own = getattr(getattr(project, section), "sets", None)
    check_names(wanted, made, "compose.sets")
    return list(wanted or own or made)


def latest(project: Project, name: str) -> Path:
    """Returns the folder of a set before it is filtered or mixed: that with rationales, else that of the composites.

    Raises:
        DataError: the set has not been composed.
    """
    for step in (RATIONALES, COMPOSITES):
        if (project.out / step / name / MANIFEST).is_file():
            return project.out / step / name
    raise DataError(str(project.out / COMPOSITES / name), MANIFEST, "is missing; run `kvg-data compose` first")


def checksums(project: Project, facts: str | None) -> dict[str, str]:
    """Returns the SHA-256 of each file that composites depend on, beside the pictures, by name."""
    files = [project.out / name for name in (CATALOGUE, "boxes.jsonl", "knowledge.json")]
    files += [path for pattern in (TICKS, CORRECTIONS) for path in sorted(project.out.glob(pattern))]
    files += [Path(facts)] if facts else []
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}
