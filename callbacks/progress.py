"""A progress bar with the main figures of both stages; plain lines if the output is not a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomTimeColumn
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import ProgressColumn
from torch import Tensor

from kvg.ranges import check_number, check_whole

DEFAULT_KEYS = {  # name on the bar: log key
    "reward": "train/reward/total",
    "IoU reward": "train/reward/iou",
    "no box": "train/unparsed",
    "tokens per answer": "train/completion_length",
    "KL": "train/kl",
    "loss": "train/loss",
    "gradient norm": "train/grad_norm",
    "names right": "train/name_acc",
    "objects picked": "train/pick_acc",
    "validation accuracy": "val/iou_acc",
    "validation names right": "val/name_acc",
    "tokens per second": "train/tokens_per_s",
}
SHARES = (  # shown in percent
    *("train/unparsed", "train/truncated", "train/equal_groups"),
    *("train/name_acc", "train/pick_acc", "val/iou_acc", "val/name_acc"),
)


class StageProgress(RichProgressBar):
    """Shows step, remaining time, reward, answers without a box, loss, gradient norm and validation accuracy in words.

    If the output is a file, as under SLURM, it prints a line every ``line_every_s`` instead of the bar::

        step 16 of 48, 10 min 11 s left: reward 1.73, IoU reward 0.732, no box 3%, tokens per answer 178, ...

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

    @property
    def total_train_batches(self) -> int | float:
        """Number of batches of this epoch; fewer than the data has if ``max_steps`` ends the run within it."""
        trainer, module = self.trainer, self.trainer.lightning_module
        if trainer.max_steps <= 0:
            return trainer.num_training_batches
        loop = trainer.fit_loop.epoch_loop
        done = loop.batch_progress.current.completed if loop.restarting else 0  # of an epoch that is resumed
        done = done if done < trainer.num_training_batches else 0
        steps = self._total(trainer, module) - trainer.global_step
        updates = int(getattr(module, "updates_per_batch", lambda: 1)())
        left = math.ceil(steps * trainer.accumulate_grad_batches / updates)
        return min(trainer.num_training_batches, done + max(0, left))

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        """Without the time of the epoch while training, because ``get_metrics`` has that of the run."""
        columns: list[ProgressColumn] = super().configure_columns(trainer)
        fitting = trainer.state.fn == TrainerFn.FITTING
        return [column for column in columns if not (fitting and isinstance(column, CustomTimeColumn))]

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The logged values of ``keys``, with three significant digits or in percent, by name on the bar."""
        logged = {**trainer.callback_metrics, **trainer.progress_bar_metrics}
        values = {name: _short(logged[key], key) for name, key in self.keys.items() if key in logged}
        if self._plain or not trainer.training or trainer.global_step == self._first_step:
            return values
        return {"time left": duration(self._left(trainer, self._total(trainer, pl_module))), **values}

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
        total = self._total(trainer, pl_module)
        due = monotonic() - self._last_line >= self.line_every_s or trainer.global_step >= total
        if self._plain and due and trainer.is_global_zero:
            self._last_line = monotonic()
            print(self.line(trainer, pl_module, total), flush=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refreshes the bar, or prints the validation's results."""
        super().on_validation_end(trainer, pl_module)
        if self._plain and trainer.is_global_zero and not trainer.sanity_checking:
            print(f"validation: {_results(trainer.callback_metrics)}", flush=True)

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
            print(f"batch {index + 1} of {total:.0f}, {duration(left)} left", flush=True)

    def line(self, trainer: L.Trainer, pl_module: L.LightningModule, total: int) -> str:
        """One line with the step, the remaining time and the logged values."""
        step = trainer.global_step
        is_done = step >= total
        time = (
            f"done in {duration(monotonic() - self._since)}"
            if is_done
            else f"{duration(self._left(trainer, total))} left"
        )
        values = ", ".join(f"{name} {value}" for name, value in self.get_metrics(trainer, pl_module).items())
        return f"step {step} of {total}, {time}: {values}"

    def _left(self, trainer: L.Trainer, total: int) -> float:
        """Remaining seconds of the run, including its validations."""
        step = trainer.global_step
        return (total - step) * (monotonic() - self._since) / max(1, step - self._first_step)

    @staticmethod
    def _total(trainer: L.Trainer, pl_module: L.LightningModule) -> int:
        # A stage may take several optimizer steps per batch; the Trainer counts one.
        return int(getattr(pl_module, "total_steps", lambda: trainer.estimated_stepping_batches)())


def _short(value: Any, key: str) -> str:
    number = float(value.detach()) if isinstance(value, Tensor) else float(value)
    if key.startswith(SHARES):
        return f"{number:.0%}"
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def duration(seconds: float) -> str:
    """A time in the two largest units that are not zero.

    >>> duration(3723.4), duration(611), duration(59.6), duration(7200)
    ('1 h 2 min', '10 min 11 s', '59 s', '2 h')
    """
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    units = ((hours, "h"), (minutes, "min"), (0 if hours else left, "s"))
    return " ".join(f"{value} {unit}" for value, unit in units if value) or "0 s"


def _results(metrics: Mapping[str, Any]) -> str:
    """The results of a validation in words: accuracy and its groups, or the share of names."""
    if "val/name_acc" in metrics:
        return f"names right {_short(metrics['val/name_acc'], 'val/name_acc')}"
    values = {k: _short(v, k) for k, v in metrics.items() if k.startswith("val/iou_acc")}
    groups = [f"{k.removeprefix('val/iou_acc/')} {v}" for k, v in values.items() if k != "val/iou_acc"]
    more = f" ({', '.join(groups)})" if groups else ""
    return f"accuracy {values.get('val/iou_acc', 'unknown')}{more}"
