"""A job that SLURM is about to stop goes back into the queue and later continues with the very next sample."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

log = logging.getLogger(__name__)

PATTERN = "requeue-step*.ckpt"


class Requeue(Callback):
    """On a signal, saves after the running step, puts the job back into the queue and ends every process.

    Lightning by itself saves in the signal handler, wherever the signal finds each process: the batch in work is lost,
    weights may be half updated, and processes in different places wait for each other. Here a process that gets the
    signal only takes note of it; after each optimizer step all of them agree on whether one has. Outside SLURM it does
    nothing.

    The checkpoint ``requeue-stepN.ckpt`` lies in ``default_root_dir``; ``configs/slurm/fit.sbatch`` names it when the
    job comes back. It takes the place of earlier ones, and goes when the fit has come to its end.

    Args:
        signal_name: the one that SLURM is asked to send (``#SBATCH --signal``) long enough before the end: a step, a
            validation that may be running, and the writing of the checkpoint have to fit in.
    """

    def __init__(self, signal_name: str = "SIGUSR1") -> None:
        self.signal = signal.Signals[signal_name]
        self._asked = False
        self._last_step = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Takes the signal; Lightning leaves a handler alone that is already there."""
        if stage == "fit" and SLURMEnvironment.detect():
            signal.signal(self.signal, self._note)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says where the run begins, since one that came back prints into the same file."""
        self._last_step = trainer.global_step
        if trainer.global_step:
            rank_zero_info("Continuing after step %d.", trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step of the optimizer, asks all processes; gradients half accumulated are in no checkpoint."""
        if trainer.global_step == self._last_step or not SLURMEnvironment.detect():
            return
        self._last_step = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            self._asked = False
            self._leave(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Clears away what the finished run left for itself."""
        if trainer.is_global_zero and SLURMEnvironment.detect():
            _remove(_checkpoints(trainer))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _leave(self, trainer: L.Trainer) -> None:
        before = _checkpoints(trainer)
        path = Path(trainer.default_root_dir) / PATTERN.replace("*", str(trainer.global_step))
        # Requeueing terminates the job at once. Lightning's handler would then wait for processes that have left.
        at_termination = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        trainer.save_checkpoint(path)
        queued = False
        if trainer.is_global_zero:
            _remove([old for old in before if old != path])
            queued = _requeued(_job())
        if trainer.strategy.broadcast(queued):
            rank_zero_info("Saved step %d in %s; job %s is back in the queue.", trainer.global_step, path, _job())
            _end(trainer)
        signal.signal(signal.SIGTERM, at_termination)
        rank_zero_info("Saved step %d in %s; going on until the job is stopped.", trainer.global_step, path)


def _end(trainer: L.Trainer) -> NoReturn:
    """Ends the process at once: all is on disk, and an orderly end now and then aborts in torch's own threads."""
    for logger in trainer.loggers:
        logger.finalize("success")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _checkpoints(trainer: L.Trainer) -> list[Path]:
    return sorted(Path(trainer.default_root_dir).glob(PATTERN))


def _remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _job() -> str:
    """The job's number; in an array the one of the task."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def _requeued(job: str) -> bool:
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        log.warning("job %s cannot be requeued: scontrol cannot be run (%s)", job, error.strerror)
        return False
    if done.returncode:
        log.warning("job %s cannot be requeued: %s", job, done.stderr.strip())
    return done.returncode == 0
