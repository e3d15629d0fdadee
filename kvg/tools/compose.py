"""Makes composites from a source of tiles and writes them as shards."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.synthesis.compositor import Compositor

log = logging.getLogger(__name__)

_given: tuple[Compositor, Path] | None = None  # set once in each process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--config", required=True, help="YAML with `source: {class_path, init_args}` and `compositor`")
    parser.add_argument("--out", required=True, help="folder for the shards")
    parser.add_argument("--num", type=int, required=True, help="number of composites")
    parser.add_argument("--seed", type=int, default=0, help="decides all of them (default 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the result is the same")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="of every shard but the last (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is already there")


def run(args: argparse.Namespace) -> int:
    """Makes the set.

    Raises:
        ConfigError: the config is wrong.
        DataError: no composite could be made.
    """
    from kvg.pieces import Pieces, writing
    from kvg.shards.manifest import ShardEntry
    from kvg.shards.writer import PATTERN, check_set, clear_set, write_manifest

    config, out, size = load_config(args.config), Path(args.out), args.samples_per_shard
    config.setdefault("compositor", {})["seed"] = args.seed
    compositor = build_compositor(config)
    check_set(out, size, args.overwrite)
    pieces = [(number, start, min(args.num, start + size)) for number, start in enumerate(range(0, args.num, size))]
    # A shard is a piece of work, and depends on nothing but the seed and its numbers.
    done = Pieces(out / "compose.pieces", json.dumps([config, args.num, size], sort_keys=True))
    with writing(out):
        clear_set(out, keep=[PATTERN.format(number) for number in done.finished()])
    done.run(_write_shard, pieces, args.workers, f"writing {out}", _start, (compositor, out))
    results = list(done.results(len(pieces)))
    lost = [reason for result in results for reason in result["lost"]]
    for reason in lost:
        log.warning("composite %s", reason)
    entries = [ShardEntry(**result["entry"]) for result in results if result["entry"]]
    if entries:
        with writing(out):
            write_manifest(out, entries, [result["counts"] for result in results], args.seed, config)
    done.clear()
    if not entries:
        raise DataError(str(args.config), "source", "no composite could be made; see the messages above")
    print(f"{args.num - len(lost)} composites in {out}" + (f"; {len(lost)} left out, see above" if lost else ""))
    return 0


def load_config(path: str | Path) -> dict[str, Any]:
    """Reads the YAML of this command.

    Raises:
        ConfigError: it cannot be read, or has keys other than ``source`` and ``compositor``.
    """
    from kvg.catalogue.project import read_yaml

    config = read_yaml(path)
    if "source" not in config:
        raise ConfigError("source", f"is missing in {path}; add `source: {{class_path: ..., init_args: ...}}`")
    for key in config:
        if key not in ("source", "compositor"):
            raise ConfigError(str(key), f"is unknown in {path}; use source and compositor")
    return config


def build_compositor(config: Mapping[str, Any]) -> Compositor:
    """Builds the compositor that a config describes.

    Raises:
        ConfigError: a class or setting does not exist or does not fit.
    """
    from kvg.catalogue.project import instantiate
    from kvg.synthesis.compositor import Compositor, CompositorConfig

    settings = dict(config.get("compositor") or {})
    known = {field.name for field in dataclasses.fields(CompositorConfig)}
    for key in settings:
        if key not in known:
            raise ConfigError(f"compositor.{key}", f"is unknown; choose from {sorted(known)}")
    return Compositor(instantiate(config["source"], "source"), CompositorConfig(**settings))


def _start(compositor: Compositor, folder: Path) -> None:
    global _given
    _given = compositor, folder


def _write_shard(piece: tuple[int, int, int]) -> dict[str, Any]:
    """Writes the composites from one index to another as the shard of this number; returns what it holds."""
    from kvg.pieces import writing
    from kvg.shards.writer import ShardFile

    if _given is None:
        raise RuntimeError("the process was not started")
    compositor, folder = _given
    number, start, stop = piece
    shard, lost = ShardFile(folder, number), list[str]()
    try:
        with writing(folder):
            for index in range(start, stop):
                try:
                    shard.write(compositor.sample(index))
                except DataError as error:
                    lost.append(f"{index} left out: {error}")
            entry = shard.close()
    except BaseException:
        shard.discard()
        raise
    return {"entry": entry and dataclasses.asdict(entry), "counts": shard.counts, "lost": lost}
