"""``kvg-data verify``: checks all samples of a folder of shards, including pixels."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("folder", help="folder of shards")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")


def run(args: argparse.Namespace) -> int:
    """Prints every problem.

    Returns:
        0 where there is none, else 1.

    Raises:
        DataError: there is no usable manifest.
    """
    from kvg.pipeline.verify import set_problems

    num_problems = 0
    for problem in set_problems(Path(args.folder), args.workers):
        print(problem)
        num_problems += 1
    print(f"{args.folder}: {num_problems} problems" if num_problems else f"{args.folder}: all right")
    return 1 if num_problems else 0
