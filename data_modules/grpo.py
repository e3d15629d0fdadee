"""Data of stage 2: only prompts; the policy generates the completions."""

from __future__ import annotations

from data_modules.base import BySet, CompositeDataModule
from data_modules.loader import StreamLoader
from data_modules.recipe import Recipe
from kvg.errors import DataError
from kvg.ranges import check_whole
from kvg.shards.reader import Tally


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
        pairs: whether ``train`` holds pairs of composites (``compositor.paired``). Both are in one batch then, and
            their completions form one group.

    Raises:
        DataError: ``pairs`` is set, and the first sample of ``train`` belongs to no pair.
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
        pairs: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, box_unit, boxes_of)
        check_whole("data.shuffle_buffer", shuffle_buffer, 0)
        self.train, self.val, self.mode, self.shuffle_buffer = train, val, mode, shuffle_buffer
        self.recipe = Recipe(batch_size, mode, target=None, pad_left=True, max_tokens=max_tokens, pairs=pairs)

    def setup(self, stage: str) -> None:
        """Opens all sets, so that a wrong path fails before training starts."""
        if stage == "fit":
            store = self.training_store(self.train, self.recipe)
            first = next((sample for part in store.parts() for _, sample in part.read(Tally())), None)
            if self.recipe.pairs and first is not None and not first.pair:
                remedy = "is missing: compose with compositor.paired: true, or set data.pairs to false"
                raise DataError(self.train, "pair", remedy)
        if self.val:
            self.store(self.val, "val")

    def train_dataloader(self) -> StreamLoader:
        """Makes the loader of prompts in shuffled order."""
        return self.train_loader(self.train, self.recipe, self.shuffle_buffer)

    def val_dataloader(self) -> list[StreamLoader]:
        """Makes the loaders of prompts in stored order."""
        return self.validation_loaders(self.val, self.mode)
