"""A loader whose position can be saved, so that a run stopped in mid-epoch resumes with the next sample.

On resume Lightning restarts a plain DataLoader, and skips a batch of a loader without ``__len__``. It resumes a loader
with ``state_dict`` and ``__len__`` exactly. The position is the number of samples that each worker has read, including
bad ones, since a batch may have skipped any number of them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data_modules.recipe import Recipe, ReplayText, TextProcessor
from kvg.batches import Batch, Processor
from kvg.errors import DataError, KVGError
from kvg.shards.dataset import ShardDataset, rank_and_world
from kvg.types import Sample

log = logging.getLogger(__name__)

_MAX_BAD_IN_A_ROW = 1000


@dataclass
class Position:
    """The position in an epoch.

    Attributes:
        epoch: index of the epoch, from 0.
        num_batches: number of batches that this process has yielded.
        consumed: number of samples read by each worker, including bad ones.
    """

    epoch: int
    num_batches: int = 0
    consumed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Delivery:
    """A batch from a worker, with the numbers that update the position."""

    batch: Batch
    worker: int
    consumed: int
    num_bad: int


class BatchStream(IterableDataset[Delivery]):
    """Batches of one epoch from a position on, made by the workers of the loader.

    Role ``w`` makes the batches ``w``, ``w + workers``, ... of the epoch. After a resume worker 0 makes the next batch,
    so the roles of the workers are shifted by the number of batches already yielded.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        processor: Processor,
        recipe: Recipe,
        position: Position,
        replay: Sequence[ReplayText] = (),
        *,
        endless: bool,
    ) -> None:
        self.dataset, self.processor, self.recipe, self.position = dataset, processor, recipe, position
        self.replay, self.endless = replay, endless
        self.rank, self.world = rank_and_world()

    def __iter__(self) -> Iterator[Delivery]:
        """Yields the batches of this worker."""
        info, workers = get_worker_info(), len(self.position.consumed)
        role = ((info.id if info else 0) + self.position.num_batches) % workers
        slot, num_slots = self.rank * workers + role, self.world * workers
        read = self.dataset.endless if self.endless else self.dataset.stream
        samples = read(self.position.epoch, slot, num_slots)
        consumed = self.position.consumed[role]
        for _ in range(consumed):
            next(samples, None)
        index = len(range(role, self.position.num_batches, workers))  # number of batches that this role has made
        while True:
            num_texts = self.recipe.num_texts(index)
            taken, kept, examples, num_bad = self._take(samples, self.recipe.batch_size - num_texts)
            if not examples:
                return
            consumed += taken
            if num_texts:
                rng = random.Random(f"replay/{self.dataset.seed}/{self.position.epoch}/{slot}/{index}")
                text_processor = cast(TextProcessor, self.processor)
                texts = [rng.choice(self.replay) for _ in range(num_texts)]
                examples += [text_processor.encode_text(text.prompt, text.completion) for text in texts]
            yield Delivery(self.recipe.collate(self.processor, examples, kept), role, consumed, num_bad)
            index += 1

    def _take(self, samples: Iterator[Sample], wanted: int) -> tuple[int, list[Sample], list[Any], int]:
        kept: list[Sample] = []
        examples: list[Any] = []
        taken, in_a_row, before = 0, 0, self.dataset.tally.num_bad
        for sample in samples:
            taken += 1
            error: DataError | None = None
            try:
                example = self.recipe.encode(self.processor, sample)
            except DataError as bad:
                error = bad
            else:
                if self.recipe.pairs and len(kept) % 2 and not (sample.pair and sample.pair == kept[-1].pair):
                    error = _lone(kept.pop())
                    examples.pop()
                kept.append(sample)
                examples.append(example)
            if error is None:
                in_a_row = 0
                if len(kept) == wanted:
                    break
                continue
            self.dataset.tally.note(error)
            in_a_row += 1
            if in_a_row >= min(_MAX_BAD_IN_A_ROW, self.dataset.num_samples):
                raise error
        return taken, kept, examples, self.dataset.tally.num_bad - before


class Relay(IterableDataset[Delivery | KVGError]):
    """Yields an error instead of raising it: torch converts errors with several arguments to RuntimeError."""

    def __init__(self, stream: BatchStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Delivery | KVGError]:
        """Yields the batches of the stream, and the error that ended it."""
        try:
            yield from self.stream
        except KVGError as error:
            yield error


