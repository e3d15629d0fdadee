"""The engine that answers prepared batches with a backbone in this process."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from kvg.backbones.answers import completions, plain_texts
from kvg.backbones.backbone import Backbone
from kvg.backbones.fingerprint import fingerprint, saved_fingerprint
from kvg.batches import Batch
from kvg.inference.batch_runner import RequestJob
from kvg.inference.prepared import PreparedBatch, PreparedBatches
from kvg.inference.request import Answers, Request
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.prompts import PromptFormat


class BackboneEngine:
    """Answers prepared batches, in one process and under every strategy.

    Args:
        backbone: the model.
        sampling: sampling settings; temperature 0 is greedy.
    """

    def __init__(self, backbone: Backbone, sampling: SamplingSettings) -> None:
        self.backbone, self.sampling = backbone, sampling

    @property
    def takes_starts(self) -> bool:
        """True: the prompt of a backbone can end with the start of its answer."""
        return True

    @property
    def codec(self) -> BoxCodec:
        """The box convention of the answers."""
        return self.backbone.codec

    @property
    def prompt_format(self) -> PromptFormat:
        """Marks around names in a question."""
        return self.backbone.processor.prompt_format

    def image_size(self, width: int, height: int) -> ImageSize:
        """Both sizes of a picture: as stored, and as the model sees it."""
        return self.backbone.processor.image_size(width, height)

    def meets_alike(self) -> bool:
        """Whether an error in one process occurs in all processes."""
        return self.backbone.sharded

    def settings(self, trainer: L.Trainer) -> dict[str, Any]:
        """The settings that determine the answers, as JSON data."""
        backbone, saved = self.backbone, trainer.ckpt_path
        processor = backbone.processor
        return {
            "backbone": backbone.family.model_type,
            "checkpoint": fingerprint(backbone.checkpoint) or backbone.checkpoint,
            "ckpt_path": saved_fingerprint(str(saved)) if saved else None,
            "lora": dataclasses.asdict(backbone.lora) if backbone.lora else None,
            "dtype": str(next(backbone.parameters()).dtype),
            "precision": str(trainer.precision),
            "pixels": [processor.min_pixels, processor.max_pixels],
            "max_new_tokens": self.sampling.max_new_tokens,
        }

    def origin(self, trainer: L.Trainer) -> dict[str, Any]:
        """The paths of the weights as metadata; they do not affect the answers."""
        saved = trainer.ckpt_path
        return {"checkpoint": self.backbone.checkpoint, "ckpt_path": str(saved) if saved else None}

    def summary(self) -> str:
        """'': there is no usage to report."""
        return ""

    def loader(self, job: RequestJob, share: Sequence[tuple[int, bool]]) -> DataLoader[PreparedBatch]:
        """The batches of a share, tokenised and padded."""
        return PreparedBatches(job.batches, self.backbone.processor, share).loader(job.num_workers)

    def answer(self, batch: PreparedBatch, seed: str) -> Iterator[Answers]:
        """Answers to the usable requests of a batch, in order.

        All processes of a sharded model must call this equally often, also for batches without a usable request.

        Args:
            batch: see ``kvg.inference.prepared.PreparedBatches``.
            seed: of this batch.

        Raises:
            TrainingError: logits are not finite.
        """
        requests: Sequence[Request] = batch["requests"]
        inputs = batch["inputs"].to(self.backbone.device)
        first_turns: list[str | None] = [None] * len(requests)
        if len(batch["examples"]):
            first_turns = [*plain_texts(self.backbone, rollout(self.backbone, inputs, self.sampling))]
            inputs = self._second_turn(batch, [text or "" for text in first_turns])
        group = max((request.num for request in requests), default=1)
        # On the CPU whatever the device: the same random numbers everywhere.
        generator = torch.Generator().manual_seed(
            int.from_bytes(hashlib.sha256(f"{seed}/{batch['number']}".encode()).digest()[:7], "big")
        )
        sampled = completions(self.backbone, rollout(self.backbone, inputs, self.sampling, group, generator))
        for row, (request, first_turn) in enumerate(zip(requests, first_turns, strict=False)):
            yield Answers(tuple(sampled[row * group : row * group + request.num]), first_turn)

    def _second_turn(self, batch: PreparedBatch, first_turns: Sequence[str]) -> Batch:
        processor = self.backbone.processor
        examples = list(batch["examples"])
        for row, request in enumerate(batch["requests"]):
            turns = [request.text, first_turns[row], request.second_turn]
            examples[row] = processor.encode_chat(request.key, examples[row].pictures, turns)
        return processor.collate(examples, batch["samples"], pad_left=True).to(self.backbone.device)
