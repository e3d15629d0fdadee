"""Makes composites from a source of tiles and writes them as shards."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.synthesis.compositor import Compositor
    from kvg.types import Sample

log = logging.getLogger(__name__)

_made_by: Compositor | None = None  # set once in each worker process


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
    from kvg.shards.writer import ShardWriter

    config = load_config(args.config)
    config.setdefault("compositor", {})["seed"] = args.seed
    compositor = build_compositor(config)
    num_written = 0
    with ShardWriter(
        args.out,
        args.samples_per_shard,
        seed=args.seed,
        config=config,
        total=args.num,
        overwrite=args.overwrite,
    ) as writer:
        for sample in _samples(compositor, args.num, args.workers):
            if sample is not None:
                writer.write(sample)
                num_written += 1
        if not num_written:
            raise DataError(str(args.config), "source", "no composite could be made; see the messages above")
    print(f"{num_written} composites in {args.out}" + _lost(args.num - num_written))
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


def _samples(compositor: Compositor, num: int, workers: int) -> Iterator[Sample | None]:
    if workers <= 1:
        for index in range(num):
            yield _made(compositor, index)
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(compositor,)) as pool:
        yield from pool.map(_make, range(num), chunksize=16)


def _start_worker(compositor: Compositor) -> None:
    global _made_by
    _made_by = compositor


def _make(index: int) -> Sample | None:
    if _made_by is None:
        raise RuntimeError("the worker was not started")
    return _made(_made_by, index)


def _made(compositor: Compositor, index: int) -> Sample | None:
    try:
        return compositor.sample(index)
    except DataError as error:
        log.warning("composite %d left out: %s", index, error)
        return None


def _lost(num: int) -> str:
    return f"; {num} left out, see above" if num else ""