class StreamLoader:
    """Iterates over the batches of one epoch at a time; its position can be saved and loaded.

    Args:
        dataset: samples.
        processor: tokenises the samples.
        recipe: how samples become a batch.
        num_workers: number of processes that make batches; 0 makes them in this process.
        replay: text-only examples to mix in.
        endless: for training. Every process yields the same number of full batches per epoch, and repeats samples if
            its share is too small. Otherwise each sample is read once, and a process with fewer batches than another
            repeats its last one, marked with ``padding``, so that all processes stay in step.

    Attributes:
        look_ahead: whether batches have the next one of their epoch as ``following``. The position does not count it.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        processor: Processor,
        recipe: Recipe,
        num_workers: int = 0,
        replay: Sequence[ReplayText] = (),
        *,
        endless: bool,
    ) -> None:
        self.samples, self.processor, self.recipe, self.num_workers = dataset, processor, recipe, num_workers
        self.replay, self.endless = replay, endless
        self.num_bad = 0
        self.look_ahead = False
        self._position: Position | None = None
        self._resume: Position | None = None
        self._next_epoch = 0

    @property
    def batch_size(self) -> int:
        """Returns the number of examples in a batch; Lightning reads it for its logs."""
        return self.recipe.batch_size

    def __len__(self) -> int:
        """Returns the number of batches of one epoch, the same on every process."""
        world, slots = rank_and_world()[1], max(1, self.num_workers)
        total = self.samples.num_samples
        if self.endless:
            images = self.recipe.batch_size * (1 - self.recipe.replay_ratio)
            return max(1, int(total / world / images + 1e-9))
        shares = [len(range(slot, total, slots * world)) for slot in range(slots)]  # rank 0 has the largest
        return sum(-(-share // self.recipe.batch_size) for share in shares)

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of the next epoch, or the rest of the epoch that was loaded."""
        position = self._resume or Position(self._next_epoch, 0, [0] * max(1, self.num_workers))
        self._resume, self._position = None, position
        self._next_epoch = position.epoch + 1
        batches = self._batches(replace(position, consumed=list(position.consumed)))
        for batch, reached in _with_following(batches) if self.look_ahead else batches:
            self._position = reached
            yield batch

    def _batches(self, position: Position) -> Iterator[tuple[Batch, Position]]:
        """The batches from a position on, each with the position after it."""
        length = len(self)
        batch: Batch | None = None
        for delivery in self._deliveries(position):
            if position.num_batches >= length:
                return
            position.num_batches += 1
            position.consumed[delivery.worker] = delivery.consumed
            self.num_bad += delivery.num_bad
            batch = delivery.batch
            if position.num_batches == length and self.num_bad:
                log.warning("%d bad samples skipped so far", self.num_bad)
            yield batch, replace(position, consumed=list(position.consumed))
            if position.num_batches >= length:
                return
        while batch is not None and rank_and_world()[1] > 1 and position.num_batches < length:
            position.num_batches += 1
            yield replace(batch, padding=True), replace(position, consumed=list(position.consumed))

    def state_dict(self) -> dict[str, Any]:
        """Returns the position after the last batch that was yielded."""
        position = self._resume or self._position or Position(self._next_epoch)
        rank, world = rank_and_world()
        return {
            "epoch": position.epoch,
            "num_batches": position.num_batches,
            "consumed": list(position.consumed),
            "layout": [world, self.num_workers, self.recipe.batch_size],
            "rank": rank,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the position for the next ``iter``.

        A checkpoint has the position of one process. Another process uses the same number of batches, and computes its
        own number of samples as if none had been bad.
        """
        slots, (rank, world) = max(1, self.num_workers), rank_and_world()
        position = Position(int(state["epoch"]), int(state["num_batches"]), list(state["consumed"]))
        if position.num_batches >= len(self):
            self._next_epoch, self._resume = position.epoch + 1, None
            return
        same_layout = state["layout"] == [world, self.num_workers, self.recipe.batch_size]
        if not same_layout:
            log.warning(
                "the run is resumed with other processes, workers or batch size (%s, was %s): "
                "some samples of this epoch may be read twice, others not at all",
                [world, self.num_workers, self.recipe.batch_size],
                state["layout"],
            )
        if not same_layout or state["rank"] != rank or len(position.consumed) != slots:
            made = [len(range(role, position.num_batches, slots)) for role in range(slots)]
            size = self.recipe.batch_size
            position.consumed = [sum(size - self.recipe.num_texts(i) for i in range(num)) for num in made]
        self._resume = position

    def _deliveries(self, position: Position) -> Iterator[Delivery]:
        stream = BatchStream(self.samples, self.processor, self.recipe, position, self.replay, endless=self.endless)
        if not self.num_workers:
            yield from stream
            return
        # Each worker gets a copy of the position, so updates here do not change it.
        for delivery in DataLoader(Relay(stream), batch_size=None, num_workers=self.num_workers, prefetch_factor=2):
            if isinstance(delivery, KVGError):
                raise delivery
            yield delivery


def _lone(sample: Sample) -> DataError:
    remedy = "its pair is not beside it; compose with compositor.paired: true, or set data.pairs to false"
    return DataError(sample.key, "pair", remedy)


def _with_following(batches: Iterator[tuple[Batch, Position]]) -> Iterator[tuple[Batch, Position]]:
    """The same batches, each with the one after it; the last one has none."""
    current = next(batches, None)
    while current is not None:
        following = next(batches, None)
        yield replace(current[0], following=following[0] if following else None), current[1]
        current = following
