"""``kvg-data compare``: accuracies with intervals, and significance tests of differences."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_WIDTH = 120  # columns of output that is not a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run or file of its predictions, also as NAME=RUN; NAME=RUN,RUN,RUN for several seeds",
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the runs, in order")
    parser.add_argument(
        "--by",
        default="split,category,knowledge",
        help="groupings, separated by commas; also `split and knowledge` (default split,category,knowledge)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument(
        "--level", type=float, default=0.95, help="confidence level; tests use 1 - level (default 0.95)"
    )
    parser.add_argument("--against", metavar="NAME", help="compare others with this run (default: all pairs)")
    parser.add_argument("--common", action="store_true", help="compare the cases that all runs have, skip others")
    parser.add_argument("--out", help="folder for comparison.json and comparison.md (default: only printed)")


def run(args: argparse.Namespace) -> int:
    """Prints the tables and the findings, and writes both files.

    Raises:
        ConfigError: names are missing or occur twice, or a setting is invalid.
        DataError: a run cannot be read, or the runs hold different cases.
    """
    from rich.console import Console

    from kvg.pipeline.compare import compare, named_runs, write_comparison
    from kvg.report.comparison_tables import comparison_tables, findings
    from kvg.report.tables import terminal_table

    paths = named_runs(args.runs, args.names)
    by = [grouping for grouping in args.by.split(",") if grouping]
    comparison = compare(paths, by, args.seed, args.level, args.common, args.against)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for table in comparison_tables(comparison):
        console.print(terminal_table(table))
    for line in [*findings(comparison), *(f"note: {note}" for note in comparison.notes)]:
        console.print(line, markup=False, highlight=False)
    if args.out:
        print(*write_comparison(comparison, paths, Path(args.out)), sep="   ")
    return 0
