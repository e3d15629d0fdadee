"""Data of stage 2: only prompts; the policy generates the completions."""

from __future__ import annotations

from data_modules.base import BySet, CompositeDataModule
from data_modules.loader import StreamLoader
from data_modules.recipe import Recipe
from kvg.ranges import check_whole


class GRPODataModule(CompositeDataModule):
    """Prompts, padded on the left (paper section 4.2).

    Args:
        train: folder of shards, usually filtered by difficulty, or a GRPO parquet.
        val: folder of shards or a published file; None for no validation.
        mode: prompt mode.
        batch_size: prompts per batch and process; each gets ``group_size`` completions.
        num_workers: number of processes that make batches.
        seed: seed of all shuffling.
        shuffle_buffer: number of samples held for mixing.
        max_tokens: longer prompts are skipped, never truncated; 1024 in the paper (v2), None for no limit.
        box_unit: see ``CompositeDataModule``.
        boxes_of: see ``CompositeDataModule``.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        mode: str = "think",
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        shuffle_buffer: int = 1000,
        max_tokens: int | None = None,
        box_unit: BySet = None,
        boxes_of: BySet = "upright",
    ) -> None:
        super().__init__(batch_size, num_workers, seed, box_unit, boxes_of)
        check_whole("data.shuffle_buffer", shuffle_buffer, 0)
        self.train, self.val, self.mode, self.shuffle_buffer = train, val, mode, shuffle_buffer
        self.recipe = Recipe(batch_size, mode, target=None, pad_left=True, max_tokens=max_tokens)

    def setup(self, stage: str) -> None:
        """Opens all sets, so that a wrong path fails before training starts."""
        if stage == "fit":
            self.training_store(self.train, self.recipe)
        if self.val:
            self.store(self.val, "val")

    def train_dataloader(self) -> StreamLoader:
        """Makes the loader of prompts in shuffled order."""
        return self.train_loader(self.train, self.recipe, self.shuffle_buffer)

    def val_dataloader(self) -> list[StreamLoader]:
        """Makes the loaders of prompts in stored order."""
        return self.validation_loaders(self.val, self.mode)
