"""The results of a sweep: accuracies over seeds, differences to the baseline, and curves, in JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from kvg.evaluation.comparison.runs import Comparison, compare_runs
from kvg.evaluation.records.prediction import read_predictions, with_truth
from kvg.report.comparison_tables import comparison_markdown, findings
from kvg.report.curves import Curve, read_curves
from kvg.report.tables import NONE, Cell, FigureTable, Row, markdown_table
from kvg.work.files import atomic_write, disk_errors
from kvg.workflow.sweep_config import Experiment
from kvg.workflow.sweep_plan import Run

RECORD: Final = "sweep.json"
TABLES: Final = "sweep.md"


class Point(TypedDict):
    """Summary of the values that the seeds of a variant have logged at a step."""

    step: int
    n: int
    mean: float
    low: float  # the minimum
    high: float


def compare_sweep(experiment: Experiment, runs: Sequence[Run]) -> Comparison:
    """Compares all variants with the baseline.

    Raises:
        DataError: predictions cannot be read, or belong to different questions.
    """
    answers = {
        variant.name: [
            with_truth(read_predictions(run.predict.out), run.predict.out)
            for run in runs
            if run.variant == variant.name
        ]
        for variant in experiment.variants
    }
    return compare_runs(answers, by=experiment.by, against=experiment.variants[0].name)


def sweep_curves(experiment: Experiment, runs: Sequence[Run]) -> dict[str, dict[str, list[Point]]]:
    """Returns points by tag and variant; a variant that has not logged a tag has none.

    Raises:
        DataError: a run has no logs.
    """
    logged = {run.name: read_curves(run.fit.out) for run in runs}
    return {
        tag: {
            variant.name: over_seeds([logged[run.name].get(tag, []) for run in runs if run.variant == variant.name])
            for variant in experiment.variants
        }
        for tag in experiment.curves
    }


def over_seeds(curves: Sequence[Curve]) -> list[Point]:
    """Returns mean and range at each step that any of the curves has.

    >>> over_seeds([[(5, 0.5), (9, 0.75)], [(5, 1.0)]])[0]
    {'step': 5, 'n': 2, 'mean': 0.75, 'low': 0.5, 'high': 1.0}
    """
    by_step: dict[int, list[float]] = {}
    for step, value in (point for curve in curves for point in curve):
        by_step.setdefault(step, []).append(value)
    return [
        Point(step=step, n=len(values), mean=sum(values) / len(values), low=min(values), high=max(values))
        for step, values in sorted(by_step.items())
    ]


def curve_table(tag: str, curves: Mapping[str, Sequence[Point]]) -> FigureTable:
    """Makes a table of a curve: a row per step, a column per variant."""
    by_step = {name: {point["step"]: point for point in points} for name, points in curves.items()}
    rows: list[Row] = []
    for step in sorted({step for points in by_step.values() for step in points}):
        cells: list[Cell | str] = []
        for points in by_step.values():
            point = points.get(step)
            interval = None if point is None else f"{point['low']:.3f} to {point['high']:.3f}"
            cells.append(Cell(NONE) if point is None or interval is None else Cell(f"{point['mean']:.3f}", interval))
        rows.append([str(step), *cells])
    silent = [name for name, points in curves.items() if not points]
    note = "Mean and range over seeds." + (f" Not logged by {', '.join(silent)}." if silent else "")
    return FigureTable(["step", *curves], rows, f"{tag} in training", note)


def write_sweep(
    experiment: Experiment,
    runs: Sequence[Run],
    comparison: Comparison,
    curves: Mapping[str, Mapping[str, Sequence[Point]]],
    title: str,
) -> tuple[Path, Path]:
    """Writes ``sweep.json`` and ``sweep.md`` into the experiment's folder; returns their paths.

    Raises:
        DataError: the disk is full, or cannot be written to.
    """
    record: dict[str, Any] = {
        "experiment": title,
        "baseline": experiment.variants[0].name,
        "seeds": list(experiment.seeds),
        "runs": [
            {"variant": run.variant, "seed": run.seed, "fit": str(run.fit.out), "predict": str(run.predict.out)}
            for run in runs
        ],
        "findings": findings(comparison),
        "comparison": comparison.record(),
        "curves": curves,
    }
    text = comparison_markdown(comparison, title)
    text += "".join(f"\n{markdown_table(curve_table(tag, own), 2)}" for tag, own in curves.items())
    paths = experiment.out / RECORD, experiment.out / TABLES
    with disk_errors(experiment.out):
        atomic_write(paths[0], json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        atomic_write(paths[1], text)
    return paths
