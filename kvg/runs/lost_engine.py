"""Saves a run whose engine is lost, so that it continues with the batch that was not answered."""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from kvg.errors import EngineError
from kvg.runs.interruption import Interruption


class LostEngine(Callback):
    """Saves a checkpoint if a step ends with an ``EngineError``; the error then ends the run.

    The batch that was being sampled counts as not read: counters and data loaders are saved as they were after the batch
    before. If this process has finished no batch, nothing is saved, because the run is where it started. Groups that
    wait for others (``max_resample_batches``) are lost.

    Args:
        interruption: saves, and prints the command that continues the run.
    """

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption
        self._state: dict[str, Any] | None = None  # parts of a checkpoint after the last batch
        self._saving = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stores where the run is: the same as in a checkpoint that is saved after this batch."""
        state = {"loops": trainer._checkpoint_connector._get_loops_state_dict()}
        data = getattr(trainer, "datamodule", None)
        if data is not None and (position := data.state_dict()):
            state[type(data).__qualname__] = position  # Lightning's name of it
        self._state = copy.deepcopy(state)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves in all processes, which have the same error (``SharedFault``)."""
        quick = bool(getattr(trainer, "fast_dev_run", False))
        if not isinstance(exception, EngineError) or self._state is None or quick:
            return
        self._saving = True
        self._interruption.save_and_report(trainer)
        self._saving = False
        trainer.strategy.barrier()  # other processes print the error into the same file

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Replaces the counters, which include the batch without completions."""
        if self._saving and self._state is not None:
            checkpoint.update(self._state)
