"""Progress bars: completed steps, rate, and remaining time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")


class Rate(ProgressColumn):
    """Steps per second since the bar was started."""

    def render(self, task: Task) -> Text:
        """Returns the rate; an empty text before the first step."""
        began = int(task.fields.get("began", 0))
        speed = (task.completed - began) / task.elapsed if task.elapsed else 0.0
        return Text(f"{speed:.1f}/s" if speed < 10 else f"{speed:.0f}/s") if speed else Text("")


def progress_bar(hidden: bool = False) -> Progress:
    """Returns a progress bar. Resumed tasks give the number of earlier steps as ``began=``, for the rate."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    return Progress(*columns, disable=hidden)


def with_progress(items: Iterable[T], title: str, total: int | Callable[[], int | None] | None) -> Iterator[T]:
    """Yields items, and advances a progress bar with each.

    Args:
        items: what to yield.
        title: title of the bar.
        total: number of items, or a function that returns it once ``items`` has counted them; None if it is unknown.
    """
    with progress_bar() as progress:
        task = progress.add_task(title, total=None if callable(total) else total)
        for item in items:
            if callable(total):
                progress.update(task, total=total())
            yield item
            progress.advance(task)


@contextmanager
def quiet_lightning(level: int = logging.WARNING) -> Iterator[None]:
    """Hides Lightning's log messages below a level, since those about internal Trainers do not help a user."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
