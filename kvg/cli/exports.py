"""Checkpoints on the command line: their names, and those of trainings in the current folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kvg.errors import ConfigError


def missing_checkpoint() -> ConfigError:
    """The error for a command without ``--checkpoint``; it names the exports that are here."""
    places = [path.parent for depth in ("*", "*/*") for path in Path("runs").glob(f"{depth}/export/kvg.json")]
    exports = sorted(map(str, places))
    own = f" (here: {', '.join(exports[:4])})" if exports else ""
    remedy = f"is missing; give RUN/export of a training{own}, or lab, the small base model of this package"
    return ConfigError("--checkpoint", remedy)


def named_checkpoints(texts: Sequence[str], most: int) -> dict[str, str]:
    """Checkpoints by name.

    Args:
        texts: ``NAME=CHECKPOINT``, or a checkpoint alone, whose name is its path without ``/export``.
        most: how many there may be.

    Raises:
        ConfigError: there are more, or two have one name.

    >>> named_checkpoints(["base=lab", "runs/mine/export"], 4)
    {'base': 'lab', 'runs/mine': 'runs/mine/export'}
    """
    named: dict[str, str] = {}
    for text in texts:
        name, sign, checkpoint = text.partition("=")
        if not (sign and name and checkpoint) or Path(text).exists():
            name, checkpoint = text.rstrip("/").removesuffix("/export"), text
        if name in named:
            raise ConfigError("--checkpoint", f"two are called '{name}'; give names: --checkpoint a=PATH b=PATH")
        named[name] = checkpoint
    if len(named) > most:
        raise ConfigError("--checkpoint", f"there are {len(named)}; give at most {most}")
    return named
