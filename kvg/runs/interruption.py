"""Saves and ends a run on a signal: it finishes the step, saves a checkpoint, and prints the command to resume.

Lightning acts inside the signal handler, at any point of the code: the current batch is lost, weights may be partly
updated, and processes at different points wait for each other. Here the handler only records the signal. After each
optimizer step, and during validation, all processes agree on whether one of them has received a signal.
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
    """On a signal, saves a checkpoint after the current step and ends, in all processes together.

    The checkpoint is written to ``default_root_dir``. It replaces earlier ones of its kind, and is removed when the fit
    is finished.

    Args:
        signals: signals to handle. A signal that is ignored at the start (``nohup``, background jobs) stays ignored.
        pattern: pattern of the checkpoint's name, with ``*`` for the step.
    """

    def __init__(self, signals: Sequence[signal.Signals], pattern: str) -> None:
        self.signals, self.pattern = tuple(signals), pattern
        self._noted: signal.Signals | None = None
        self._last_step = -1
        self._validation_is_due = False  # in the checkpoint that is being saved
        self._before: dict[signal.Signals, Any] = {}

    @property
    def enabled(self) -> bool:
        """Returns whether the callback is active."""
        return True

    # -- signals ---------------------------------------------------------------------------------------------------
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Installs the signal handlers, before and again after Lightning does."""
        quick = bool(getattr(trainer, "fast_dev_run", False))
        if stage != "fit" or quick or not self.enabled or threading.current_thread() is not threading.main_thread():
            return
        signals = [one for one in self.signals if signal.getsignal(one) != signal.SIG_IGN]
        self._before = {one: signal.getsignal(one) for one in signals}
        connector = trainer._signal_connector
        register = connector.register_signal_handlers

        def install() -> None:
            for one in signals:
                signal.signal(one, self.note)

        def register_and_install() -> None:
            register()
            install()  # Lightning's SIGTERM handler would wait for other processes in mid-step

        install()
        connector.register_signal_handlers = register_and_install  # type: ignore[method-assign]

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restores the earlier signal handlers."""
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: records the first one."""
        self._noted = self._noted or signal.Signals(number)

    # -- when to leave ---------------------------------------------------------------------------------------------
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Records the step at which the run begins."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Checks for signals after an optimizer step only, since checkpoints have no partly accumulated gradients."""
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
        """Checks for signals during validation; the resumed run repeats the validation."""
        if not self.enabled or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        number = self._agreed(trainer)
        if number is not None:
            self._validation_is_due = True
            self.leave(trainer, number)
            self._validation_is_due = False

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes the checkpoints of this callback when the run is finished."""
        if trainer.is_global_zero and self.enabled:
            remove(checkpoints(Path(trainer.default_root_dir), self.pattern))

    def _agreed(self, trainer: L.Trainer) -> signal.Signals | None:
        """Returns the signal that any process has recorded; the first in ``signals`` if they differ."""
        noted, self._noted = self._noted, None
        if trainer.world_size == 1:
            return noted
        flags = torch.tensor([float(noted == one) for one in self.signals], device=trainer.strategy.root_device)
        total = trainer.strategy.reduce(flags, reduce_op="sum")
        return next((one for one, num in zip(self.signals, total.tolist(), strict=True) if num), None)

    # -- leaving ---------------------------------------------------------------------------------------------------
    def leave(self, trainer: L.Trainer, number: signal.Signals) -> None:
        """Called in all processes after the step; it does not return if the run has to end.

        Args:
            trainer: the Trainer.
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
            os.replace(partial, path)  # atomic, so the checkpoint is complete even if the process is killed now
            remove(old for old in before if old != path)
        return path

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Makes the resumed run repeat a validation that was due or interrupted; Lightning would skip it."""
        if not self._validation_is_due:
            return
        loops = checkpoint["loops"]["fit_loop"]
        for counts in (loops["epoch_loop.batch_progress"]["total"], loops["epoch_loop.batch_progress"]["current"]):
            counts["completed"] = counts["processed"]
        # Lightning resumes a validation with a batch that is started and not processed.
        validation = loops["epoch_loop.val_loop.batch_progress"]
        for counts, done in ((validation["total"], validation["total"]["processed"]), (validation["current"], 0)):
            counts.update(ready=done + 1, started=done + 1, processed=done, completed=done)
        validation["is_last_batch"] = False


class Interruption(SaveOnSignal):
    """On Ctrl-C or a termination signal, the run saves, prints the command to resume, and ends.

    A second Ctrl-C ends it at once. If the signal comes after the last step, the run is completed first.

    Args:
        command: command of the run, program first.
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
            # Not print, which is not reentrant and may have been interrupted by the signal.
            os.write(2, f"\nkvg: {name}: the run finishes its step, saves and ends{again}\n".encode())
        super().note(number, frame)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the first step, since a resumed run may log to the same file."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step:
            rank_zero_info("Continuing after step %d.", trainer.global_step)

    def leave(self, trainer: L.Trainer, number: signal.Signals) -> None:
        """Saves, prints the command to resume, and ends with the exit code of the signal."""
        self.save_and_report(trainer)
        end(trainer, number)

    def save_and_report(self, trainer: L.Trainer) -> None:
        """Saves in all processes, and prints the command that continues the run."""
        path = self.save(trainer)
        bar = trainer.progress_bar_callback
        if bar is not None:
            bar.on_exception(trainer, trainer.lightning_module, KeyboardInterrupt())  # restores the cursor
        if trainer.is_global_zero:
            words = shlex.join([*resumed(self.command), "--ckpt_path", str(path)])
            print(f"kvg: saved after step {trainer.global_step} in {path}; to go on:\n  {words}", file=sys.stderr)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See ``SaveOnSignal``; a signal after the last step has no effect."""
        super().on_fit_end(trainer, pl_module)
        if self._noted is not None:
            rank_zero_info("The signal came after the last step; the run is complete.")


def resumed(command: Sequence[str]) -> list[str]:
    """Returns a command without its options ``--ckpt_path`` and ``--overwrite``.

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
    """Ends the process at once. All files are written, and a normal exit sometimes aborts in threads of torch.

    Args:
        trainer: the Trainer, whose loggers are finalized.
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
    """Restores the signal handlers after the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in ENDING}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
