"""``kvg-data compose``: makes composites from a source of tiles."""

from __future__ import annotations

import argparse

from kvg.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", nargs="?", help="project file: its `compose` section says which sets are made")
    parser.add_argument("--set", dest="names", action="append", help="only this set of the project; may be repeated")
    parser.add_argument("--config", help="instead: YAML with `source: {class_path, init_args}` and `compositor`")
    setting = "with --config: override of one setting, such as compositor.neighbour_prob=0; may be repeated"
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help=setting)
    parser.add_argument("--out", help="with --config: folder for the shards")
    parser.add_argument("--num", type=int, help="with --config: number of composites")
    parser.add_argument("--seed", type=int, default=0, help="with --config: decides all of them (default 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the result is the same")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="of every shard but the last (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is already there")


def run(args: argparse.Namespace) -> int:
    """Makes the set, or the sets of a project.

    Raises:
        ConfigError: the config is wrong.
        DataError: no composite could be made.
    """
    from kvg.pipeline.compose import compose, load_config
    from kvg.pipeline.project_sets import composed_sets

    if bool(args.project) == bool(args.config):
        raise ConfigError("project", "give a project file, or --config with --out and --num")
    if args.project:
        for item in composed_sets(args.project, args.names):
            if item.is_complete() and not args.overwrite:
                print(f"{item.out} is there already")
            else:
                made = compose(item.config, item.out, item.num, item.seed, item.samples_per_shard, args.workers, True)
                print(made.summary())
        return 0
    if not args.out or args.num is None:
        raise ConfigError("--out, --num", "are needed with --config")
    config, size = load_config(args.config, args.setting), args.samples_per_shard
    print(compose(config, args.out, args.num, args.seed, size, args.workers, args.overwrite).summary())
    return 0
