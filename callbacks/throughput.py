"""Logs throughput and the share of time spent waiting for data."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from time import perf_counter
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from kvg.ranges import check_whole


class Throughput(Callback):
    """Logs samples per second over all processes, the share of time spent waiting for data, and peak GPU memory.

    The module logs tokens per second, because only it knows the number of sampled tokens. The keys are
    ``time/samples_per_s``, ``time/data_share`` (0-1) and ``time/peak_gib``.

    Args:
        every: number of batches per measurement.
    """

    def __init__(self, every: int = 10) -> None:
        check_whole("callbacks.Throughput.every", every, 1)
        self.every = every
        self._restart()

    def _restart(self) -> None:
        self._start = self._end_of_last = perf_counter()
        self._waited, self._num_batches, self._num_samples = 0.0, 0, 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restarts the measurement, to exclude validation and saving between epochs."""
        self._restart()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Adds the time spent waiting for this batch."""
        self._waited += perf_counter() - self._end_of_last

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch; logs after ``every`` batches."""
        self._end_of_last = perf_counter()
        self._num_batches += 1
        self._num_samples += num_samples(batch)
        if self._num_batches < self.every:
            return
        seconds = max(self._end_of_last - self._start, 1e-9)
        pl_module.log("time/samples_per_s", trainer.world_size * self._num_samples / seconds)
        pl_module.log("time/data_share", self._waited / seconds)
        if pl_module.device.type == "cuda":
            pl_module.log("time/peak_gib", torch.cuda.max_memory_allocated(pl_module.device) / 2**30)
        self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restarts the measurement, to exclude a validation within an epoch."""
        self._restart()


def num_samples(batch: Any) -> int:
    """Number of examples in a batch, including text-only ones.

    >>> num_samples({"input_ids": [[1, 2], [3, 4], [5, 6]], "samples": ["a", "b"]})
    3
    """
    if isinstance(batch, Mapping) and isinstance(batch.get("input_ids"), Sized):
        return len(batch["input_ids"])
    return len(batch) if isinstance(batch, Sized) else 1
