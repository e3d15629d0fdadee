"""``kvg-data shortcuts``: shows the distribution of a set, and the shortcuts that predict the target."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("folder", help="folder of shards, or a published file")
    parser.add_argument("--num", type=int, default=2000, help="composites whose pixels are measured (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of their choice and of the train-test split (default 0)")
    parser.add_argument("--out", help="folder for shortcuts.json and shortcuts.html (default: that of the set)")


def run(args: argparse.Namespace) -> int:
    """Prints tables, and writes the record and the page.

    Raises:
        ConfigError: ``--num`` is below 0.
        DataError: the set cannot be opened, or nothing can be written.
    """
    from kvg.pipeline.shortcuts import find_shortcuts, print_figures

    out = Path(args.out) if args.out else None
    figures, tally, page = find_shortcuts(Path(args.folder), args.num, args.seed, out)
    print_figures(args.folder, figures)
    bad = f"; {tally.num_bad} bad samples, {tally.num_cut} cut files" if tally.problems else ""
    print(f"{figures.num_samples} composites{bad}; {len(figures.warnings)} warnings; more in {page}")
    return 0
