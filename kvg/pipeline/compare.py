"""Compares runs on the same questions, and writes the comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvg.errors import ConfigError
from kvg.evaluation.comparison.runs import Comparison, compare_runs
from kvg.evaluation.records.prediction import read_predictions, with_truth
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
        paths: paths of the predictions of each seed, by name of the run; see ``named_runs``.
        by: groupings; ``split and knowledge`` is also one.
        seed: seed of the bootstrap.
        level: confidence level of intervals; tests use 1 - level.
        common: whether only the questions that all runs have are compared.
        against: name of the run that all others are compared with; None for every pair.

    Raises:
        ConfigError: a setting is outside its range.
        DataError: a run cannot be read, or the runs have different questions.
    """
    runs = {name: [with_truth(read_predictions(path), path) for path in seeds] for name, seeds in paths.items()}
    return compare_runs(runs, list(by), seed, level, common, against)


def write_comparison(comparison: Comparison, paths: Mapping[str, Sequence[str]], out: Path) -> list[Path]:
    """Writes ``comparison.json`` and ``comparison.md``; returns their paths.

    Raises:
        DataError: the disk cannot be written.
    """
    record = {**comparison.record(), "findings": findings(comparison), "paths": paths}
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        atomic_write(out / TABLES, comparison_markdown(comparison))
    return [out / RECORD, out / TABLES]


def named_runs(given: Sequence[str], names: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Returns the paths of the seeds by name of the run.

    Args:
        given: ``RUN``, ``NAME=RUN`` or ``NAME=RUN,RUN,...``; a text that is an existing path is a path.
        names: names that replace those in ``given``.

    Raises:
        ConfigError: there is not one name per run, or a name occurs twice or is empty.

    >>> named_runs(["runs/base", "grpo=runs/s0,runs/s1"])
    {'base': ['runs/base'], 'grpo': ['runs/s0', 'runs/s1']}
    """
    if names is not None and len(names) != len(given):
        raise ConfigError("--names", f"{len(names)} names for {len(given)} runs; give one for each")
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
            raise ConfigError("runs", f"two have the name '{name}'; give other names by NAME=RUN or --names")
        paths[name] = seeds
    return paths


def name_of(path: str) -> str:
    """Returns the name of a run: its folder's, or the file's if that is not ``predictions.jsonl``.

    >>> name_of("runs/base/predictions.jsonl"), name_of("scored/theirs.jsonl")
    ('base', 'theirs')
    """
    whole = Path(path)
    if whole.name == "predictions.jsonl":
        whole = whole.absolute().parent
    return whole.stem if whole.suffix == ".jsonl" else whole.name
