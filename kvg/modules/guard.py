"""Stops a run at the first number that is not one, before it reaches the weights, and keeps what made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kvg.errors import TrainingError
from kvg.rl.experience import Experience


def stop_run(found: Mapping[str, float], parts: Sequence[Experience], folder: Path, step: int, rank: int) -> None:
    """Keeps the batch and ends the run.

    Args:
        found: the numbers, at least one of which is NaN or infinite here or in another process.
        parts: what they were computed from; written to ``folder/failed`` for a replay with ``Experience.load``.
        folder: of the run.
        step: optimizer steps so far.
        rank: of this process.

    Raises:
        TrainingError: always.
    """
    paths = [folder / "failed" / f"step{step}-rank{rank}-part{number}.pt" for number in range(len(parts))]
    for part, path in zip(parts, paths, strict=True):
        part.save(path)
    numbers = ", ".join(f"{name} {value}" for name, value in found.items())
    kept = ", ".join(map(str, paths))
    remedy = f"{numbers}: not finite here or in another process; the step was not taken, its batch is in {kept}"
    raise TrainingError(f"step {step}", remedy)
