"""Greedy answers, and what they are worth in the midst of training."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor

from kvg.backbones.answers import answered_box, completion_texts, completions
from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.errors import ConfigError
from kvg.evaluation.records.question import Question
from kvg.lab.traits import CATEGORIES
from kvg.metrics.iou_accuracy import IoUAccuracy
from kvg.modules.guard import SharedFault
from kvg.modules.precision import with_float32_numbers
from kvg.ranges import check_whole
from kvg.rl.rollout import SamplingSettings, rollout
from kvg.types import Box, Completion, Sample

GROUPS = {"split": ("seen", "unseen"), "knowledge": ("known", "unknown"), "category": CATEGORIES}
_MODE = "kvg_mode"  # in a checkpoint: the prompt mode of the training that it comes from


class EvaluatedModule(L.LightningModule):
    """Answers greedily, and counts over batches of ``kvg.types.Sample`` in validation.

    Args:
        backbone: the model.
        max_new_tokens: longest answer.
    """

    def __init__(self, backbone: Backbone, max_new_tokens: int) -> None:
        super().__init__()
        check_whole("model.max_new_tokens", max_new_tokens, 1)
        self.backbone = backbone
        self.sampling = SamplingSettings(max_new_tokens=max_new_tokens, temperature=0.0)
        self.metric = IoUAccuracy(GROUPS)
        self._fault = SharedFault()

    @property
    def mode(self) -> str | None:
        """Prompt mode of the data that the Trainer feeds; None where it has none."""
        found: str | None = getattr(getattr(self._trainer, "datamodule", None), "mode", None)
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds how the model is trained to be asked."""
        checkpoint[_MODE] = self.mode

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up how it was."""
        self.backbone.trained_mode = checkpoint.get(_MODE) or self.backbone.trained_mode

    # -- texts and boxes -------------------------------------------------------------------------------------------
    def decode(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """Texts of completions ``[N, T]``; box tokens and the like stay, the end of the turn goes."""
        return completion_texts(self.backbone, tokens, mask)

    def read_box(self, text: str, sample: Sample) -> Box | None:
        """The answered box in pixels of the stored picture; None where there is none."""
        return answered_box(self.backbone, text, sample)

    def answer(self, batch: Batch) -> list[Completion]:
        """Greedy answers to a batch of prompts."""
        return completions(self.backbone, rollout(self.backbone, batch, self.sampling))

    def _line(self, question: Question, said: Completion, mode: str, description: str | None = None) -> dict[str, Any]:
        size = self.backbone.processor.image_size(question.sample.width, question.sample.height)
        return question.line(
            said.text, mode, self.backbone.codec, size, said.num_tokens, said.finish_reason, description
        )

    # -- in the midst of training ----------------------------------------------------------------------------------
    @with_float32_numbers
    def validation_step(  # type: ignore[override]  # Lightning hands on to callbacks whatever it gets
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> list[dict[str, Any]]:
        """Answers greedily and counts; one line per case (``kvg.evaluation.records.prediction``), for callbacks.

        Raises:
            ConfigError: a sample is a question of several choices.
            TrainingError: logits are not finite.
        """
        said: list[Completion] | None = None
        with self._fault.kept(self._ends_at_once):
            said = self.answer(batch)
        if said is None or batch.padding:  # a repetition that keeps this process in step with the others
            return []
        samples = batch.samples
        if any(Question(sample).options for sample in samples):
            raise ConfigError("data.val", "holds questions of several choices; ask them by `kvg test`")
        groups = [{"split": s.split, "knowledge": s.knowledge} for s in samples]
        for group, sample in zip(groups, samples, strict=True):
            if sample.category in CATEGORIES:
                group["category"] = sample.category
        boxes = [self.read_box(one.text, sample) for one, sample in zip(said, samples, strict=True)]
        self.metric.update(boxes, [s.box_px for s in samples], groups)
        return [self._line(Question(s), one, self.mode or "") for s, one in zip(samples, said, strict=True)]

    @property
    def _ends_at_once(self) -> bool:
        """Whether no process waits for one that leaves: there is but one, or a sharded model tells all of them."""
        return self.trainer.world_size == 1 or self.backbone.sharded

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/iou_acc`` and its groups.

        Raises:
            TrainingError: logits were not finite in one of the processes.
        """
        self._fault.end(self.trainer.world_size)
        for name, value in self.metric.compute().items():
            kind, _, group = name.partition("/")
            short = f"val/{'iou_acc' if kind == 'acc' else kind}"
            self.log(f"{short}/{group.partition('=')[2]}" if group else short, value.float(), sync_dist=False)
        self.metric.reset()
