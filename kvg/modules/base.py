"""Base of both stages: optimizer, sharding, validation, the runner of test and predict, and the export."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from kvg.backbones.backbone import Backbone
from kvg.backbones.sharding import gather_of
from kvg.backbones.soundness import check_weights
from kvg.batches import Batch
from kvg.errors import ConfigError, TrainingError
from kvg.inference.engine import BackboneEngine
from kvg.inference.prediction_runner import PredictionRunner
from kvg.inference.prepared import PreparedBatch
from kvg.inference.rollout_engine import RolloutEngine
from kvg.metrics.iou_accuracy import GroupedIoUAccuracy
from kvg.modules.gradients import check_limit
from kvg.modules.parameter_table import parameter_table
from kvg.modules.precision import check_precision, warn_of_lost_steps, with_float32_numbers
from kvg.modules.run_summary import RunHistory, next_steps
from kvg.modules.trained_state import base_of, save_only_trained
from kvg.modules.validation import GROUPS, Validation
from kvg.ranges import check_number, check_whole
from kvg.rl.sampling import SamplingSettings
from kvg.runs.checkpoint_record import RECORD, keep_epoch_open, record_of, to_plain
from kvg.runs.folder import EXPORT, replaced

_MODE = "kvg_mode"  # key in checkpoints: the prompt mode of the training
_ENGINE = "kvg_engine"


class StageModule(L.LightningModule):
    """Base class of the stages. A ``PredictionRunner`` implements test and prediction.

    Args:
        backbone: the model to train.
        optimizer: constructor, called with the parameters that require a gradient.
        warmup: share of all steps with a linearly rising learning rate.
        schedule: ``cosine`` to zero, or ``constant``.
        max_new_tokens: longest answer in evaluation; in mode ``describe`` per turn.
        export: whether ``fit`` finally writes a Hugging Face folder ``export`` into the run's folder.
    """

    engine: RolloutEngine | None = None  # of stages that sample while they train

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup: float = 0.1,
        schedule: Literal["cosine", "constant"] = "cosine",
        max_new_tokens: int = 512,
        export: bool = True,
    ) -> None:
        super().__init__()
        check_whole("model.max_new_tokens", max_new_tokens, 1)
        check_number("model.warmup", warmup, 0, 1, below=True)
        try:
            optimizer([nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise ConfigError("model.optimizer", f"{error}; correct its init_args") from error
        greedy = SamplingSettings(max_new_tokens=max_new_tokens, temperature=0.0)
        self.backbone, self.metric = backbone, GroupedIoUAccuracy(GROUPS)
        self.validation = Validation(backbone, greedy, self.metric)
        self.runner = PredictionRunner(BackboneEngine(backbone, greedy))
        self._optimizer, self.warmup, self.schedule, self.export = optimizer, warmup, schedule, export
        self._stopped: TrainingError | None = None
        self.history = RunHistory()
        self._lines: list[str] = []
        self.strict_loading = False  # frozen parts are not in a checkpoint
        save_only_trained(self)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._base = ""

    @property
    def mode(self) -> str | None:
        """Prompt mode of the Trainer's data module; None if it has none."""
        mode: str | None = getattr(getattr(self._trainer, "datamodule", None), "mode", None)
        return mode

    # -- evaluation ------------------------------------------------------------------------------------------------
    def configure_callbacks(self) -> Sequence[Callback]:
        """The runner of test and prediction."""
        return [self.runner]

    @with_float32_numbers
    def validation_step(  # type: ignore[override]  # Lightning hands on to callbacks whatever it gets
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> list[dict[str, Any]]:
        """Answers a batch greedily and updates the metric; returns one line per case, see ``Validation.step``."""
        return self.validation.step(batch, self.mode or "", self.trainer.world_size)

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/iou_acc`` and its groups."""
        self.validation.log(self)

    @with_float32_numbers
    def test_step(  # type: ignore[override]  # Lightning hands on to callbacks whatever it gets
        self, batch: PreparedBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> list[dict[str, Any]]:
        """Answers a batch and stores the answers; returns one line per case, for callbacks."""
        return self.runner.lines(batch, batch_idx)

    @with_float32_numbers
    def predict_step(self, batch: PreparedBatch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """Answers a batch and stores the answers; returns one line per case."""
        return self.runner.lines(batch, batch_idx)

    # -- training --------------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Checks precision and gradient clipping.

        Raises:
            ConfigError: see ``check_precision`` and ``check_limit``.
        """
        check_precision(self.trainer.precision, training=stage == "fit")
        if stage == "fit":
            check_limit(self.trainer)
            self._shapes = {name: tuple(value.shape) for name, value in self.named_parameters()}  # not yet sharded
            self._base = base_of(self.backbone)

    def configure_model(self) -> None:
        """Shards the backbone if the strategy has a device mesh (FSDP2); is called again on resume."""
        mesh = self.device_mesh
        if mesh is not None and not self.backbone.sharded:
            self.backbone.shard(mesh["data_parallel"], gather_of(self.trainer.strategy))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer over the trainable parameters, and the schedule by step."""
        trained = [p for p in self.parameters() if p.requires_grad]
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
        """Number of optimizer steps per batch; the Trainer counts one."""
        return 1

    def total_steps(self) -> int:
        """Number of optimizer steps of the whole run.

        Raises:
            ConfigError: the run has no limit.
        """
        batches = self.trainer.estimated_stepping_batches
        if math.isinf(batches):
            raise ConfigError("trainer.max_epochs", "-1 without trainer.max_steps has no end; give one of them")
        total = max(1, int(batches) * self.updates_per_batch())
        return min(total, self.trainer.max_steps) if self.trainer.max_steps > 0 else total

    def on_train_start(self) -> None:
        """Checks the initial weights and sets training mode.

        Loaded weights are in evaluation mode, which disables gradient checkpointing and the dropout of adapters.

        Raises:
            TrainingError: initial weights are not finite.
        """
        origin = self.trainer.ckpt_path or self.backbone.checkpoint
        with self.stopping():
            check_weights(self.backbone, f"start from {origin}", "nothing was trained; choose another checkpoint")
        rank_zero_info("\n".join(parameter_table(self.backbone, self.trainer.optimizers)))
        for optimizer in self.trainer.optimizers:
            warn_of_lost_steps(optimizer)
        self.backbone.train()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds prompt mode and identity of the training to the checkpoint.

        Raises:
            TrainingError: weights are not finite, or a ``TrainingError`` stopped the run; no file is changed.
        """
        checkpoint[_MODE] = self.mode
        data = getattr(self.trainer, "datamodule", None)
        checkpoint[RECORD] = to_plain(record_of(self, data, self.backbone.family.model_type, self._shapes, self._base))
        if self.engine is not None:
            checkpoint[_ENGINE] = self.engine.state_dict()
        keep_epoch_open(checkpoint)
        if self._stopped is not None:  # ModelCheckpoint.save_on_exception
            raise self._stopped
        consequence = "it was not written; go on from an earlier one at a lower learning rate"
        with self.stopping():
            check_weights(self.backbone, f"checkpoint of step {self.global_step}", consequence)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the prompt mode from the checkpoint, and what the engine has learnt."""
        self.backbone.trained_mode = checkpoint.get(_MODE) or self.backbone.trained_mode
        if self.engine is not None and checkpoint.get(_ENGINE):
            self.engine.load_state_dict(checkpoint[_ENGINE])

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """After a ``TrainingError`` in this block, the run writes no further checkpoint."""
        try:
            yield
        except TrainingError as error:
            self._stopped = error
            raise

    def on_train_end(self) -> None:
        """Computes the summary lines over all processes."""
        means = self.history.means(
            lambda values: self.trainer.strategy.reduce(values.to(self.device), reduce_op="mean")
        )
        self._lines = list(self.summary(means)) if means else []

    def summary(self, means: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
        """The summary lines at the end of a run.

        Args:
            means: see ``RunHistory.means``.
        """
        return ()

    def on_fit_end(self) -> None:
        """Exports the trained model, which the next stage can load as its checkpoint, and logs the summary."""
        if getattr(self.trainer, "fast_dev_run", False):
            return
        folder = Path(self.trainer.default_root_dir) / EXPORT
        if self.export:
            with replaced(folder, self.trainer.is_global_zero) as new:
                self.backbone.export(new, self.mode)
        for line in self._lines:
            rank_zero_info(line)
        curves = any(isinstance(logger, TensorBoardLogger) for logger in self.trainer.loggers)
        for line in next_steps(folder if self.export else None, self.trainer.default_root_dir if curves else None):
            rank_zero_info(line)
