"""Runs one after another, in this process or in a pair of processes that stay: starting costs more than training."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

import callbacks  # noqa: F401  (the forked processes need not import it again)
import data_modules  # noqa: F401
from kvg.training.lightning_cli import KVGCLI

DEADLINE_S, GRACE_S = 120, 5
NUM_STEPS = 2


class FirstSteps(Callback):
    """Ends the run after some optimizer steps; notes the learning rate of each."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= NUM_STEPS * len(trainer.optimizers):
            trainer.should_stop = True


class ShortRun(KVGCLI):
    """The command line as it is, but for the end of training; its parser is made once for all runs."""

    made: dict[str, Any] | None = None

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        if ShortRun.made is None:
            super().setup_parser(*args, **kwargs)
            kept = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")
            ShortRun.made = {name: getattr(self, name) for name in kept}
        vars(self).update(ShortRun.made)

    def after_instantiate_classes(self) -> None:
        super().after_instantiate_classes()
        self.first_steps = FirstSteps()
        self.trainer.callbacks.append(self.first_steps)


def train(args: list[str]) -> dict[str, Any]:
    """Runs a command; returns what there is to be checked, as plain data."""
    cli = ShortRun(args)
    logged = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    return {
        "global_step": cli.trainer.global_step,
        "rates": cli.first_steps.rates,
        "logged": {name: value for name, value in logged.items() if math.isfinite(value)},
        "not_finite": [name for name, value in logged.items() if not math.isfinite(value)],
        "precision": str(cli.trainer.precision),
        "strategy": type(cli.trainer.strategy).__name__,
        "world_size": cli.trainer.world_size,
        "clip": cli.trainer.gradient_clip_val,
        "settings": cli.config[args[0]].as_dict(),
    }


def _serve(rank: int, port: int, orders: Connection, log: Path) -> None:
    os.environ.update(
        LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1"
    )
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        while True:
            try:
                args = orders.recv()
            except EOFError:
                os._exit(0)
            try:
                orders.send((True, train(args)))
            except BaseException:
                orders.send((False, traceback.format_exc()))
            sys.stdout.flush()
            sys.stderr.flush()


class Pair:
    """Two processes that run the same commands in turn, as Lightning or SLURM would start them.

    Args:
        folder: of their logs.
        find_port: for them to meet at.
    """

    def __init__(self, folder: Path, find_port: Callable[[], int]) -> None:
        self.folder, self._find_port = folder, find_port
        self._processes: list[Any] = []
        self._orders: list[Connection] = []

    def train(self, args: list[str]) -> dict[str, Any]:
        """Runs a command in both; returns what the first one says.

        Raises:
            AssertionError: it fails in one of them, or does not end.
        """
        if not self._processes:
            self._start()
        for orders in self._orders:
            orders.send(args)
        said: dict[int, Any] = {}
        limit = DEADLINE_S
        while len(said) < len(self._orders):
            waiting = [orders for rank, orders in enumerate(self._orders) if rank not in said]
            for orders in wait(waiting, limit) or [None]:
                if orders is None:
                    return self._fail(said, f"no answer within {limit} s")
                try:
                    said[self._orders.index(orders)] = orders.recv()
                except EOFError:
                    return self._fail(said, "a process has ended")
            if not all(fine for fine, _ in said.values()):
                limit = GRACE_S  # the other one may wait for it for ever
        if not all(fine for fine, _ in said.values()):
            return self._fail(said, "failed")
        return dict(said[0][1])

    def _start(self) -> None:
        context, port = multiprocessing.get_context("fork"), self._find_port()
        for rank in range(2):
            ours, theirs = context.Pipe()
            log = self.folder / f"log-{rank}.txt"
            process = context.Process(target=_serve, args=(rank, port, theirs, log), daemon=False)
            process.start()
            theirs.close()
            self._orders.append(ours)
            self._processes.append(process)

    def _fail(self, said: dict[int, Any], why: str) -> dict[str, Any]:
        self.stop()
        lines = [f"--- process {rank}\n{text}" for rank, (fine, text) in sorted(said.items()) if not fine]
        logs = [f"--- {log}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("log-*.txt"))]
        raise AssertionError("\n".join([why, *lines, *(logs if not lines else [])]))

    def stop(self) -> None:
        """Ends both."""
        for orders in self._orders:
            orders.close()
        for process in self._processes:
            process.join(0.5)
            if process.is_alive():
                process.kill()
                process.join()
        self._orders, self._processes = [], []
