"""Compares runs on the same cases: accuracies with intervals, and which differences are more than luck."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kvg.errors import ConfigError

RECORD, TABLES = "comparison.json", "comparison.md"
_WIDTH = 120  # of what is printed into a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run or file of its predictions, also as NAME=RUN; NAME=RUN,RUN,RUN for several seeds",
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what the runs are called, in their order")
    parser.add_argument(
        "--by",
        default="split,category,knowledge",
        help="groupings, with commas; `split and knowledge` is another (default split,category,knowledge)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--level", type=float, default=0.95, help="of intervals; tests have 1 - level (default 0.95)")
    parser.add_argument("--against", metavar="NAME", help="compare all others with this run only (default: every two)")
    parser.add_argument("--common", action="store_true", help="compare the cases that all runs have, leave out others")
    parser.add_argument("--out", help=f"folder for {RECORD} and {TABLES} (default: only printed)")


def run(args: argparse.Namespace) -> int:
    """Prints the tables and what they say, and writes both files.

    Raises:
        ConfigError: names are missing or come twice, or a setting cannot be.
        DataError: a run cannot be read, or the runs hold different cases.
    """
    from rich.console import Console

    from kvg.evaluation.comparison.runs import compare_runs
    from kvg.evaluation.records.prediction import read_cases
    from kvg.report.comparison_tables import comparison_markdown, comparison_tables, findings
    from kvg.report.tables import terminal_table
    from kvg.work.files import atomic_write, disk_errors

    paths = named_runs(args.runs, args.names)
    runs = {name: [read_cases(path) for path in seeds] for name, seeds in paths.items()}
    by = [grouping for grouping in args.by.split(",") if grouping]
    comparison = compare_runs(runs, by, args.seed, args.level, args.common, args.against)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for table in comparison_tables(comparison):
        console.print(terminal_table(table))
    for line in findings(comparison):
        console.print(line, markup=False, highlight=False)
    for line in comparison.notes:
        console.print(f"note: {line}", markup=False, highlight=False)
    if args.out:
        out = Path(args.out)
        record = {**comparison.record(), "findings": findings(comparison), "paths": paths}
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            atomic_write(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            atomic_write(out / TABLES, comparison_markdown(comparison))
        print(f"{out / RECORD}   {out / TABLES}")
    return 0


def named_runs(given: Sequence[str], names: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Paths of the seeds by the name of their setting.

    Args:
        given: ``RUN``, ``NAME=RUN`` or ``NAME=RUN,RUN,...``; what exists under its whole name is a path.
        names: in place of those given or found.

    Raises:
        ConfigError: there is not one name a run, or a name comes twice or is empty.

    >>> named_runs(["runs/base", "grpo=runs/s0,runs/s1"])
    {'base': ['runs/base'], 'grpo': ['runs/s0', 'runs/s1']}
    """
    if names is not None and len(names) != len(given):
        raise ConfigError("--names", f"{len(names)} for {len(given)} runs; give one each")
    found: dict[str, list[str]] = {}
    for number, one in enumerate(given):
        name, equals, rest = one.partition("=")
        if not equals or Path(one).exists():
            name, rest = name_of(one), one
        seeds = [rest] if Path(rest).exists() else rest.split(",")
        name = names[number] if names is not None else name
        if not name or not all(seeds):
            raise ConfigError("runs", f"'{one}' is not RUN, NAME=RUN or NAME=RUN,RUN; correct it")
        if name in found:
            raise ConfigError("runs", f"two are called '{name}'; tell them apart by NAME=RUN or --names")
        found[name] = seeds
    return found


def name_of(path: str) -> str:
    """What a run is called: its folder, or the file where it is not called as all are.

    >>> name_of("runs/base/predictions.jsonl"), name_of("scored/theirs.jsonl")
    ('base', 'theirs')
    """
    whole = Path(path)
    if whole.name == "predictions.jsonl":
        whole = whole.absolute().parent
    return whole.stem if whole.suffix == ".jsonl" else whole.name
