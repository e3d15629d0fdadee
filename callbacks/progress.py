"""A progress bar with the main figures of both stages; plain lines if the output is not a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from torch import Tensor

from kvg.ranges import check_number, check_whole

DEFAULT_KEYS = {  # name on the bar: log key
    "loss": "train/loss",
    "reward": "train/reward/total",
    "iou": "train/reward/iou",
    "kl": "train/kl",
    "length": "train/completion_length",
    "val acc": "val/iou_acc",
    "tokens/s": "train/tokens_per_s",
}


class StageProgress(RichProgressBar):
    """Shows loss, reward and its IoU part, KL, completion length, validation accuracy and tokens per second.

    If the output is a file, as under SLURM, it prints a line every ``line_every_s`` instead of the bar.

    Args:
        keys: log key by the name on the bar; keys that this stage does not log are omitted. None = ``DEFAULT_KEYS``.
        line_every_s: seconds between two lines if the output is not a terminal.
        refresh_rate: steps between two refreshes of the bar; 0 = neither bar nor lines.
    """

    def __init__(self, keys: dict[str, str] | None = None, line_every_s: float = 30.0, refresh_rate: int = 1) -> None:
        check_number("callbacks.StageProgress.line_every_s", line_every_s, 0)
        check_whole("callbacks.StageProgress.refresh_rate", refresh_rate, 0)
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self.keys: Mapping[str, str] = DEFAULT_KEYS if keys is None else keys
        self.line_every_s = line_every_s
        self._plain = refresh_rate > 0 and not Console().is_terminal
        self._since, self._first_step, self._last_line = 0.0, 0, -line_every_s
        if self._plain:
            self.disable()

    @property
    def is_enabled(self) -> bool:
        """Whether the bar is drawn."""
        return super().is_enabled and not self._plain

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The logged values of ``keys``, with three significant digits, by name on the bar."""
        logged = {**trainer.callback_metrics, **trainer.progress_bar_metrics}
        return {name: _short(logged[key]) for name, key in self.keys.items() if key in logged}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        super().on_train_start(trainer, pl_module)
        self._since, self._first_step = monotonic(), trainer.global_step
        self._last_line = self._since

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refreshes the bar, or prints a line when one is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # A stage may take several optimizer steps per batch; the Trainer counts one.
        total = int(getattr(pl_module, "total_steps", lambda: trainer.estimated_stepping_batches)())
        due = monotonic() - self._last_line >= self.line_every_s or trainer.global_step >= total
        if self._plain and due and trainer.is_global_zero:
            self._last_line = monotonic()
            print(self.line(trainer, pl_module, total), flush=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refreshes the bar, or prints the validation's results."""
        super().on_validation_end(trainer, pl_module)
        if self._plain and trainer.is_global_zero and not trainer.sanity_checking:
            values = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/iou_acc")}
            print("validation  " + "  ".join(f"{k[4:]} {_short(v)}" for k, v in values.items()), flush=True)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Refreshes the bar, or prints a line when one is due."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._print_batch_line(trainer, batch_idx, trainer.num_test_batches)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Refreshes the bar, or prints a line when one is due."""
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._print_batch_line(trainer, batch_idx, trainer.num_predict_batches)

    def _print_batch_line(self, trainer: L.Trainer, index: int, totals: Sequence[float]) -> None:
        if not self._plain or not trainer.is_global_zero:
            return
        now, total = monotonic(), sum(totals)
        if index == 0:
            self._since = self._last_line = now
        elif now - self._last_line >= self.line_every_s:
            self._last_line = now
            left = (total - index - 1) * (now - self._since) / index
            print(f"batch {index + 1}/{total:.0f}  {_clock_time(left)} left", flush=True)

    def line(self, trainer: L.Trainer, pl_module: L.LightningModule, total: int) -> str:
        """One line with the step, the logged values and the remaining time."""
        step = trainer.global_step
        seconds = monotonic() - self._since
        left = (total - step) * seconds / max(1, step - self._first_step)
        values = "  ".join(f"{k} {v}" for k, v in self.get_metrics(trainer, pl_module).items())
        return f"step {step}/{total}  {values}  {_clock_time(left)} left"


def _short(value: Any) -> str:
    number = float(value.detach()) if isinstance(value, Tensor) else float(value)
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _clock_time(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _clock_time(3723.4)
    '1:02:03'
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
