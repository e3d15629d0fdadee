"""Writes the rollouts of stage 2 to Parquet files, to be read while the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from kvg.formats.rollout_files import RolloutFile, rollout_files, write_rollouts
from kvg.ranges import check_whole


class RolloutFiles(Callback):
    """Writes texts, boxes and rewards of rollouts into ``rollouts`` below the run's folder.

    Each process writes its own file for a step, see ``kvg.formats.rollout_files``, so that nothing is sent between
    processes; together they are all rollouts of the step, up to ``max_rollouts`` of each process. A run that is resumed
    removes files of steps that it takes again.

    If a process has more than ``keep`` files, it removes every second one, and from then on skips those steps. So at
    most ``keep`` files a process remain, spread evenly over the run, however long it is. The first step is kept.

    Args:
        every: steps between two files, as long as there are fewer than ``keep``.
        max_rollouts: largest number of rollouts in a file, in whole groups; there is at least one group.
        keep: largest number of files of a process; 0 writes none.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, every: int = 1, max_rollouts: int = 64, keep: int = 50) -> None:
        check_whole("callbacks.RolloutFiles.every", every, 1)
        check_whole("callbacks.RolloutFiles.max_rollouts", max_rollouts, 1)
        check_whole("callbacks.RolloutFiles.keep", keep, 0)
        self.every, self.max_rollouts, self.keep = every, max_rollouts, keep

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes files of steps that this run takes again."""
        next_step = trainer.fit_loop.total_batch_idx + 1
        for file in self._files(trainer):
            if file.step >= next_step:
                file.path.unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the step's rollouts, unless the step is skipped.

        Raises:
            DataError: the disk cannot be written.
        """
        scored = getattr(pl_module, "scored", None)
        step = trainer.fit_loop.total_batch_idx
        if scored is None or self.keep == 0 or getattr(trainer, "fast_dev_run", False) or step % self.every:
            return
        # After doubling the distance k times, files of steps 0, d, 2d, ... remain: as many as fit up to this step.
        distance = self.every
        while step // distance + 1 > self.keep:
            distance *= 2
        for file in self._files(trainer):
            if file.step % distance:
                file.path.unlink(missing_ok=True)
        if step % distance == 0:
            folder = Path(trainer.default_root_dir)
            write_rollouts(folder, scored.records(step, trainer.global_rank, self.max_rollouts))

    def _files(self, trainer: L.Trainer) -> list[RolloutFile]:
        """The files of this process; the first process also has those of processes that this run does not have."""
        rank, world = trainer.global_rank, trainer.world_size
        files = rollout_files(Path(trainer.default_root_dir))
        return [file for file in files if file.rank == rank or (rank == 0 and file.rank >= world)]
