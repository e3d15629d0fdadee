"""Base of the data modules: takes the processor from the backbone, opens stores, moves batches to the device."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any, Protocol, cast

import lightning as L
import torch

from data_modules.loader import StreamLoader
from data_modules.recipe import Recipe, ReplayText
from kvg.batches import Batch, Processor
from kvg.errors import ConfigError, DataError
from kvg.formats.stores import open_store
from kvg.formats.written_boxes import Reading
from kvg.ranges import check_whole
from kvg.shards.dataset import ShardDataset
from kvg.shards.reader import SampleStore, ShardFolder

BySet = str | dict[str, str] | None  # one setting for all sets, or a setting by name of the set


class HasProcessor(Protocol):
    """The part of a backbone that a data module needs."""

    @property
    def processor(self) -> Processor:
        """The processor that tokenises samples for the backbone."""


class CompositeDataModule(L.LightningDataModule):
    """Base of the data modules. ``connect`` must be called before a loader is made.

    Args:
        batch_size: examples per batch and process.
        num_workers: number of processes that make batches.
        seed: seed of all shuffling.
        box_unit: unit of boxes in files whose form does not define it: ``pixels``, ``relative_1000`` or ``unit`` (0-1);
            for all sets, or by name of the set (``train``, ``val``, or those of ``test``). Shards need none.
        boxes_of: ``upright``, or ``raw`` if boxes refer to pixels before the EXIF rotation; for all sets, or by name.
        sets: names of the sets.

    Attributes:
        look_ahead: whether training batches have the next one as ``following``; set before a loader is made.

    Raises:
        ConfigError: a number is out of range, or ``box_unit`` or ``boxes_of`` is unknown or names an unknown set.
    """

    def __init__(
        self,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        box_unit: BySet = None,
        boxes_of: BySet = "upright",
        sets: Collection[str] = ("train", "val"),
    ) -> None:
        super().__init__()
        for field, value, low in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("seed", seed, 0)):
            check_whole(f"data.{field}", value, low)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._declared = (box_unit, boxes_of)
        for field, given in (("box_unit", box_unit), ("boxes_of", boxes_of)):
            if unknown := sorted(set(given) - set(sets)) if isinstance(given, dict) else []:
                raise ConfigError(f"data.{field}", f"'{unknown[0]}' is no set; there are {', '.join(sets)}")
        for name in sets:
            self.reading(name)  # raises an error early if a setting is wrong
        self.look_ahead = False
        self.processor: Processor | None = None
        self._stores: dict[str, SampleStore] = {}
        self._training: StreamLoader | None = None
        self._position: dict[str, Any] | None = None

    def connect(self, backbone: HasProcessor) -> None:
        """Takes the processor from a backbone, with its image budget, prompt format and box convention."""
        self.processor = backbone.processor

    def reading(self, name: str) -> Reading:
        """Returns the declared unit and frame of the boxes of a set.

        Raises:
            ConfigError: a value is unknown.
        """
        unit, boxes_of = (given.get(name) if isinstance(given, dict) else given for given in self._declared)
        try:
            return Reading(cast(Any, unit), cast(Any, boxes_of or "upright"))
        except ConfigError as error:
            raise ConfigError(f"data.{error.field}", error.remedy) from error

    def store(self, path: str, name: str) -> SampleStore:
        """Opens a folder of shards or a published file, once per set.

        Args:
            path: folder or file.
            name: name of the set.

        Raises:
            DataError: the set cannot be used.
        """
        if name not in self._stores:
            store = open_store(path, reading=self.reading(name))
            if isinstance(store, ShardFolder):
                store.check_files()
            self._stores[name] = store
        return self._stores[name]

    def training_store(self, path: str, recipe: Recipe) -> SampleStore:
        """Opens the training set.

        Raises:
            DataError: the set cannot be used, or the target is ``rationale`` and it has none.
        """
        store = self.store(path, "train")
        if recipe.target in ("rationale", "answer_first") and isinstance(store, ShardFolder):
            counts = store.manifest.counts.get("rationale", {})
            if counts and not counts.get("yes"):
                raise DataError(path, "rationale", "is missing; run `kvg-data rationalize`, or set target: answer")
        return store

    def train_loader(
        self, path: str, recipe: Recipe, shuffle_buffer: int, replay: list[ReplayText] | None = None
    ) -> StreamLoader:
        """Makes a loader of shuffled batches; see ``StreamLoader``.

        Raises:
            ConfigError: ``connect`` has not been called.
            DataError: see ``training_store``.
        """
        dataset = ShardDataset(self.training_store(path, recipe), self.seed, max(1, shuffle_buffer), recipe.pairs)
        loader = StreamLoader(dataset, self._connected(), recipe, self.num_workers, replay or (), endless=True)
        loader.look_ahead = self.look_ahead
        if self._position is not None:
            loader.load_state_dict(self._position)
            self._position = None
        self._training = loader
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Returns the position of the training loader.

        Lightning also saves this position. But it drops it on resume if ``estimated_stepping_batches`` was read before,
        as by every learning rate schedule, and would restart the epoch.
        """
        return {} if self._training is None else {"train": self._training.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the position, so that training continues with the next sample."""
        self._position = state_dict.get("train")
        if self._training is not None and self._position is not None:  # some strategies restore after their setup
            self._training.load_state_dict(self._position)
            self._position = None

    def validation_loaders(self, path: str | None, mode: str) -> list[StreamLoader]:
        """Returns ``prompt_loader`` in a list; an empty list without a validation set."""
        if path:
            return [self.prompt_loader(path, mode, "val")]
        # The user has chosen no validation set, so Lightning's warning about an empty loader is of no use.
        warnings.filterwarnings("ignore", r"Total length of `list` across ranks is zero")
        return []

    def prompt_loader(self, path: str, mode: str, name: str) -> StreamLoader:
        """Makes a loader of prompts: every sample once, in stored order.

        Raises:
            ConfigError: ``connect`` has not been called.
        """
        recipe = Recipe(self.batch_size, mode, target=None, pad_left=True)
        dataset = ShardDataset(self.store(path, name), self.seed, shuffle_buffer=0)
        return StreamLoader(dataset, self._connected(), recipe, self.num_workers, endless=False)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves a batch, or the batches in a mapping, to the device; other values do not change."""
        if not isinstance(batch, Mapping):
            return batch.to(device, non_blocking=True)
        return {k: v.to(device, non_blocking=True) if isinstance(v, Batch) else v for k, v in batch.items()}

    def _connected(self) -> Processor:
        if self.processor is None:
            raise ConfigError("data.processor", "is missing; call connect(backbone) first, as the CLI does")
        return self.processor
