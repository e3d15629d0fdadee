"""What both stages share: the backbone, the optimizer, sharding, evaluation by sampling, and the export at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from kvg.backbones.answers import answered_box, completion_texts
from kvg.backbones.base import Backbone
from kvg.boxes import MISSING_BOX, iou
from kvg.errors import ConfigError
from kvg.lab.traits import CATEGORIES
from kvg.metrics.iou_accuracy import IoUAccuracy
from kvg.rl.rollout import SamplingSettings, rollout
from kvg.text.prompts import PROMPTS
from kvg.types import Batch, Box, Sample

GROUPS = {"split": ("seen", "unseen"), "knowledge": ("known", "unknown"), "category": CATEGORIES}
EXPORT = "export"  # folder beside the logs that receives the trained model


class StageModule(L.LightningModule):
    """Base of the stages.

    Args:
        backbone: the model that is trained.
        optimizer: made from the parameters that require a gradient.
        warmup: share of all steps with a linearly rising learning rate.
        schedule: ``cosine`` to zero, or ``constant``.
        mode: prompt mode in evaluation, a key of ``kvg.text.prompts.PROMPTS``.
        max_new_tokens: longest answer in evaluation.
        export: whether ``fit`` writes a Hugging Face folder ``export`` into the run's folder at its end.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup: float = 0.1,
        schedule: Literal["cosine", "constant"] = "cosine",
        mode: str = "think",
        max_new_tokens: int = 512,
        export: bool = True,
    ) -> None:
        super().__init__()
        if mode not in PROMPTS:
            raise ConfigError("model.mode", f"'{mode}' is not one of {', '.join(PROMPTS)}")
        if not 0 <= warmup < 1:
            raise ConfigError("model.warmup", f"{warmup} is not a share of the steps; give 0 to below 1")
        try:
            optimizer([nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise ConfigError("model.optimizer", f"{error}; correct its init_args") from error
        self.backbone, self._optimizer, self.warmup, self.schedule = backbone, optimizer, warmup, schedule
        self.mode, self.export = mode, export
        self.sampling = SamplingSettings(max_new_tokens=max_new_tokens, temperature=0.0)
        self.metric = IoUAccuracy(GROUPS)
        self.strict_loading = False  # frozen parts need not be in a checkpoint
        self._lines: list[str] = []

    # -- training --------------------------------------------------------------------------------------------------
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
        """Optimizer steps of the whole run."""
        total = max(1, int(self.trainer.estimated_stepping_batches) * self.updates_per_batch())
        return min(total, self.trainer.max_steps) if self.trainer.max_steps > 0 else total

    def on_train_start(self) -> None:
        """Weights from a folder come in evaluation mode, in which no activation is recomputed and no adapter drops."""
        self.backbone.train()

    def on_fit_end(self) -> None:
        """Writes the trained model where the next stage can name it as its checkpoint."""
        if self.export and not getattr(self.trainer, "fast_dev_run", False):
            self.backbone.export(Path(self.trainer.default_root_dir) / EXPORT)

    # -- evaluation ------------------------------------------------------------------------------------------------
    def answer(self, batch: Batch) -> tuple[list[str], list[Box | None]]:
        """Greedy answers to a batch of prompts, and the boxes read from them, in pixels of the stored pictures."""
        out = rollout(self.backbone, batch, self.sampling)
        texts = self.decode(out.tokens, out.completion_mask)
        boxes = [self.read_box(text, sample) for text, sample in zip(texts, batch["samples"], strict=True)]
        return texts, boxes

    def decode(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """Texts of completions ``[N, T]``; box tokens and the like stay, the end of the turn goes."""
        return completion_texts(self.backbone, tokens, mask)

    def read_box(self, text: str, sample: Sample) -> Box | None:
        """The answered box in pixels of the stored picture; None where there is none."""
        return answered_box(self.backbone, text, sample)

    def _evaluate(self, batch: Batch) -> list[dict[str, Any]]:
        texts, boxes = self.answer(batch)
        if batch.get("padding"):  # a repetition that keeps this process in step with the others
            return []
        samples: Sequence[Sample] = batch["samples"]
        groups = [{"split": s.split, "knowledge": s.knowledge} for s in samples]
        for group, sample in zip(groups, samples, strict=True):
            if sample.category in CATEGORIES:
                group["category"] = sample.category
        self.metric.update(boxes, [s.box_px for s in samples], groups)
        truth = torch.tensor([s.box_px for s in samples])
        overlaps = iou(torch.tensor([box or MISSING_BOX for box in boxes]), truth).tolist()
        return [
            {
                "key": s.key,
                "category": s.category,
                "split": s.split,
                "knowledge": s.knowledge,
                "entity": s.entity,
                "text": text,
                "box_px": box,
                "target_px": s.box_px,
                "iou": overlap,
            }
            for s, text, box, overlap in zip(samples, texts, boxes, overlaps, strict=True)
        ]

    def validation_step(  # type: ignore[override]  # Lightning hands on to callbacks whatever it gets
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> list[dict[str, Any]]:
        """Answers greedily and counts; one record per case, for callbacks to show."""
        return self._evaluate(batch)

    def test_step(  # type: ignore[override]  # Lightning hands on to callbacks whatever it gets
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> list[dict[str, Any]]:
        """Answers greedily, counts, and keeps a line per case; returns the records, for callbacks to show."""
        records = self._evaluate(batch)
        self._lines += [json.dumps(record) for record in records]
        return records

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """Answers greedily; one record per case."""
        return self._evaluate(batch)

    def _log_metric(self, stage: str) -> None:
        for name, value in self.metric.compute().items():
            kind, _, group = name.partition("/")
            short = f"{stage}/{'iou_acc' if kind == 'acc' else kind}"
            self.log(f"{short}/{group.partition('=')[2]}" if group else short, value.float(), sync_dist=False)
        self.metric.reset()

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/iou_acc`` and its groups."""
        self._log_metric("val")

    def on_test_epoch_end(self) -> None:
        """Logs ``test/iou_acc`` and writes ``predictions.jsonl``, a line per case, into the run's folder."""
        self._log_metric("test")
        lines, self._lines = gathered(self._lines), []
        if self.trainer.is_global_zero:
            path = Path(self.trainer.default_root_dir) / "predictions.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def gathered(lines: list[str]) -> list[str]:
    """The lines of all processes, which took turns with the samples, in the order of the samples."""
    if not (dist.is_available() and dist.is_initialized()):
        return lines
    shares: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(shares, lines)
    return [line for turn in zip_longest(*shares) for line in turn if line is not None]
