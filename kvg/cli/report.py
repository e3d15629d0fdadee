"""Makes the report of one run or a comparison: index.html, results.json, results.md, and tables in the terminal."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kvg.cli.reading_options import add_reading_arguments, reading_of
from kvg.errors import ConfigError

if TYPE_CHECKING:
    from kvg.evaluation.records.prediction import Case
    from kvg.report.report import Report
    from kvg.report.results import Told

PACKAGES: Final = ("kvg", "torch", "lightning", "transformers")
PAGE, RESULTS, TABLES = "index.html", "results.json", "results.md"
CASES: Final = 120
IN_TERMINAL: Final = ("differences", "accuracy", "choice", "artifacts")  # anchors of sections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add = parser.add_argument
    add("--runs", nargs="+", required=True, metavar="NAME=PATH", help="folders with predictions.jsonl, or such files")
    add("--out", required=True, help=f"folder for {PAGE}, {RESULTS} and {TABLES}")
    told = "sets that were asked, for the pictures: shards or published files; a name is that in the lines"
    add("--set", nargs="+", default=[], dest="sets", metavar="[NAME=]PATH", help=told)
    told = "runs to compare (default: the method's stages where runs have their names, else each with the first)"
    add("--pairs", nargs="+", default=[], metavar="BEFORE:AFTER", help=told)
    add("--curves", nargs="+", default=[], metavar="NAME=DIR", help="where `kvg fit` left the logs of these runs")
    add("--knowledge", nargs="+", default=[], metavar="FILE", help="how well each entity is known: `kvg-data probe`")
    add("--trained", nargs="+", default=[], metavar="SET", help="training sets: which entities they have shown")
    add("--texts", nargs="+", default=[], metavar="FILE", help="further texts that were learnt")
    add_reading_arguments(parser)
    add("--lab", action="store_true", help="the models come from the lab's base, which has read the known cards")
    add("--cases", type=int, default=CASES, help=f"at most so many cases are shown (default {CASES})")
    add("--title", default="", help="headline (default: made of the runs' names)")
    add("--seed", type=int, default=0, help="of the intervals and of the cases shown (default 0)")


def run(args: argparse.Namespace) -> int:
    """Writes the files and prints the tables.

    Raises:
        ConfigError: an option is wrong.
        DataError: predictions, sets, logs or files cannot be used.
    """
    runs, curves = named(args.runs, "--runs"), named(args.curves, "--curves")
    _check(args)
    from kvg.evaluation.figures.levels import read_levels
    from kvg.evaluation.records.prediction import read_cases
    from kvg.report.pairs import pairs_of
    from kvg.report.report import chosen_gallery, make_report
    from kvg.report.results import with_knowledge
    from kvg.work.files import atomic_write, disk_errors
    from kvg.work.progress import shown

    pairs = pairs_of(args.pairs, list(runs))
    levels = read_levels(args.knowledge)
    cases = {name: with_knowledge(read_cases(path), levels) for name, path in shown(runs.items(), "runs", len(runs))}
    told = _told(args, runs, curves, cases, levels)
    reading = reading_of(args)
    gallery = chosen_gallery(cases, [_named_or_not(text, cases) for text in args.sets], args.cases, args.seed, reading)
    versions = installed()
    facts = {name: " ".join(getattr(args, name)) for name in ("sets", "knowledge", "trained") if getattr(args, name)}
    facts |= {"seed": str(args.seed), **versions}
    report = make_report(cases, pairs, gallery, told, facts, args.seed, args.title, pairs_asked=bool(args.pairs))
    settings = {name: value for name, value in vars(args).items() if name != "command"}
    out = Path(args.out)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / PAGE, report.html())
        atomic_write(out / TABLES, report.markdown())
        # The last one, so that it is there when all is.
        atomic_write(out / RESULTS, json.dumps(report.record(settings, versions), indent=1, ensure_ascii=False) + "\n")
    print_tables(report)
    print("   ".join(str(out / name) for name in (PAGE, RESULTS, TABLES)))
    return 0


def named(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=PATH`` pairs, in their order.

    Raises:
        ConfigError: one is no such pair, or its name comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not path or not name.strip():
            raise ConfigError(option, f"'{pair}' is not NAME=PATH")
        if name in found:
            raise ConfigError(option, f"{name} is named twice; give each a name of its own")
        found[name] = path
    return found


def installed() -> dict[str, str]:
    """Versions of what the figures depend on."""
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def print_tables(report: Report) -> None:
    """Prints differences and accuracies with their intervals."""
    from rich.console import Console

    from kvg.report.sections import BY_CATEGORY
    from kvg.report.tables import terminal_table

    console = Console()
    for section in report.sections:
        if section.anchor in IN_TERMINAL:
            console.print(f"\n[bold]{section.title}[/bold]")
            for table in section.tables:
                if not table.folded:
                    console.print(terminal_table(table, without=BY_CATEGORY))


def _check(args: argparse.Namespace) -> None:
    if args.cases < 0:
        raise ConfigError("--cases", f"{args.cases} must be at least 0")
    if (args.texts or args.lab) and not args.trained:
        raise ConfigError("--trained", "name the training sets, too: what a text tells says nothing of pictures")


def _told(
    args: argparse.Namespace,
    runs: Mapping[str, str],
    curves: Mapping[str, str],
    cases: Mapping[str, Sequence[Case]],
    levels: Mapping[str, str],
) -> Told:
    """What is known besides the answers."""
    from kvg.evaluation.figures.exposure import exposure_of
    from kvg.report.curves import read_curves
    from kvg.report.results import Told, read_record

    exposure = None
    if args.trained:
        names = sorted({case.entity for some in cases.values() for case in some if case.entity})
        exposure = exposure_of(names, args.trained, args.texts, args.lab, reading_of(args))
    records: dict[str, dict[str, Any]] = {}
    for name, path in runs.items():
        if record := read_record(path):
            records[name] = record
    return Told(levels, exposure, {name: read_curves(folder) for name, folder in curves.items()}, records)


def _named_or_not(text: str, cases: Mapping[str, Sequence[Case]]) -> tuple[str, str]:
    """Name and path of a set; what stands before "=" is a name where some line knows it, else part of the path."""
    name, equals, path = text.partition("=")
    known = {case.set for some in cases.values() for case in some}
    if equals and name in known and path:
        return name, path
    if equals and not Path(text).exists():
        told = ", ".join(sorted(known - {""})) or "none"
        raise ConfigError("--set", f"'{name}' is no set of these runs; theirs: {told}")
    return "", text
