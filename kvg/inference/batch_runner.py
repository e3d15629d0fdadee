"""Runs numbered batches of requests under a Lightning Trainer; stores the answers and resumes after an interruption."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightning as L
from lightning.pytorch.callbacks import Callback

from kvg.errors import DataError, TrainingError
from kvg.inference.prepared import PreparedBatch
from kvg.inference.request import Answers, Request, RequestBatches
from kvg.inference.shared_fault import SharedFault
from kvg.work.job import Units, share_of

log = logging.getLogger(__name__)
Record = dict[str, Any]  # of one request, as JSON


class Engine(Protocol):
    """Answers the batches of one process: a backbone that is loaded here, or a client."""

    def loader(self, job: RequestJob, share: Sequence[tuple[int, bool]]) -> Iterable[Any]:
        """The batches of a share, ready to be answered; see ``kvg.inference.prepared.PreparedBatches``."""

    def answer(self, batch: PreparedBatch, seed: str) -> Iterator[Answers]:
        """Answers to the requests of a batch that can be asked, in order."""

    def meets_alike(self) -> bool:
        """Whether an error in one process occurs in all processes, as with a sharded model."""


@dataclass(frozen=True)
class RequestJob:
    """One run over requests.

    Attributes:
        batches: all requests, including answered ones.
        units: store the records, one unit per batch.
        sizes: number of requests in each batch.
        record: makes the record of a request from its answers.
        seed: of this run; the seed of a batch is derived from it and the batch's number.
        remedy: remedy in the error for an unusable request, which then stops the run; None stores a record with the
            fault instead.
        num_workers: processes that prepare batches; 0 prepares them in this process.
        advance: called with the number of newly answered requests in all processes.
    """

    batches: RequestBatches
    units: Units
    sizes: Sequence[int]
    record: Callable[[Request, Answers], Record]
    seed: str = ""
    remedy: str | None = None
    num_workers: int = 0
    advance: Callable[[int], Any] = lambda num: None


class BatchRunner(Callback):
    """Answers the unanswered batches, which are distributed over the processes.

    A module returns it in ``configure_callbacks``, and calls ``step`` in its test and prediction steps.

    Args:
        engine: the engine that answers.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._job: RequestJob | None = None
        self._todo: Sequence[int] = ()
        self._fault = SharedFault()
        self._trainer: L.Trainer | None = None
        self._sigterm: Any = None

    def begin(self, job: RequestJob, todo: Sequence[int]) -> Iterable[Any]:
        """Starts a job.

        Args:
            job: see ``RequestJob``.
            todo: numbers of the unanswered batches, equal in all processes.

        Returns:
            The batches of this process.
        """
        self._job, self._todo, self._fault = job, todo, SharedFault()
        share = share_of(todo, self.trainer.global_rank, self.trainer.world_size)
        return self.engine.loader(job, share)

    def step(self, batch: PreparedBatch, batch_idx: int) -> list[Record]:
        """Answers a batch and stores the records.

        Returns:
            The records of the usable requests; empty if the batch is a repetition.

        Raises:
            TrainingError: logits are not finite.
            DataError: a request is unusable and the job has a ``remedy``, or a file cannot be written.
        """
        if batch["number"] is None or isinstance(self._fault.error, TrainingError):
            return []  # a placeholder batch for Lightning, or the model has failed already
        records: list[Record] = []
        with self._fault.kept(self.trainer.world_size == 1 or self.engine.meets_alike()):
            records = self._answered(batch)
        world = self.trainer.world_size
        done = self._todo[batch_idx * world : (batch_idx + 1) * world]
        self.job.advance(sum(self.job.sizes[number] for number in done))
        return records

    def finish(self) -> None:
        """Waits until every process has stored its last answers; afterwards every process may read all answers.

        Raises:
            KVGError: the error of the first process that has one.
        """
        self.trainer.strategy.barrier("answered")
        self._fault.end(self.trainer.world_size)

    @property
    def job(self) -> RequestJob:
        """The current job."""
        if self._job is None:
            raise RuntimeError("begin comes before step")
        return self._job

    @property
    def trainer(self) -> L.Trainer:
        """The Trainer that runs."""
        if self._trainer is None:
            raise RuntimeError("a Trainer has to call setup first")
        return self._trainer

    # -- hooks -----------------------------------------------------------------------------------------------------
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Saves the current SIGTERM handler before Lightning replaces it."""
        self._trainer, self._sigterm = trainer, signal.getsignal(signal.SIGTERM)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restores the SIGTERM handler."""
        self._restore_sigterm()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restores the SIGTERM handler."""
        self._restore_sigterm()

    def _restore_sigterm(self) -> None:
        """Lightning's handler waits for the end of the run; all answers are on disk, so the process may end at once."""
        if self._sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)

    # -- one batch -------------------------------------------------------------------------------------------------
    def _answered(self, batch: PreparedBatch) -> list[Record]:
        start, job = time.perf_counter(), self.job
        first = next((fault for fault in batch["faults"] if fault), None)
        refused = job.remedy is not None and first is not None
        if refused and first is not None:
            self._refuse(first, str(job.remedy))
        answers = list(self.engine.answer(batch, job.seed))
        if refused or not batch["due"]:  # run only because a sharded model needs all processes
            return []
        made = [job.record(request, answer) for request, answer in zip(batch["requests"], answers, strict=True)]
        seconds = time.perf_counter() - start + batch.get("seconds", 0.0)  # a client has answered already
        seconds, good = seconds / len(batch["faults"]), iter(made)
        records = [next(good) if fault is None else {"fault": str(fault)} for fault in batch["faults"]]
        job.units.save(batch["number"], [{**record, "seconds": seconds} for record in records])
        return made

    def _refuse(self, fault: DataError, remedy: str) -> None:
        """Stops the run; with several processes in ``finish``, because they would wait forever for this one."""
        self._fault.error = self._fault.error or DataError(fault.where, fault.field, f"{fault.remedy} ({remedy})")
        if self.trainer.world_size == 1:
            raise self._fault.error
        log.error("%s", fault)
