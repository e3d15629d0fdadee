"""Requeues a SLURM job before its time limit; the job then continues with the next sample."""

from __future__ import annotations

import logging
import os
import signal
import subprocess

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info

from kvg.runs.folder import REQUEUED
from kvg.runs.interruption import SaveOnSignal, end

log = logging.getLogger(__name__)


class Requeue(SaveOnSignal):
    """On a signal, saves a checkpoint after the current step, requeues the job and ends every process.

    Outside SLURM it does nothing. The checkpoint ``requeue-stepN.ckpt`` is written to ``default_root_dir``;
    ``configs/slurm/fit.sbatch`` passes it when the job starts again.

    Args:
        signal_name: the signal that SLURM sends (``#SBATCH --signal``). Leave enough time before the limit for a step
            and for writing the checkpoint.
    """

    def __init__(self, signal_name: str = "SIGUSR1") -> None:
        super().__init__([signal.Signals[signal_name]], REQUEUED)

    @property
    def enabled(self) -> bool:
        """Whether this process runs in a SLURM job."""
        return SLURMEnvironment.detect()

    def leave(self, trainer: L.Trainer, number: signal.Signals) -> None:
        """Saves and requeues the job; if SLURM refuses, the run continues until SLURM stops it."""
        # Requeueing sends SIGTERM at once, while this process still has to finish its logs.
        previous_handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        path = self.save(trainer)
        queued = _requeued(_job()) if trainer.is_global_zero else False
        if trainer.strategy.broadcast(queued):
            rank_zero_info("Saved step %d in %s; job %s is back in the queue.", trainer.global_step, path, _job())
            end(trainer)
        signal.signal(signal.SIGTERM, previous_handler)
        rank_zero_info("Saved step %d in %s; continuing until SLURM stops the job.", trainer.global_step, path)


def _job() -> str:
    """The job's id; in a job array that of the task."""
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
