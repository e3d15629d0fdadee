"""Streams samples in an order that depends only on the seed, so that a loader can resume at any sample."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch.distributed as dist

from kvg.errors import DataError
from kvg.shards.reader import SamplePart, SampleStore, Tally
from kvg.types import Sample

_CHECK_AFTER = 64  # number of unreadable samples after which a pass is checked before its end


def rank_and_world() -> tuple[int, int]:
    """Returns rank and number of the processes that train together: (0, 1) without ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class Lap:
    """Counts the samples of one pass through a set, and raises an error if most of them cannot be read.

    Args:
        place: path of the set, for errors.
        tally: counts of the reader.
    """

    def __init__(self, place: str, tally: Tally) -> None:
        self.place, self.tally = place, tally
        self.expected, self.good = 0, 0

    def read(self, part: SamplePart) -> Iterator[tuple[int, Sample]]:
        """Yields the good samples of a part, each with its position.

        Raises:
            DataError: many samples could not be read so far, and fewer than half are good.
        """
        good = 0
        for position, sample in part.read(self.tally):
            good += 1
            yield position, sample
        self.expected, self.good = self.expected + max(part.num_samples, good), self.good + good
        if self.expected - self.good >= _CHECK_AFTER:
            self.check()

    def check(self) -> None:
        """Checks the counts; call it at the end of a pass.

        Raises:
            DataError: fewer than half of the samples are good.
        """
        if self.expected - self.good > self.good:
            first = self.tally.problems[0] if self.tally.problems else "there is no sample"
            share = f"only {self.good} of {self.expected}" if self.good else "none"
            raise DataError(self.place, "samples", f"{share} can be read ({first}); copy or make the set again")


class ShardDataset:
    """Samples of a store, divided among slots. A slot is one worker of one process.

    In each epoch the seed gives a new order of the parts, and the parts are assigned to the slots in turn. If there are
    fewer parts than slots, single samples are assigned instead. Inside a slot a buffer mixes neighbouring samples. With
    ``pairs`` the two composites of a pair are assigned and mixed as one.

    Args:
        store: the set.
        seed: seed of all shuffling.
        shuffle_buffer: number of samples held for mixing; 0 keeps the stored order of parts and samples.
        pairs: whether samples of the same pair that lie next to each other stay together.
    """

    def __init__(self, store: SampleStore, seed: int = 0, shuffle_buffer: int = 1000, pairs: bool = False) -> None:
        self.store, self.seed, self.shuffle_buffer, self.pairs = store, seed, shuffle_buffer, pairs
        self.parts = store.parts()
        self.num_samples = sum(part.num_samples for part in self.parts)
        self.tally = Tally()

    def stream(self, epoch: int, slot: int = 0, num_slots: int = 1, lap: int = 0) -> Iterator[Sample]:
        """Yields the samples of a slot once.

        Args:
            epoch: determines which parts a slot gets, and their order.
            slot: 0 to ``num_slots`` - 1.
            num_slots: number of processes times number of workers.
            lap: number of the pass within the epoch; each pass has the same samples in another order.
        """
        units = self._read(epoch, slot, num_slots)
        for unit in self._mix(units, random.Random(f"{self.seed}/{epoch}/{slot}/{lap}")):
            yield from unit

    def endless(self, epoch: int, slot: int = 0, num_slots: int = 1) -> Iterator[Sample]:
        """Repeats ``stream`` without end, so that processes with unequal shares or bad samples stay in step.

        Raises:
            DataError: a pass has no good sample.
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

    def _read(self, epoch: int, slot: int, num_slots: int) -> Iterator[list[Sample]]:
        """Yields the units of a slot: what stays together."""
        lap = Lap(str(getattr(self.store, "folder", getattr(self.store, "path", "the set"))), self.tally)
        order: list[SamplePart] = list(self.parts)
        if self.shuffle_buffer:
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
        if self.shuffle_buffer and len(order) >= num_slots:
            for part in order[slot::num_slots]:
                yield from (unit for _, unit in self._units(lap.read(part)))
            lap.check()
            return
        offset = 0
        for part in order:
            for position, unit in self._units(lap.read(part)):
                if (offset + position) % num_slots == slot:
                    yield unit
            offset += -(-part.num_samples // self._size)
        lap.check()

    @property
    def _size(self) -> int:
        """Samples of a unit."""
        return 2 if self.pairs else 1

    def _units(self, samples: Iterator[tuple[int, Sample]]) -> Iterator[tuple[int, list[Sample]]]:
        """Yields units, each with its position."""
        unit: list[Sample] = []
        start = 0
        for position, sample in samples:
            if unit and not (sample.pair and sample.pair == unit[0].pair):
                yield start // self._size, unit
                unit = []
            start = start if unit else position
            unit.append(sample)
            if len(unit) == self._size:  # not held back until the next one has been read, which may be bad
                yield start // self._size, unit
                unit = []
        if unit:
            yield start // self._size, unit

    def _mix(self, units: Iterator[list[Sample]], rng: random.Random) -> Iterator[list[Sample]]:
        buffer: list[list[Sample]] = []
        for unit in units:
            if len(buffer) * self._size < self.shuffle_buffer:
                buffer.append(unit)
            elif self.shuffle_buffer:
                i = rng.randrange(len(buffer))
                buffer[i], unit = unit, buffer[i]
                yield unit
            else:
                yield unit
        rng.shuffle(buffer)
        yield from buffer
