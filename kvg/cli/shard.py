"""Makes the final training set of one or several sets: their samples mixed, in shards of equal size."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvg.errors import ConfigError

if TYPE_CHECKING:
    from kvg.pipeline.shard import Made, ShardSettings


@dataclass(frozen=True)
class ProjectShards:
    """Section ``shard`` of a project file.

    Attributes:
        sets: of the project; None for all.
        samples_per_shard: see ``ShardSettings``.
        shuffle: see there; by the project's seed.
        knowledge: see there.
    """

    sets: Sequence[str] | None = None
    samples_per_shard: int = 500
    shuffle: bool = True
    knowledge: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", nargs="?", help="project file: each of its sets, mixed, in shards of equal size")
    parser.add_argument("--set", dest="names", action="append", help="only this set of the project; may be repeated")
    parser.add_argument(
        "--in", dest="sets", nargs="+", action="extend", metavar="SET",
        help="instead: folders of shards, or published files (.json, .parquet)",
    )  # fmt: skip
    parser.add_argument("--out", help="with --in: folder for the new shards")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="at most; all are equal (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default 0)")
    parser.add_argument("--no-shuffle", action="store_true", help="keep the order of the sets and of their samples")
    parser.add_argument(
        "--knowledge", help="JSON of {entity: accuracy}: marks samples as known (from 0.3 on) or unknown"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the result is the same")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is already there")


def run(args: argparse.Namespace) -> int:
    """Makes the set.

    Raises:
        ConfigError: a setting cannot work, or a set is there.
        DataError: an input cannot be used.
    """
    if bool(args.project) == bool(args.sets):
        raise ConfigError("project", "give a project file, or --in and --out")
    if args.project:
        return _run_project(args)
    if not args.out:
        raise ConfigError("--out", "is needed with --in")
    from kvg.pipeline.shard import ShardSettings, make_set

    settings = ShardSettings(args.seed, args.samples_per_shard, not args.no_shuffle, args.knowledge)
    made = make_set([Path(entry) for entry in args.sets], Path(args.out), settings, args.workers, args.overwrite)
    _report(made, Path(args.out), bool(args.knowledge))
    return 0


def _run_project(args: argparse.Namespace) -> int:
    from kvg.catalogue.project import load_project
    from kvg.pipeline.project_sets import SHARDS, latest, set_names
    from kvg.pipeline.shard import ShardSettings, make_set

    project = load_project(args.project)
    own = project.settings("shard", ProjectShards)
    settings = ShardSettings(project.seed, own.samples_per_shard, own.shuffle, own.knowledge)
    for name in set_names(project, args.names, "shard"):
        source, out = latest(project, name), project.out / SHARDS / name
        if _is_finished(source, out, settings) and not args.overwrite:
            print(f"{out} is there already")
        else:
            _report(make_set([source], out, settings, args.workers, True), out, bool(own.knowledge))
    return 0


def _is_finished(source: Path, out: Path, settings: ShardSettings) -> bool:
    """Whether a set is there, made with these settings of the source as it is."""
    from kvg.formats.stores import checksums_of
    from kvg.shards.manifest import MANIFEST, load_manifest

    if not (out / MANIFEST).is_file():
        return False
    wanted = {**dataclasses.asdict(settings), "made_of": [checksums_of(source)]}
    config = load_manifest(out).config
    return all(config.get(name) == value for name, value in wanted.items())


def _report(made: Made, out: Path, stamped: bool) -> None:
    bad = f"; {made.num_bad} bad ones passed over" if made.num_bad else ""
    print(f"{made.num_samples} samples in {made.num_shards} shards in {out}{bad}")
    if made.num_renamed:
        print(f"{made.num_renamed} have a key that several sets have: their set's name stands before it now")
    if stamped:
        print(f"{made.num_stamped} are marked known or unknown")
