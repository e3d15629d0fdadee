"""``kvg-data inspect``: shows the content of a set."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvg.cli.reading_options import add_reading_arguments, reading_of
from kvg.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("folder", help="folder of shards, a published file, or the folder of a scanned project")
    parser.add_argument("--num", type=int, default=24, help="samples on the page (default 24); 0 writes none")
    parser.add_argument("--table", type=int, default=0, metavar="NUM", help="also print this many samples as a table")
    parser.add_argument("--seed", type=int, default=0, help="which samples (default 0)")
    for name, text in (("category", "of the samples shown"), ("entity", "asked for"), ("key", "of a sample to show")):
        parser.add_argument(f"--{name}", action="append", help=f"{text}; may be repeated")
    add_reading_arguments(parser)
    parser.add_argument("--out", help="the page (default: contact_sheet.html in the folder, or beside the file)")


def run(args: argparse.Namespace) -> int:
    """Prints the tables and writes the page.

    Raises:
        ConfigError: a number is below 0.
        DataError: the set cannot be opened, or no sample matches the filters.
    """
    from kvg.catalogue.entry import CATALOGUE
    from kvg.pipeline.inspect import PAGE, inspect_set, print_figures, print_samples
    from kvg.pipeline.inspect_catalogue import show_catalogue
    from kvg.shards.manifest import MANIFEST

    source = Path(args.folder)
    if min(args.num, args.table) < 0:
        raise ConfigError("num, table", "must be at least 0")
    if (source / CATALOGUE).is_file() and not (source / MANIFEST).is_file():
        show_catalogue(source, args.table, args.seed, args.category, args.entity)
        return 0
    only = {"category": args.category, "entity": args.entity, "key": args.key}
    made = inspect_set(source, max(args.num, args.table), args.seed, only, reading_of(args))
    print_figures(source, made.figures, made.facts)
    print_samples(made.samples[: args.table])
    bad = f"; {made.tally.num_bad} bad samples, {made.tally.num_cut} cut files" if made.tally.problems else ""
    text = f"{made.figures.num_samples} samples{bad}"
    if args.num:
        out = Path(args.out) if args.out else (source if source.is_dir() else source.parent) / PAGE
        made.write_page(out, args.num)
        text += f"; pictures in {out}"
    print(text)
    return 0
