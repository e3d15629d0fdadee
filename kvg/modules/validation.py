"""Validation during training: greedy answers and their metrics."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch.distributed as dist
from torch import Tensor

from kvg.backbones.answers import completions, read_answers
from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.benchmark import KNOWLEDGE, SPLITS
from kvg.boxes import box_rows
from kvg.errors import ConfigError
from kvg.evaluation.records.question import Question
from kvg.inference.shared_fault import SharedFault
from kvg.metrics.iou_accuracy import GroupedIoUAccuracy
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.types import Completion, Sample

GROUPS = {"split": SPLITS, "knowledge": KNOWLEDGE}


class Validation:
    """Answers batches of ``kvg.types.Sample`` greedily, and updates metrics.

    Categories are collected from the samples of all processes at the end of an epoch.

    Args:
        backbone: the model.
        sampling: settings of generation.
        metric: a submodule of the LightningModule, so that it is moved to its device.
    """

    def __init__(self, backbone: Backbone, sampling: SamplingSettings, metric: GroupedIoUAccuracy) -> None:
        self.backbone, self.sampling, self.metric = backbone, sampling, metric
        self._fault = SharedFault()
        self._cases: list[tuple[Tensor, Tensor, list[str]]] = []  # boxes, true boxes and categories of each batch

    def answer(self, batch: Batch) -> list[Completion]:
        """Greedy answers to a batch of prompts."""
        return completions(self.backbone, rollout(self.backbone, batch, self.sampling))

    def step(self, batch: Batch, mode: str, world_size: int) -> list[dict[str, Any]]:
        """Answers a batch and updates the metric.

        Args:
            batch: prompts with their samples.
            mode: prompt mode, for the lines.
            world_size: number of processes.

        Returns:
            One line per case (``kvg.evaluation.records.prediction``); none for a repeated batch.

        Raises:
            ConfigError: a sample is a multiple-choice question.
            TrainingError: logits are not finite.
        """
        answers: list[Completion] | None = None
        with self._fault.kept(world_size == 1 or self.backbone.sharded):
            answers = self.answer(batch)
        if answers is None or batch.padding:  # a repeated batch that keeps the processes synchronized
            return []
        samples = batch.samples
        if any(Question(sample).options for sample in samples):
            raise ConfigError("data.val", "holds multiple-choice questions; evaluate them with `kvg test`")
        groups = [{"split": s.split, "knowledge": s.knowledge} for s in samples]
        boxes = box_rows([answer.box_px for answer in read_answers(self.backbone, answers, samples)])
        target = box_rows([s.box_px for s in samples])
        self.metric.update(boxes, target, groups)
        self._cases.append((boxes, target, [s.category for s in samples]))
        return [self._line(sample, one, mode) for sample, one in zip(samples, answers, strict=True)]

    def log(self, module: L.LightningModule) -> None:
        """Logs ``val/iou_acc`` and its groups, and resets the metric.

        Raises:
            TrainingError: logits were not finite in one of the processes.
        """
        self._fault.end(module.trainer.world_size)
        for name, value in {**self.metric.compute(), **self._by_category(module)}.items():
            kind, _, group = name.partition("/")
            short = f"val/{'iou_acc' if kind == 'acc' else kind}"
            module.log(f"{short}/{group.partition('=')[2]}" if group else short, value.float(), sync_dist=False)
        self.metric.reset()
        self._cases.clear()

    def _by_category(self, module: L.LightningModule) -> dict[str, Tensor]:
        """Values such as ``acc/category=bird``, the same in all processes."""
        own = {category for _, _, categories in self._cases for category in categories}
        shares: list[set[str]] = [own]
        if module.trainer.world_size > 1:
            shares = [own] * module.trainer.world_size
            dist.all_gather_object(shares, own)
        metric = GroupedIoUAccuracy({"category": sorted(set().union(*shares))}).to(module.device)
        for boxes, target, categories in self._cases:
            metric.update(boxes, target, [{"category": category} for category in categories])
        return {name: value for name, value in metric.compute().items() if "/" in name}

    def _line(self, sample: Sample, answer: Completion, mode: str) -> dict[str, Any]:
        size = self.backbone.processor.image_size(sample.width, sample.height)
        codec = self.backbone.codec
        return Question(sample).line(answer.text, mode, codec, size, answer.num_tokens, answer.finish_reason)
