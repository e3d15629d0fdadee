"""``kvg-data scan``: opens every picture of a project's sources."""

from __future__ import annotations

import argparse
from collections import Counter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", help="project file (YAML)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the result is the same")
    parser.add_argument("--if-changed", action="store_true", help="only where settings or listed pictures have changed")


def run(args: argparse.Namespace) -> int:
    """Scans.

    Raises:
        ConfigError: the project file is wrong.
        DataError: a source cannot be used, or nothing that it lists can.
    """
    from kvg.catalogue.entry import CATALOGUE
    from kvg.pipeline.scan import REJECTED, scan
    from kvg.pipeline.settings.project import load_project

    project = load_project(args.project)
    result = scan(project, args.workers, args.if_changed)
    if result is None:
        print(f"{project.out / CATALOGUE} is there already")
        return 0
    num_entities = len({entry.entity for entry in result.kept})
    _print(f"{len(result.kept)} pictures of {num_entities} entities in {result.out / CATALOGUE}")
    if result.num_without_box:
        _print(
            f"{result.num_without_box} of them have no box, so no composite can use them yet: let a model box them"
            f" (`kvg-data box {args.project}`), list their boxes (kvg.catalogue.tables), or name sources of close-ups,"
            " where the whole picture is the box, in `scan: {close_ups: [...]}`"
        )
    for use, num in sorted(result.never_trained.items()):
        _print(
            f"{num} entities of seen categories have pictures for {use} and none for training; {use} asks for them too,"
            " unless `splits: {min_train: 1}`"
        )
    if result.rejected:
        fields = sorted(Counter(rejection.field for rejection in result.rejected).items())
        counted = ", ".join(f"{field} {num}" for field, num in fields)
        _print(f"{len(result.rejected)} left out ({counted}), each with its reason in {result.out / REJECTED}")
    for kind, lines in result.notes.items():
        for line in lines:
            _print(f"{kind[:-1]}: {line}")
    return 0


def _print(text: str) -> None:
    """Prints a line; names of files need not be valid text."""
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"))
