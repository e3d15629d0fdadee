"""Stops a run in all processes at the first loss or gradient that is not finite, and saves its batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import lightning as L
import torch
from torch import Tensor

from kvg.errors import TrainingError


class Saved(Protocol):
    """Part of a step that can be written for a replay: ``Experience``, ``TrainingBatch``."""

    def save(self, path: Path) -> None:
        """Writes it."""


def check_step(trainer: L.Trainer, numbers: Mapping[str, Tensor], parts: Sequence[Saved]) -> None:
    """Stops the run before a step whose loss or gradient is not finite; every process must call this function.

    All numbers are moved to the CPU together, so that there is one GPU synchronization per step.

    Args:
        trainer: of the run; parts are saved in ``failed`` below its ``default_root_dir``.
        numbers: scalars by name.
        parts: the inputs of the step; each class has a ``load`` for its files.

    Raises:
        TrainingError: a number is NaN or infinite in one of the processes.
    """
    values = torch.stack([number.detach().float() for number in numbers.values()])
    if trainer.strategy.reduce_boolean_decision(bool(torch.isfinite(values).all()), all=True):
        return
    step, folder = trainer.global_step, Path(trainer.default_root_dir) / "failed"
    paths = [folder / f"step{step}-rank{trainer.global_rank}-part{number}.pt" for number in range(len(parts))]
    for part, path in zip(parts, paths, strict=True):
        part.save(path)
    described = ", ".join(f"{name} {value}" for name, value in zip(numbers, values.tolist(), strict=True))
    remedy = f"{described}: not finite here or in another process; the step was not taken, its batch is in"
    raise TrainingError(f"step {step}", f"{remedy} {', '.join(map(str, paths))}")
