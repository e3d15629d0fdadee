"""Compares runs on the same questions, and writes the comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvg.errors import ConfigError
from kvg.evaluation.comparison.runs import Comparison, compare_runs
from kvg.evaluation.records.prediction import read_predictions
from kvg.report.comparison_tables import comparison_markdown, findings
from kvg.work.files import atomic_write, disk_errors

RECORD, TABLES = "comparison.json", "comparison.md"


def compare(
    paths: Mapping[str, Sequence[str]],
    by: Sequence[str] = ("split", "category", "knowledge"),
    seed: int = 0,
    level: float = 0.95,
    common: bool = False,
    against: str | None = None,
) -> Comparison:
    """Compares runs.

    Args:
        paths: of the predictions of each seed, by the name of the run; see ``named_runs``.
        by: groupings; ``split and knowledge`` is one, too.
        seed: of the bootstrap.
        level: of intervals; tests have 1 - level.
        common: compare the questions that all runs have, and leave out the others.
        against: compare all others with this run only; None for every two.

    Raises:
        ConfigError: a setting cannot work.
        DataError: a run cannot be read, or the runs hold different questions.
    """
    runs = {name: [read_predictions(path) for path in seeds] for name, seeds in paths.items()}
    return compare_runs(runs, list(by), seed, level, common, against)


def write_comparison(comparison: Comparison, paths: Mapping[str, Sequence[str]], out: Path) -> list[Path]:
    """Writes ``comparison.json`` and ``comparison.md``; returns their paths.

    Raises:
        DataError: the disk refuses.
    """
    record = {**comparison.record(), "findings": findings(comparison), "paths": paths}
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        atomic_write(out / TABLES, comparison_markdown(comparison))
    return [out / RECORD, out / TABLES]


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
    paths: dict[str, list[str]] = {}
    for number, one in enumerate(given):
        name, equals, rest = one.partition("=")
        if not equals or Path(one).exists():
            name, rest = name_of(one), one
        seeds = [rest] if Path(rest).exists() else rest.split(",")
        name = names[number] if names is not None else name
        if not name or not all(seeds):
            raise ConfigError("runs", f"'{one}' is not RUN, NAME=RUN or NAME=RUN,RUN; correct it")
        if name in paths:
            raise ConfigError("runs", f"two are called '{name}'; tell them apart by NAME=RUN or --names")
        paths[name] = seeds
    return paths


def name_of(path: str) -> str:
    """What a run is called: its folder, or the file where it is not called as all are.

    >>> name_of("runs/base/predictions.jsonl"), name_of("scored/theirs.jsonl")
    ('base', 'theirs')
    """
    whole = Path(path)
    if whole.name == "predictions.jsonl":
        whole = whole.absolute().parent
    return whole.stem if whole.suffix == ".jsonl" else whole.name
