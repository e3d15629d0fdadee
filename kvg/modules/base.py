"""What both stages share: the optimizer, sharding, and the export at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from kvg.backbones.backbone import Backbone
from kvg.backbones.soundness import check_weights
from kvg.errors import ConfigError, TrainingError
from kvg.modules.gradients import check_limit
from kvg.modules.precision import warn_of_lost_steps
from kvg.modules.questions import QuestionedModule
from kvg.modules.run_summary import RunHistory
from kvg.ranges import check_number
from kvg.runs.checkpoint_record import RECORD, keep_epoch_open, record_of, to_plain
from kvg.runs.folder import EXPORT, replaced


class StageModule(QuestionedModule):
    """Base of the stages.

    Args:
        backbone: the model that is trained.
        optimizer: made from the parameters that require a gradient.
        warmup: share of all steps with a linearly rising learning rate.
        schedule: ``cosine`` to zero, or ``constant``.
        max_new_tokens: longest answer in evaluation.
        export: whether ``fit`` writes a Hugging Face folder ``export`` into the run's folder at its end.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup: float = 0.1,
        schedule: Literal["cosine", "constant"] = "cosine",
        max_new_tokens: int = 512,
        export: bool = True,
    ) -> None:
        super().__init__(backbone, max_new_tokens)
        check_number("model.warmup", warmup, 0, 1, below=True)
        try:
            optimizer([nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise ConfigError("model.optimizer", f"{error}; correct its init_args") from error
        self._optimizer, self.warmup, self.schedule, self.export = optimizer, warmup, schedule, export
        self._stopped: TrainingError | None = None
        self.history = RunHistory()
        self._lines: list[str] = []
        self.strict_loading = False  # frozen parts need not be in a checkpoint
        self._shapes: dict[str, tuple[int, ...]] = {}

    # -- training --------------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Refuses a precision or a limit of gradients that cannot work.

        Raises:
            ConfigError: see ``check_precision`` and ``check_limit``.
        """
        super().setup(stage)
        if stage == "fit":
            check_limit(self.trainer)
            self._shapes = {name: tuple(value.shape) for name, value in self.named_parameters()}  # not yet sharded

    def configure_model(self) -> None:
        """Shards the backbone where the strategy brings a device mesh (FSDP2); runs again on resume."""
        mesh = self.device_mesh
        if mesh is not None and not self.backbone.sharded:
            self.backbone.shard(mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer over what is trained, and the schedule by step."""
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        if not trained:
            raise ConfigError("backbone", "everything is frozen; unfreeze a part or add lora")
        optimizer = self._optimizer(trained)
        total = self.total_steps()
        rising = round(self.warmup * total)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            share = (step - rising) / max(1, total - rising)
            return 1.0 if self.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def updates_per_batch(self) -> int:
        """Optimizer steps that follow a batch; the Trainer counts one."""
        return 1

    def total_steps(self) -> int:
        """Optimizer steps of the whole run.

        Raises:
            ConfigError: it has no end.
        """
        batches = self.trainer.estimated_stepping_batches
        if math.isinf(batches):
            raise ConfigError("trainer.max_epochs", "-1 without trainer.max_steps has no end; give one of them")
        total = max(1, int(batches) * self.updates_per_batch())
        return min(total, self.trainer.max_steps) if self.trainer.max_steps > 0 else total

    def on_train_start(self) -> None:
        """Weights from a folder come in evaluation mode, in which no activation is recomputed and no adapter drops.

        Raises:
            TrainingError: the run would begin with weights that are not finite.
        """
        super().on_train_start()
        origin = self.trainer.ckpt_path or self.backbone.checkpoint
        with self.stopping():
            check_weights(self.backbone, f"start from {origin}", "nothing was trained; choose another checkpoint")
        for optimizer in self.trainer.optimizers:
            warn_of_lost_steps(optimizer)
        self.backbone.train()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds which training it is of. Refuses weights that are not finite, or those of a stopped run.

        Raises:
            TrainingError: weights are not finite, or led to what is not; the files are as they were.
        """
        super().on_save_checkpoint(checkpoint)
        data = getattr(self.trainer, "datamodule", None)
        checkpoint[RECORD] = to_plain(record_of(self, data, self.backbone.family.model_type, self._shapes))
        keep_epoch_open(checkpoint)
        if self._stopped is not None:  # ModelCheckpoint.save_on_exception
            raise self._stopped
        consequence = "it was not written; go on from an earlier one at a lower learning rate"
        with self.stopping():
            check_weights(self.backbone, f"checkpoint of step {self.global_step}", consequence)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """After a ``TrainingError`` within this block nothing of this run is saved any more."""
        try:
            yield
        except TrainingError as error:
            self._stopped = error
            raise

    def on_train_end(self) -> None:
        """Sums up what was learnt, in all processes together."""
        means = self.history.means(
            lambda values: self.trainer.strategy.reduce(values.to(self.device), reduce_op="mean")
        )
        self._lines = list(self.summary(means)) if means else []

    def summary(self, means: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
        """Lines that the run ends with.

        Args:
            means: of ``RunHistory.means``.
        """
        return ()

    def on_fit_end(self) -> None:
        """Writes the trained model where the next stage can name it as its checkpoint, and says what was learnt."""
        if getattr(self.trainer, "fast_dev_run", False):
            return
        folder = Path(self.trainer.default_root_dir) / EXPORT
        if self.export:
            with replaced(folder, self.trainer.is_global_zero) as new:
                self.backbone.export(new, self.mode)
        for line in self._lines:
            rank_zero_info(line)
        if self.export:
            rank_zero_info("The trained model is in %s.", folder)
