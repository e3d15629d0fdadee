"""Checks a folder of shards to the last pixel: checksums, schema, images, keys."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from kvg.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("folder", help="folder of shards")


def run(args: argparse.Namespace) -> int:
    """Prints every problem.

    Returns:
        0 where there is none, else 1.

    Raises:
        DataError: there is no usable manifest.
    """
    num_problems = 0
    for problem in problems(Path(args.folder)):
        print(problem)
        num_problems += 1
    print(f"{args.folder}: {num_problems} problems" if num_problems else f"{args.folder}: all right")
    return 1 if num_problems else 0


def problems(folder: Path) -> Iterator[str]:
    """Every problem of a set, shard by shard.

    Raises:
        DataError: there is no usable manifest.
    """
    from kvg.shards.manifest import load_manifest, sha256_of
    from kvg.shards.reader import Shard, Tally
    from kvg.shards.schema import check_image

    seen: set[str] = set()
    for entry in load_manifest(folder).shards:
        path = folder / entry.file
        if sha256_of(path) != entry.sha256:
            yield f"{path}: sha256: differs from the manifest; copy or make the shard again"
        tally = Tally(max_problems=1_000_000, log_problems=False)
        for sample in (s for _, s in Shard(path, entry.num_samples).read(tally)):
            try:
                check_image(sample, f"{path} sample {sample.key}", decode=True)
            except DataError as error:
                yield str(error)
            if sample.key in seen:
                yield f"{path} sample {sample.key}: key: occurs twice; make keys unique"
            seen.add(sample.key)
        yield from tally.problems
