"""A job that SLURM is about to stop goes back into the queue and later continues with the very next sample."""

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
    """On a signal, saves after the running step, puts the job back into the queue and ends every process.

    Outside SLURM it does nothing. The checkpoint ``requeue-stepN.ckpt`` lies in ``default_root_dir``;
    ``configs/slurm/fit.sbatch`` names it when the job comes back.

    Args:
        signal_name: the one that SLURM is asked to send (``#SBATCH --signal``) long enough before the end: a step and
            the writing of the checkpoint have to fit in.
    """

    def __init__(self, signal_name: str = "SIGUSR1") -> None:
        super().__init__([signal.Signals[signal_name]], REQUEUED)

    @property
    def enabled(self) -> bool:
        """Whether this is a job of SLURM."""
        return SLURMEnvironment.detect()

    def leave(self, trainer: L.Trainer, number: signal.Signals) -> None:
        """Saves and puts the job back into the queue; where that is refused the run goes on until it is stopped."""
        # Requeueing terminates the job at once, while this process still has to finish its logs.
        at_termination = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        path = self.save(trainer)
        queued = _requeued(_job()) if trainer.is_global_zero else False
        if trainer.strategy.broadcast(queued):
            rank_zero_info("Saved step %d in %s; job %s is back in the queue.", trainer.global_step, path, _job())
            end(trainer)
        signal.signal(signal.SIGTERM, at_termination)
        rank_zero_info("Saved step %d in %s; going on until the job is stopped.", trainer.global_step, path)


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
