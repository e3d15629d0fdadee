"""A run that is asked to end finishes its step, saves, says how to go on, and ends: the one mechanism for all signals.

Lightning by itself acts in the signal handler, wherever the signal finds each process: the batch in work is lost,
weights may be half updated, and processes in different places wait for each other. Here a process that gets a signal
only takes note of it; after each optimizer step, and in a validation, all of them agree on whether one has.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from kvg.work.processes import is_first
from kvg.runs.folder import INTERRUPTED, checkpoints, remove

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill and schedulers, a terminal that is closed


class SaveOnSignal(Callback):
    """On a signal, saves after the running step and leaves, all processes together.

    The checkpoint lies in ``default_root_dir``. It takes the place of earlier ones of its kind, and goes when the fit
    has come to its end.

    Args:
        signals: to take note of. One that is ignored when the run starts (``nohup``, a job in the background) stays so.
        pattern: of the checkpoint's name, with ``*`` in the place of the step.
    """

    def __init__(self, signals: Sequence[signal.Signals], pattern: str) -> None:
        self.signals, self.pattern = tuple(signals), pattern
        self._noted: signal.Signals | None = None
        self._last_step = -1
        self._validation_is_due = False  # in the checkpoint that is being saved
        self._before: dict[signal.Signals, Any] = {}

    @property
    def enabled(self) -> bool:
        """Whether it does anything here."""
        return True

    # -- signals ---------------------------------------------------------------------------------------------------
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Takes the signals, before and after Lightning does."""
        quick = bool(getattr(trainer, "fast_dev_run", False))
        if stage != "fit" or quick or not self.enabled or threading.current_thread() is not threading.main_thread():
            return
        signals = [one for one in self.signals if signal.getsignal(one) != signal.SIG_IGN]
        self._before = {one: signal.getsignal(one) for one in signals}
        connector = trainer._signal_connector
        register = connector.register_signal_handlers

        def take() -> None:
            for one in signals:
                signal.signal(one, self.note)

        def register_and_take() -> None:
            register()
            take()  # Lightning's handler of SIGTERM waits for the other processes, which are in mid-step

        take()
        connector.register_signal_handlers = register_and_take  # type: ignore[method-assign]

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives the signals back to whoever had them."""
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: notes the first one."""
        self._noted = self._noted or signal.Signals(number)

    # -- when to leave ---------------------------------------------------------------------------------------------
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes where the run begins."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step of the optimizer, asks all processes; gradients half accumulated are in no checkpoint."""
        if trainer.global_step == self._last_step or not self.enabled:
            return
        self._last_step = trainer.global_step
        number = self._agreed(trainer)
        if number is not None:
            trainer._logger_connector.on_batch_end()
            trainer._logger_connector.update_train_step_metrics()  # as Lightning would do after this hook
            epoch, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
            self._validation_is_due = fetcher is not None and epoch._should_check_val_fx(fetcher)
            self.leave(trainer, number)
            self._validation_is_due = False

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """A validation is not waited for: the run that goes on begins with it."""
        if not self.enabled or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        number = self._agreed(trainer)
        if number is not None:
            self._validation_is_due = True
            self.leave(trainer, number)
            self._validation_is_due = False

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Clears away what the finished run left for itself."""
        if trainer.is_global_zero and self.enabled:
            remove(checkpoints(Path(trainer.default_root_dir), self.pattern))

    def _agreed(self, trainer: L.Trainer) -> signal.Signals | None:
        """The signal that one of the processes has noted; the first in ``signals`` where they differ."""
        noted, self._noted = self._noted, None
        if trainer.world_size == 1:
            return noted
        flags = torch.tensor([float(noted == one) for one in self.signals], device=trainer.strategy.root_device)
        total = trainer.strategy.reduce(flags, reduce_op="sum")
        return next((one for one, num in zip(self.signals, total.tolist(), strict=True) if num), None)

    # -- leaving ---------------------------------------------------------------------------------------------------
    def leave(self, trainer: L.Trainer, number: signal.Signals) -> None:
        """Called in all processes after the step; does not return where the run has to end.

        Args:
            trainer: that runs.
            number: the signal.
        """
        raise NotImplementedError

    def save(self, trainer: L.Trainer) -> Path:
        """Saves in all processes, then removes earlier checkpoints of this kind; returns the path."""
        folder = Path(trainer.default_root_dir)
        before, path = checkpoints(folder, self.pattern), folder / self.pattern.replace("*", str(trainer.global_step))
        partial = path.with_name(f"{path.name}.partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            remove([path])
            os.replace(partial, path)  # whole at any moment, also where the process is killed now
            remove(old for old in before if old != path)
        return path

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A validation that was due, or was cut short, comes again and whole; Lightning would leave it out."""
        if not self._validation_is_due:
            return
        loops = checkpoint["loops"]["fit_loop"]
        for counts in (loops["epoch_loop.batch_progress"]["total"], loops["epoch_loop.batch_progress"]["current"]):
            counts["completed"] = counts["processed"]
        # Lightning takes a validation up again that has a batch begun and not processed.
        validation = loops["epoch_loop.val_loop.batch_progress"]
        for counts, done in ((validation["total"], validation["total"]["processed"]), (validation["current"], 0)):
            counts.update(ready=done + 1, started=done + 1, processed=done, completed=done)
        validation["is_last_batch"] = False


