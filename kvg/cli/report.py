"""``kvg-data report``: writes one page about one or several runs, or about trainings that are going on."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvg.cli.reading_options import add_reading_arguments, reading_of

_LISTS = ("pairs", "sets", "knowledge", "trained", "texts", "lab", "cases", "rollouts", "title", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add = parser.add_argument
    add("--runs", nargs="+", default=[], metavar="NAME=PATH", help="folders with predictions.jsonl, or such files")
    add("--out", required=True, help="folder for index.html, results.json and results.md")
    text = "sets of the runs, for the pictures: shards or published files; NAME is the set's name in the predictions"
    add("--set", nargs="+", default=[], dest="sets", metavar="[NAME=]PATH", help=text)
    text = "runs to compare (default: the method's stages where runs have their names, else each with the first)"
    add("--pairs", nargs="+", default=[], metavar="BEFORE:AFTER", help=text)
    text = "folders of trainings, for learning curves and rollouts (default: those that predictions.json names)"
    add("--curves", nargs="+", default=[], metavar="NAME=DIR", help=text)
    add("--knowledge", nargs="+", default=[], metavar="FILE", help="accuracies by entity, from `kvg-data probe`")
    add(
        "--trained",
        nargs="+",
        default=[],
        metavar="SET",
        help="training sets, for the exposure of entities and the pictures of rollouts",
    )
    add("--texts", nargs="+", default=[], metavar="FILE", help="further training texts")
    text = "other pages for the menu; a path is as seen from this one"
    add("--links", nargs="+", default=[], metavar="NAME=PATH", help=text)
    add_reading_arguments(parser)
    add("--lab", action="store_true", help="the models start from the lab's base, which was trained on the known cards")
    add("--cases", type=int, default=120, help="largest number of cases to show (default 120)")
    add("--rollouts", type=int, default=320, help="largest number of rollouts of a training to show (default 320)")
    add("--title", default="", help="headline (default: from the runs' names)")
    add("--seed", type=int, default=0, help="of the intervals and of the cases shown (default 0)")


def run(args: argparse.Namespace) -> int:
    """Writes the files and prints the tables.

    Raises:
        ConfigError: an option is wrong.
        DataError: predictions, sets, logs or files cannot be used.
    """
    from kvg.pipeline.report import ReportSettings, build_report, named, print_tables, write_report

    runs, curves = named(args.runs, "--runs"), named(args.curves, "--curves")
    values = {name: getattr(args, name) for name in _LISTS}
    links = named(args.links, "--links")
    settings = ReportSettings(runs=runs, curves=curves, links=links, reading=reading_of(args), **values)
    report = build_report(settings)
    options = {name: value for name, value in vars(args).items() if name != "command"}
    paths = write_report(report, Path(args.out), options)
    print_tables(report)
    print(*paths, sep="   ")
    return 0
