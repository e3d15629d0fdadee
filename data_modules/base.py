"""What all data modules share: the processor comes from the backbone, batches move to the device, stores are opened."""

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

BySet = str | dict[str, str] | None  # a setting of all sets, or by their names


class HasProcessor(Protocol):
    """All that a data module needs of a backbone."""

    @property
    def processor(self) -> Processor:
        """Tokenises samples in the backbone's own way."""


class CompositeDataModule(L.LightningDataModule):
    """Base of the data modules. ``connect`` must be called before a loader is made.

    Args:
        batch_size: examples a batch and process.
        num_workers: processes that make batches.
        seed: of all shuffling.
        box_unit: of the boxes in files that do not tell it: ``pixels``, ``relative_1000`` or ``unit`` (0-1); for all
            sets, or by the name of a set (``train``, ``val``, or those of ``test``). Shards tell theirs.
        boxes_of: ``upright``, or ``raw`` where boxes refer to pixels before EXIF turns them; likewise.
        sets: names of the sets.

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
            self.reading(name)  # a wrong setting ends here
        self.processor: Processor | None = None
        self._stores: dict[str, SampleStore] = {}
        self._training: StreamLoader | None = None
        self._position: dict[str, Any] | None = None

    def connect(self, backbone: HasProcessor) -> None:
        """Takes the processor, and with it image budget, prompt format and box convention, from a backbone."""
        self.processor = backbone.processor

    def reading(self, name: str) -> Reading:
        """What is declared of the boxes of a set.

        Raises:
            ConfigError: it is unknown.
        """
        unit, boxes_of = (given.get(name) if isinstance(given, dict) else given for given in self._declared)
        try:
            return Reading(cast(Any, unit), cast(Any, boxes_of or "upright"))
        except ConfigError as error:
            raise ConfigError(f"data.{error.field}", error.remedy) from error

    def store(self, path: str, name: str) -> SampleStore:
        """Opens a folder of shards or a published file, once.

        Args:
            path: of it.
            name: of the set, by which the unit of its boxes may be declared.

        Raises:
            DataError: it cannot be used.
        """
        if name not in self._stores:
            store = open_store(path, reading=self.reading(name))
            if isinstance(store, ShardFolder):
                store.check_files()
            self._stores[name] = store
        return self._stores[name]

    def training_store(self, path: str, recipe: Recipe) -> SampleStore:
        """Opens what is trained on.

        Raises:
            DataError: it cannot be used, or rationales are trained on and it has none.
        """
        store = self.store(path, "train")
        if recipe.target == "rationale" and isinstance(store, ShardFolder):
            counts = store.manifest.counts.get("rationale", {})
            if counts and not counts.get("yes"):
                raise DataError(path, "rationale", "none is written; run `kvg-data rationalize`, or set target: answer")
        return store

    def train_loader(
        self, path: str, recipe: Recipe, shuffle_buffer: int, replay: list[ReplayText] | None = None
    ) -> StreamLoader:
        """Shuffled batches without end; see ``StreamLoader``.

        Raises:
            ConfigError: ``connect`` has not been called.
            DataError: see ``training_store``.
        """
        dataset = ShardDataset(self.training_store(path, recipe), self.seed, max(1, shuffle_buffer))
        loader = StreamLoader(dataset, self._connected(), recipe, self.num_workers, replay or (), endless=True)
        if self._position is not None:
            loader.load_state_dict(self._position)
            self._position = None
        self._training = loader
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Position of training in its data.

        Lightning keeps the loader's position, too, but drops it on resume where the number of steps was needed before
        (``estimated_stepping_batches``, as every schedule does), and would begin the epoch anew.
        """
        return {} if self._training is None else {"train": self._training.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes training continue with the next sample."""
        self._position = state_dict.get("train")
        if self._training is not None and self._position is not None:  # strategies that restore after their setup
            self._training.load_state_dict(self._position)
            self._position = None

    def validation_loaders(self, path: str | None, mode: str) -> list[StreamLoader]:
        """``prompt_loader`` in a list, or none where there is nothing to validate on."""
        if path:
            return [self.prompt_loader(path, mode, "val")]
        # There is no validation set, so Lightning's warning about an empty loader says nothing new.
        warnings.filterwarnings("ignore", r"Total length of `list` across ranks is zero")
        return []

    def prompt_loader(self, path: str, mode: str, name: str) -> StreamLoader:
        """Every sample once, in stored order, as prompts to be continued.

        Raises:
            ConfigError: ``connect`` has not been called.
        """
        recipe = Recipe(self.batch_size, mode, target=None, pad_left=True)
        dataset = ShardDataset(self.store(path, name), self.seed, shuffle_buffer=0)
        return StreamLoader(dataset, self._connected(), recipe, self.num_workers, endless=False)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves the tensors, of a batch or of the batches that a mapping holds; all else stays."""
        if not isinstance(batch, Mapping):
            return batch.to(device, non_blocking=True)
        return {k: v.to(device, non_blocking=True) if isinstance(v, Batch) else v for k, v in batch.items()}

    def _connected(self) -> Processor:
        if self.processor is None:
            raise ConfigError("data.processor", "call connect(backbone) before asking for a loader; the CLI does")
        return self.processor
