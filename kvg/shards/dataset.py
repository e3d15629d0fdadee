"""Streams samples in an order that the seed decides, so that a loader can go on at any sample."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch.distributed as dist

from kvg.errors import DataError
from kvg.shards.reader import SamplePart, SampleStore, Tally
from kvg.types import Sample

_SURE = 64  # unreadable samples after which a set is checked before its end


def rank_and_world() -> tuple[int, int]:
    """This process among those that train together: (0, 1) without ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class Lap:
    """Counts the samples of one pass through a set, and raises where most of them cannot be read.

    Args:
        place: of the set, for errors.
        tally: where the reader counts bad samples.
    """

    def __init__(self, place: str, tally: Tally) -> None:
        self.place, self.tally = place, tally
        self.expected, self.good = 0, 0

    def read(self, part: SamplePart) -> Iterator[tuple[int, Sample]]:
        """The good samples of a part.

        Raises:
            DataError: many samples have been expected so far, and fewer than half of them are good.
        """
        good = 0
        for position, sample in part.read(self.tally):
            good += 1
            yield position, sample
        self.expected, self.good = self.expected + max(part.num_samples, good), self.good + good
        if self.expected - self.good >= _SURE:
            self.check()

    def check(self) -> None:
        """Checks the counts; call it at the end of a pass.

        Raises:
            DataError: fewer than half of the samples are good.
        """
        if self.expected - self.good > self.good:
            first = self.tally.problems[0] if self.tally.problems else "nothing is there"
            share = f"only {self.good} of {self.expected}" if self.good else "none"
            raise DataError(self.place, "samples", f"{share} can be read ({first}); copy or make the set again")


class ShardDataset:
    """Samples of a store, split among slots (a slot is one worker of one process).

    Each epoch draws a new order of the parts from the seed and deals them out to the slots; where there are fewer parts
    than slots, single samples are dealt out instead. Inside a slot a buffer mixes neighbouring samples.

    Args:
        store: what to read.
        seed: of all shuffling.
        shuffle_buffer: samples held for mixing; 0 keeps the stored order, of the parts too.
    """

    def __init__(self, store: SampleStore, seed: int = 0, shuffle_buffer: int = 1000) -> None:
        self.store, self.seed, self.shuffle_buffer = store, seed, shuffle_buffer
        self.parts = store.parts()
        self.num_samples = sum(part.num_samples for part in self.parts)
        self.tally = Tally()

    def stream(self, epoch: int, slot: int = 0, num_slots: int = 1, lap: int = 0) -> Iterator[Sample]:
        """One lap through the samples of a slot.

        Args:
            epoch: decides which parts a slot gets, and their order.
            slot: 0 to ``num_slots`` - 1.
            num_slots: processes times workers.
            lap: further laps have the same samples in another order.
        """
        yield from self._mix(self._read(epoch, slot, num_slots), random.Random(f"{self.seed}/{epoch}/{slot}/{lap}"))

    def endless(self, epoch: int, slot: int = 0, num_slots: int = 1) -> Iterator[Sample]:
        """Lap after lap, so that processes with unequal shares, or with bad samples, stay in step.

        Raises:
            DataError: a lap found no good sample.
        """
        lap = 0
        while True:
            empty = True
            for sample in self.stream(epoch, slot, num_slots, lap):
                empty = False
                yield sample
            if empty:
                problem = self.tally.problems[0] if self.tally.problems else "there are fewer samples than slots"
                raise DataError(f"slot {slot} of {num_slots}", "samples", f"none can be read ({problem})")
            lap += 1

    def _read(self, epoch: int, slot: int, num_slots: int) -> Iterator[Sample]:
        lap = Lap(str(getattr(self.store, "folder", getattr(self.store, "path", "the set"))), self.tally)
        order: list[SamplePart] = list(self.parts)
        if self.shuffle_buffer:
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
        if self.shuffle_buffer and len(order) >= num_slots:
            for part in order[slot::num_slots]:
                yield from (sample for _, sample in lap.read(part))
            lap.check()
            return
        offset = 0
        for part in order:
            for position, sample in lap.read(part):
                if (offset + position) % num_slots == slot:
                    yield sample
            offset += part.num_samples
        lap.check()

    def _mix(self, samples: Iterator[Sample], rng: random.Random) -> Iterator[Sample]:
        buffer: list[Sample] = []
        for sample in samples:
            if len(buffer) < self.shuffle_buffer:
                buffer.append(sample)
            elif self.shuffle_buffer:
                i = rng.randrange(len(buffer))
                buffer[i], sample = sample, buffer[i]
                yield sample
            else:
                yield sample
        rng.shuffle(buffer)
        yield from buffer
