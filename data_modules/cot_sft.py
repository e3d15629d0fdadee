"""Data of stage 1: composites with rationales, and trait cards replayed as text."""

from __future__ import annotations

from typing import cast

from data_modules.base import BySet, CompositeDataModule
from data_modules.loader import StreamLoader
from data_modules.recipe import Recipe, ReplayText, TextProcessor, check_replay, load_replay
from kvg.batches import Processor
from kvg.errors import ConfigError
from kvg.ranges import check_whole


class CoTSFTDataModule(CompositeDataModule):
    """Samples with their answers for training, prompts for validation (paper section 4.1).

    Args:
        train: folder of shards, or a ShareGPT JSON.
        val: folder of shards or a published file; None for no validation.
        target: ``rationale`` (rationale and answer), ``answer_first`` (the answer before its rationale), or ``answer``
            (direct SFT; use ``mode: direct``).
        mode: prompt mode.
        batch_size: examples per batch and process, including replayed text.
        num_workers: number of processes that make batches.
        seed: seed of all shuffling.
        shuffle_buffer: number of samples held for mixing.
        max_tokens: longer samples are skipped, never truncated, and longer replayed texts raise an error; 4096 in the
            paper, None for no limit.
        replay: file of text-only examples, one JSON object per line; None for none.
        replay_ratio: share of examples that are replayed text.
        box_unit: see ``CompositeDataModule``.
        boxes_of: see ``CompositeDataModule``.

    Raises:
        ConfigError: only one of ``replay`` and ``replay_ratio`` is set, or a number is out of range.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        target: str = "rationale",
        mode: str = "think",
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        shuffle_buffer: int = 1000,
        max_tokens: int | None = None,
        replay: str | None = None,
        replay_ratio: float = 0.0,
        box_unit: BySet = None,
        boxes_of: BySet = "upright",
    ) -> None:
        super().__init__(batch_size, num_workers, seed, box_unit, boxes_of)
        check_whole("data.shuffle_buffer", shuffle_buffer, 0)
        if (replay is None) != (replay_ratio == 0):
            raise ConfigError("data.replay_ratio", "set both replay and replay_ratio, or neither")
        self.train, self.val, self.mode, self.replay = train, val, mode, replay
        self.shuffle_buffer = shuffle_buffer
        self.recipe = Recipe(batch_size, mode, target, max_tokens=max_tokens, replay_ratio=replay_ratio)
        self._texts: list[ReplayText] = []
        self._texts_checked = False

    def setup(self, stage: str) -> None:
        """Opens all sets, so that a wrong path fails before training starts."""
        if stage == "fit":
            self.training_store(self.train, self.recipe)
            self._texts = load_replay(self.replay) if self.replay else []
            self._texts_checked = False
            if self.processor is not None:
                self._check_texts(self.processor)
        if self.val:
            self.store(self.val, "val")

    def train_dataloader(self) -> StreamLoader:
        """Makes the loader of batches with labels."""
        self._check_texts(self._connected())
        return self.train_loader(self.train, self.recipe, self.shuffle_buffer, self._texts)

    def _check_texts(self, processor: Processor) -> None:
        if not self._texts_checked:
            check_replay(self._texts, cast(TextProcessor, processor), self.recipe.max_tokens)
        self._texts_checked = True

    def val_dataloader(self) -> list[StreamLoader]:
        """Makes the loaders of prompts, padded on the left."""
        return self.validation_loaders(self.val, self.mode)
