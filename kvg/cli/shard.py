"""``kvg-data shard``: makes the final training set of one or several sets."""

from __future__ import annotations

import argparse

from kvg.errors import ConfigError


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
    """Makes the set, or the sets of a project.

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
    from kvg.pipeline.settings.shard import ShardSettings
    from kvg.pipeline.shard import shard

    settings = ShardSettings(args.seed, args.samples_per_shard, not args.no_shuffle, args.knowledge)
    print(shard(args.sets, args.out, settings, args.workers, args.overwrite).summary())
    return 0


def _run_project(args: argparse.Namespace) -> int:
    from kvg.pipeline.project_sets import SHARDS, latest, set_names
    from kvg.pipeline.settings.project import load_project
    from kvg.pipeline.settings.shard import ProjectShards
    from kvg.pipeline.shard import shard, shard_job

    project = load_project(args.project)
    settings = project.settings("shard", ProjectShards).settings(project.seed)
    for name in set_names(project, args.names, "shard"):
        source, out = latest(project, name), project.out / SHARDS / name
        if not args.overwrite and shard_job([source], out, settings).is_complete():
            print(f"{out} is there already")
        else:
            print(shard([source], out, settings, args.workers, overwrite=True).summary())
    return 0
