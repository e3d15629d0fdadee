"""Makes composites from a source of tiles and writes them as shards."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.composites.compositor import Compositor
    from kvg.composites.settings import CompositorConfig

log = logging.getLogger(__name__)
TILE_METHODS = ("categories", "entities", "neighbours", "info", "tile")  # of a ``kvg.composites.sources.TileSource``
_SHOWN = 20  # composites that were left out and are told one by one
_NAMED = 3  # pictures of each kind of fault that are named in the last line

_given: tuple[Compositor, Path] | None = None  # set once in each process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", nargs="?", help="project file: its `compose` section says which sets are made")
    parser.add_argument("--set", dest="names", action="append", help="only this set of the project; may be repeated")
    parser.add_argument("--config", help="instead: YAML with `source: {class_path, init_args}` and `compositor`")
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
    if bool(args.project) == bool(args.config):
        raise ConfigError("project", "give a project file, or --config with --out and --num")
    if args.project:
        from kvg.pipeline.project_sets import composed_sets

        for made in composed_sets(args.project, args.names):
            if not (made.is_finished() and not args.overwrite):
                make_set(made.config, made.out, made.num, made.seed, made.samples_per_shard, args.workers, True)
            else:
                print(f"{made.out} is there already")
        return 0
    if not args.out or args.num is None:
        raise ConfigError("--out, --num", "are needed with --config")
    config = load_config(args.config)
    make_set(config, Path(args.out), args.num, args.seed, args.samples_per_shard, args.workers, args.overwrite)
    return 0


def make_set(
    config: dict[str, Any], out: Path, num: int, seed: int, samples_per_shard: int, workers: int, overwrite: bool
) -> None:
    """Makes one set and says so.

    Args:
        config: ``source`` and ``compositor``; what else it holds is noted, and another value makes another set.
        out: folder for the shards.
        num: composites.
        seed: decides all of them.
        samples_per_shard: of every shard but the last.
        workers: processes.
        overwrite: whether a finished set is replaced.

    Raises:
        ConfigError: the config is wrong, or a set is there.
        DataError: no composite could be made.
    """
    from kvg.shards.manifest import ShardEntry
    from kvg.shards.revision import revision
    from kvg.shards.writer import PATTERN, check_set, clear_set, write_manifest
    from kvg.work.pieces import Pieces, writing

    config = {**config, "compositor": {**(config.get("compositor") or {}), "seed": seed}}
    compositor = build_compositor(config)
    check_set(out, samples_per_shard, overwrite)
    starts = range(0, num, samples_per_shard)
    pieces = [(number, start, min(num, start + samples_per_shard)) for number, start in enumerate(starts)]
    # A shard is a piece of work, and depends on nothing but the code, the seed and its numbers.
    identity = json.dumps([config, num, samples_per_shard, revision()], sort_keys=True)
    done = Pieces(out / "compose.pieces", identity)
    with writing(out):
        clear_set(out, keep=[PATTERN.format(number) for number in done.finished()])
    done.run(_write_shard, pieces, workers, f"writing {out}", _start, (compositor, out))
    results = list(done.results(len(pieces)))
    lost = [reason for result in results for reason in result["lost"]]
    for reason in lost[:_SHOWN]:
        log.warning("composite %s left out: %s: %s: %s", *reason)
    if len(lost) > _SHOWN:
        log.warning("%d more composites left out", len(lost) - _SHOWN)
    entries = [ShardEntry(**result["entry"]) for result in results if result["entry"]]
    if entries:
        with writing(out):
            write_manifest(out, entries, [result["counts"] for result in results], seed, {**config, "num": num})
    done.clear()
    if not entries:
        raise DataError(str(out), "source", "no composite could be made; see the messages above")
    print(f"{num - len(lost)} composites in {out}" + (f"; {len(lost)} left out: {_counted(lost)}" if lost else ""))


def _counted(lost: Sequence[Sequence[Any]]) -> str:
    """Why composites were left out, and which pictures cost the most, in words."""
    kinds = Counter(str(field) for _, _, field, _ in lost)
    parts = []
    for kind, num in kinds.most_common():
        places = Counter(str(where) for _, where, field, _ in lost if field == kind).most_common(_NAMED + 1)
        named = [f"{where} {times}" for where, times in places[:_NAMED]] + ["..."] * (len(places) > _NAMED)
        parts.append(f"{num} for {kind} ({', '.join(named)})")
    return "; ".join(parts)


def load_config(path: str | Path) -> dict[str, Any]:
    """Reads the YAML of this command.

    Raises:
        ConfigError: it cannot be read, has keys other than ``source`` and ``compositor``, or a setting cannot work.
    """
    from kvg.config.settings import in_file, named_class, read_yaml

    config = read_yaml(path)
    if "source" not in config:
        raise ConfigError("source", f"is missing in {path}; add `source: {{class_path: ..., init_args: ...}}`")
    for key in config:
        if key not in ("source", "compositor"):
            raise ConfigError(str(key), f"is unknown in {path}; use source and compositor")
    with in_file(path):
        named_class(config["source"], "source", TILE_METHODS)
        compositor_settings(config)
    return config


def build_compositor(config: Mapping[str, Any]) -> Compositor:
    """Builds the compositor that a config describes.

    Raises:
        ConfigError: a class or setting does not exist or does not fit.
    """
    from kvg.composites.compositor import Compositor
    from kvg.config.settings import instantiate

    settings = compositor_settings(config)
    return Compositor(instantiate(config["source"], "source", TILE_METHODS), settings)


def compositor_settings(config: Mapping[str, Any]) -> CompositorConfig:
    """The settings of the compositor that a config describes.

    Raises:
        ConfigError: one is unknown, or cannot work.
    """
    from kvg.composites.settings import CompositorConfig
    from kvg.config.settings import settings_of

    return settings_of(CompositorConfig, config.get("compositor"), "compositor")


def _start(compositor: Compositor, folder: Path) -> None:
    global _given
    _given = compositor, folder


def _write_shard(piece: tuple[int, int, int]) -> dict[str, Any]:
    """Writes the composites from one index to another as the shard of this number; returns what it holds."""
    from kvg.shards.writer import ShardFile
    from kvg.work.pieces import writing

    if _given is None:
        raise RuntimeError("the process was not started")
    compositor, folder = _given
    number, start, stop = piece
    shard, lost = ShardFile(folder, number), list[tuple[int, str, str, str]]()
    try:
        with writing(folder):
            for index in range(start, stop):
                try:
                    shard.write(compositor.sample(index))
                except DataError as error:
                    lost.append((index, error.where, error.field, error.remedy))
            entry = shard.close()
    except BaseException:
        shard.discard()
        raise
    return {"entry": entry and dataclasses.asdict(entry), "counts": shard.counts, "lost": lost}
