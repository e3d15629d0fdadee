"""Data of the lab's base model: a curriculum of packed scenes and text cards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import lightning as L
from torch import Tensor

from kvg.errors import ConfigError
from kvg.lab.pretraining import Phase, PretrainRows, SceneProcessor
from kvg.ranges import check_whole
from kvg.shards.dataset import rank_and_world
from kvg.shards.reader import ShardFolder


class HasSceneProcessor(Protocol):
    """The part of a backbone that this data module needs."""

    @property
    def processor(self) -> SceneProcessor:
        """The processor of pictures and texts."""


class PretrainLoader:
    """Loads the packed batches of this process; its position can be saved and loaded.

    Args:
        rows: the stream; this class sets its ``start``.
    """

    def __init__(self, rows: PretrainRows) -> None:
        self.rows, self.given = rows, 0
        self.length = len(rows)

    def __len__(self) -> int:
        """Returns the number of batches of the whole stream, also those already yielded."""
        return self.length

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yields batches from the saved position, or from the start."""
        self.rows.start = self.given
        for batch in self.rows:
            self.given += 1
            yield batch
        self.given = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of batches that have been yielded."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the position for the next ``iter``."""
        self.given = int(state["given"])


class LabPretrainDataModule(L.LightningDataModule):
    """Streams the curriculum of ``configs/lab/pretrain.yaml``.

    Args:
        scenes: folder of shards, made by ``kvg-data compose --config configs/lab/scenes.yaml``.
        phases: the curriculum, in order; the last one's ``until`` is 1.
        num_batches: number of batches of all processes together.
        card_rows: rows of text cards in each batch with text.
        row_tokens: length in tokens up to which a row is filled with questions.
        seed: seed of all random choices.

    Raises:
        ConfigError: the last phase does not end at 1.
    """

    def __init__(
        self,
        scenes: str,
        phases: Sequence[Phase],
        num_batches: int,
        card_rows: int = 1,
        row_tokens: int = 300,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not phases or phases[-1].until < 1:
            raise ConfigError("data.phases", "the last phase must have `until: 1.0`")
        for name, value, low in (
            ("num_batches", num_batches, 1),
            ("card_rows", card_rows, 0),
            ("row_tokens", row_tokens, 1),
            ("seed", seed, 0),
        ):
            check_whole(f"data.{name}", value, low)
        self.scenes, self.phases, self.num_batches, self.seed = scenes, phases, num_batches, seed
        self.card_rows, self.row_tokens = card_rows, row_tokens
        self.processor: SceneProcessor | None = None
        self._store: ShardFolder | None = None

    def connect(self, backbone: HasSceneProcessor) -> None:
        """Takes the processor from the backbone."""
        self.processor = backbone.processor

    def setup(self, stage: str) -> None:
        """Opens the scenes, so that a wrong path fails before training starts."""
        self._store = ShardFolder(self.scenes)
        self._store.check_files()

    def train_dataloader(self) -> PretrainLoader:
        """Makes the loader of this process."""
        if self.processor is None:
            raise ConfigError("data.processor", "is missing; call connect(backbone) first, as the CLI does")
        rank, world = rank_and_world()
        rows = PretrainRows(
            self.processor,
            self._store or ShardFolder(self.scenes),
            self.phases,
            self.num_batches,
            self.card_rows,
            self.row_tokens,
            self.seed,
            rank=rank,
            world_size=world,
        )
        return PretrainLoader(rows)
