"""Reads learning curves from the TensorBoard files of runs."""

from __future__ import annotations

from pathlib import Path

from kvg.errors import DataError

Curve = list[tuple[int, float]]  # (step, value), by step


def read_curves(run: str | Path) -> dict[str, Curve]:
    """All scalars of a run, from all event files below its folder; for equal steps the newest file wins.

    Args:
        run: the run's ``default_root_dir``.

    Returns:
        Curves by tag.

    Raises:
        DataError: there is no event file.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    files = sorted(Path(run).rglob("events.out.tfevents.*"), key=lambda path: (path.stat().st_mtime, str(path)))
    if not files:
        raise DataError(str(run), "events.out.tfevents", "no such file below this folder; correct the path")
    merged: dict[str, dict[int, float]] = {}
    for path in files:
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})  # 0 = all of them
        events.Reload()
        for tag in events.Tags()["scalars"]:
            merged.setdefault(tag, {}).update((event.step, event.value) for event in events.Scalars(tag))
    return {tag: sorted(points.items()) for tag, points in merged.items()}


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
