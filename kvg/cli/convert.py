"""``kvg-data convert``: writes samples and pictures with boxes in another form."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvg.cli.reading_options import add_reading_arguments, reading_of

# Tests hold these against the formats, which are imported only when they are used.
JSONL = ("jsonl-paligemma", "jsonl-florence2", "jsonl-qwen2.5-vl", "jsonl-qwen3-vl")
TOOLS = ("coco", "yolo", "label-studio", "fiftyone", *JSONL, "listing")
FROM = (*TOOLS, "catalogue", "predictions")
FORMS = ("grpo", "kvg-bench", "sharegpt", "shards", "verl", *TOOLS, "corrections", "predictions")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    text = (
        "folder of shards, .parquet, .json, .jsonl or .csv; with --from: its file, or the project file of a catalogue"
    )
    parser.add_argument("--in", dest="source", required=True, help=text)
    text = "format of another tool, catalogue or predictions (default: shards, a published file or a list of questions)"
    parser.add_argument("--from", dest="source_form", choices=FROM, default="", metavar="FORM", help=text)
    parser.add_argument("--images", help="folder of the pictures that a list names (default: that of the list)")
    parser.add_argument("--pictures", help="the set that predictions belong to (--from predictions)")
    parser.add_argument("--category", default="", help="category of a list without a category column")
    parser.add_argument("--seed", type=int, default=0, help="of the choices of labels and their order (default 0)")
    add_reading_arguments(parser)
    text = "folder for shards and formats of other tools, else a .json, .jsonl or .parquet file"
    parser.add_argument("--out", required=True, help=text)
    parser.add_argument("--to", choices=FORMS, required=True, metavar="FORM", help=f"one of {', '.join(FORMS)}")
    parser.add_argument("--mode", default="think", help="prompt of the question where a form holds it (default think)")
    parser.add_argument("--target-only", action="store_true", help="formats of other tools: no other objects")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="where shards are written (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is already there")


def run(args: argparse.Namespace) -> int:
    """Converts.

    Raises:
        ConfigError: the result's name does not fit its form, or is taken.
        DataError: nothing could be read.
    """
    from kvg.pipeline.convert import LEFT_OUT, convert
    from kvg.pipeline.exchange_sources import Input

    options = {name: getattr(args, name) for name in ("images", "pictures", "category", "seed")}
    source = Input(Path(args.source), args.source_form, reading=reading_of(args), **options)
    options = {name: getattr(args, name) for name in ("mode", "samples_per_shard", "target_only", "overwrite")}
    made = convert(source, Path(args.out), args.to, **options)
    num_skipped = made.num_bad + made.num_cut
    bad = f"; skipped {made.num_bad} bad samples and {made.num_cut} truncated files" if num_skipped else ""
    print(f"{made.num_samples} samples in {args.out}{bad}")
    if made.num_clipped:
        print(f"{made.num_clipped} boxes were clipped: they exceeded their picture by less than a pixel")
    if made.num_rationales_lost:
        print(f"{made.num_rationales_lost} rationales were left out: labels had been changed, so they no longer fit")
    if LEFT_OUT[args.to]:
        print(f"{args.to} cannot store {LEFT_OUT[args.to]}")
    return 0
