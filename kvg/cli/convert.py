"""``kvg-data convert``: writes samples in another form."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvg.cli.reading_options import add_reading_arguments, reading_of

FORMS = ("grpo", "kvg-bench", "sharegpt", "shards", "verl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--in", dest="source", required=True, help="folder of shards, .parquet, .json, .jsonl or .csv")
    parser.add_argument("--images", help="folder of the pictures that a list names (default: that of the list)")
    parser.add_argument("--category", default="", help="category of a list without a category column")
    parser.add_argument("--seed", type=int, default=0, help="of the choices of labels and their order (default 0)")
    add_reading_arguments(parser)
    parser.add_argument("--out", required=True, help="folder for shards, else a .json or .parquet file")
    parser.add_argument("--to", choices=FORMS, required=True, help="form of the result")
    parser.add_argument("--mode", default="think", help="prompt of the question where a form holds it (default think)")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="where shards are written (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is already there")


def run(args: argparse.Namespace) -> int:
    """Converts.

    Raises:
        ConfigError: the result's name does not fit its form, or is taken.
        DataError: nothing could be read.
    """
    from kvg.pipeline.convert import LEFT_OUT, convert

    options = {name: getattr(args, name) for name in ("images", "category", "seed", "mode", "samples_per_shard")}
    options |= {"overwrite": args.overwrite, "reading": reading_of(args)}
    made = convert(args.source, Path(args.out), args.to, **options)
    num_skipped = made.num_bad + made.num_cut
    bad = f"; skipped {made.num_bad} bad samples and {made.num_cut} truncated files" if num_skipped else ""
    print(f"{made.num_samples} samples in {args.out}{bad}")
    if made.num_clipped:
        print(f"{made.num_clipped} boxes were clipped: they exceeded their picture by less than a pixel")
    if LEFT_OUT[args.to]:
        print(f"{args.to} cannot store {LEFT_OUT[args.to]}")
    return 0
