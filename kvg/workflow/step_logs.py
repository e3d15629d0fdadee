"""The logs of steps: their last lines as a terminal would show them, and durations in words."""

from __future__ import annotations

import re
from pathlib import Path

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def last_lines(log: Path, num: int) -> list[str]:
    """Returns the last lines of a log that are not blank, as they would appear on a terminal.

    Colours are removed. Of a line that was overwritten, such as a progress bar, only the last state is kept.
    """
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 20_000))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in _ESCAPES.sub("", text).split("\n"))
    return [line for line in lines if line.strip()][-num:]


def clock(seconds: float) -> str:
    """Formats seconds as minutes and seconds.

    >>> clock(75.2)
    '1:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
