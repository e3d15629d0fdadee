"""Reads learning curves from the TensorBoard and CSV files of runs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvg.errors import DataError

Curve = list[tuple[int, float]]  # (step, value), by step


def read_curves(run: str | Path) -> dict[str, Curve]:
    """All scalars of a run, from all log files below its folder; for equal steps the newest file wins.

    Args:
        run: the run's ``default_root_dir``.

    Returns:
        Curves by tag.

    Raises:
        DataError: there is no log file, or a CSV file is damaged.
    """
    files = log_files(run)
    if not files:
        remedy = "no such file below this folder, and no metrics.csv; correct the path"
        raise DataError(str(run), "events.out.tfevents", remedy)
    merged: dict[str, dict[int, float]] = {}
    for path in files:
        for tag, step, value in _csv_scalars(path) if path.suffix == ".csv" else _event_scalars(path):
            merged.setdefault(tag, {})[step] = value
    return {tag: sorted(points.items()) for tag, points in merged.items()}


def log_files(run: str | Path) -> list[Path]:
    """The log files below a folder, oldest first."""
    files = [path for name in ("events.out.tfevents.*", "metrics.csv") for path in Path(run).rglob(name)]
    return sorted(files, key=lambda path: (path.stat().st_mtime, str(path)))


def _event_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    # Takes long to import, and a report may have no curves.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events: Any = EventAccumulator(str(path), size_guidance={"scalars": 0})  # 0 = all of them
    events.Reload()
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            yield tag, event.step, event.value


def _csv_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                for tag, value in row.items():
                    if tag != "step" and value:
                        yield tag, int(row["step"]), float(value)
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(str(path), "step", f"is not a log of numbers by step ({error}); remove the file") from error


def smooth(curve: Curve, share: float = 0.1) -> Curve:
    """Running mean over a window of this share of the points, so that short and long runs are comparable.

    >>> smooth([(0, 1.0), (1, 3.0), (2, 5.0), (3, 3.0)], share=0.75)
    [(0, 2.0), (1, 3.0), (2, 3.6666666666666665), (3, 4.0)]
    """
    half = round(share * len(curve)) // 2
    means = []
    for i, (step, _) in enumerate(curve):
        window = [value for _, value in curve[max(0, i - half) : i + half + 1]]
        means.append((step, sum(window) / len(window)))
    return means