class Interruption(SaveOnSignal):
    """Ctrl-C, or a request to end: the run saves and says with which command it goes on.

    A second Ctrl-C ends it at once. When the signal comes after the last step, the export is written first.

    Args:
        command: that has started the run, program first.
    """

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(ENDING, INTERRUPTED)
        self.command = list(command)
        self._interrupts = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        """See ``SaveOnSignal``; the second Ctrl-C ends the process by the signal itself."""
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            _end_by(signal.SIGINT)
        if self._noted is None and is_first():
            name, again = (
                signal.Signals(number).name,
                "; Ctrl-C again ends it at once" if number == signal.SIGINT else "",
            )
            # Not by print, which the signal may have interrupted.
            os.write(2, f"\nkvg: {name}: the run finishes its step, saves and ends{again}\n".encode())
        super().note(number, frame)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says where the run begins, since one that came back may print into the same file."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step:
            rank_zero_info("Continuing after step %d.", trainer.global_step)

    def leave(self, trainer: L.Trainer, number: signal.Signals) -> None:
        """Saves, says how to go on, and ends with the exit code of the signal."""
        path = self.save(trainer)
        bar = trainer.progress_bar_callback
        if bar is not None:
            bar.on_exception(trainer, trainer.lightning_module, KeyboardInterrupt())  # gives the cursor back
        if trainer.is_global_zero:
            words = shlex.join([*resumed(self.command), "--ckpt_path", str(path)])
            print(f"kvg: saved after step {trainer.global_step} in {path}; to go on:\n  {words}", file=sys.stderr)
        end(trainer, number)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See ``SaveOnSignal``; a signal that came after the last step is too late to end anything."""
        super().on_fit_end(trainer, pl_module)
        if self._noted is not None:
            rank_zero_info("The run was at its end when the signal came; it is complete.")


def resumed(command: Sequence[str]) -> list[str]:
    """The words of a command without those that say where to begin.

    >>> resumed(["kvg", "fit", "-c", "a.yaml", "--ckpt_path", "old.ckpt", "--overwrite=true"])
    ['kvg', 'fit', '-c', 'a.yaml']
    >>> resumed(["kvg", "fit", "--overwrite", "-c", "a.yaml"])
    ['kvg', 'fit', '-c', 'a.yaml']
    """
    words: list[str] = []
    skip = False
    for word in command:
        if skip:
            skip = False
            if not word.startswith("-"):
                continue
        if word in ("--ckpt_path", "--overwrite"):
            skip = True
        elif not word.startswith(("--ckpt_path=", "--overwrite=")):
            words.append(word)
    return words


def end(trainer: L.Trainer, number: signal.Signals | None = None) -> NoReturn:
    """Ends the process at once: all is on disk, and an orderly end now and then aborts in torch's own threads.

    Args:
        trainer: whose logs are finished.
        number: the signal to end by, Ctrl-C with exit code 130; None ends with 0.
    """
    for logger in trainer.loggers:
        logger.finalize("success")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if number is not None and number != signal.SIGINT:
        _end_by(number)
    os._exit(0 if number is None else 128 + number)


def _end_by(number: signal.Signals) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """After this block the signals do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in ENDING}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
