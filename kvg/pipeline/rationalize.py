"""Shards that receive rationales: one for each part of the set that they are written for, by cards or by a teacher."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.inference.request import Asker, Request
from kvg.rationales.rationale import RationaleWriter
from kvg.rationales.teacher import LessonSettings, lesson, template_of
from kvg.shards.manifest import ShardEntry
from kvg.shards.reader import SamplePart, Tally
from kvg.shards.writer import ShardFile
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.types import Sample
from kvg.work.pieces import Pieces, writing
from kvg.work.progress import shown


class RationaleShard:
    """A shard that is being written, and what is left out of it. A context manager: an exception leaves no file.

    Args:
        out: folder of the set.
        number: of the shard.
        tally: of the part that is read for it.
    """

    def __init__(self, out: Path, number: int, tally: Tally | None = None) -> None:
        self.number, self.tally = number, tally or Tally()
        self._file, self._entry = ShardFile(out, number), None
        self._writing, self._lost = writing(out), list[dict[str, Any]]()
        self._num_undescribed, self._undescribed = 0, Counter[str]()

    def write(self, sample: Sample) -> None:
        """Adds a sample.

        Raises:
            DataError: the disk is full.
        """
        with self._writing:
            self._file.write(sample)
        without = {thing.entity for thing in sample.objects if not thing.note}
        self._num_undescribed += bool(without)
        self._undescribed.update(without)

    def set_aside(self, sample: Sample, reasons: Sequence[str]) -> None:
        """Notes a sample that has no usable rationale."""
        told = [reason.removeprefix(f"sample {sample.key}: ") for reason in reasons]
        self._lost.append({"key": sample.key, "entity": sample.entity, "reasons": told})

    def close(self) -> dict[str, Any]:
        """Finishes the shard.

        Returns:
            What is kept of a piece: ``entry`` (None where nothing was written), ``counts``, ``lost``, ``num_bad``,
            ``num_undescribed`` (samples with an object that has no note), ``undescribed`` (of these, by entity).
        """
        with self._writing:
            entry: ShardEntry | None = self._file.close()
        made = None if entry is None else dataclasses.asdict(entry)
        num_bad = self.tally.num_bad + self.tally.num_cut
        return {
            "entry": made,
            "counts": self._file.counts,
            "lost": self._lost,
            "num_bad": num_bad,
            "num_undescribed": self._num_undescribed,
            "undescribed": dict(self._undescribed),
        }

    def discard(self) -> None:
        """Throws away what there is of it."""
        with suppress(OSError):  # what stopped the work is told, not what its leavings do
            self._file.discard()


def write_shard(out: Path, number: int, part: SamplePart, writer: RationaleWriter) -> dict[str, Any]:
    """Writes the rationales of one part without asking anybody; returns what ``RationaleShard.close`` does."""
    shard = RationaleShard(out, number)
    try:
        for _, sample in part.read(shard.tally):
            try:
                shard.write(dataclasses.replace(sample, rationale=writer.write(sample)))
            except DataError as error:
                if error.where == str(out):
                    raise
                shard.set_aside(sample, [f"{error.field}: {error.remedy}"])
        return shard.close()
    except BaseException:
        shard.discard()
        raise


class Lessons:
    """A teacher who is asked for the rationales of many samples.

    Args:
        asker: the teacher.
        codec: how it writes boxes.
        settings: what its rationales have to be.
        tries: how often it is asked for one.
    """

    def __init__(self, asker: Asker, codec: BoxCodec, settings: LessonSettings, tries: int) -> None:
        self.asker, self._codec, self._settings, self._tries = asker, codec, settings, tries

    def write(self, parts: Sequence[SamplePart], out: Path, done: Pieces, work: Path) -> None:
        """Writes a shard for each part that is not done; the teacher is asked ahead of the one that is written.

        Args:
            parts: of the set.
            out: folder of the new set.
            done: its pieces.
            work: keeps the answers.

        Raises:
            DataError: the teacher has gone, or the disk is full; what has been answered is kept.
        """
        missing = sorted(set(range(len(parts))) - set(done.finished()))
        asked = _Questions([(number, parts[number]) for number in missing], self)
        outcomes = self.asker.ask(asked, self._judge(asked), work, self._tries)
        total = sum(parts[number].num_samples for number in missing)
        shard: RationaleShard | None = None
        try:
            for outcome in shown(outcomes, f"asking for {out}", total):
                number, sample = asked.waiting.pop(outcome.request.key)
                while missing[0] != number:  # the part before has come to its end
                    self._finish(missing.pop(0), shard, asked, out, done)
                    shard = None
                shard = shard or RationaleShard(out, number, asked.tallies[number])
                if outcome.values:
                    whole = dataclasses.replace(sample, image=outcome.request.image, rationale=outcome.values[0])
                    shard.write(whole)
                else:
                    shard.set_aside(sample, outcome.faults or ["no answer"])
            while missing:
                self._finish(missing.pop(0), shard, asked, out, done)
                shard = None
        except BaseException:
            if shard is not None:
                shard.discard()
            raise

    def _finish(self, number: int, shard: RationaleShard | None, asked: _Questions, out: Path, done: Pieces) -> None:
        done.save(number, (shard or RationaleShard(out, number, asked.tallies.get(number))).close())

    def question(self, sample: Sample) -> str:
        """What the teacher is asked about a sample."""
        return lesson(sample, self._codec, _size(sample))

    def _judge(self, asked: _Questions) -> Any:
        def judge(request: Request, text: str) -> str:
            _, sample = asked.waiting[request.key]
            return template_of(text, sample, self._codec, _size(sample), self._settings)

        return judge


class _Questions:
    """The requests of several parts, read anew each time they are gone through.

    Attributes:
        waiting: part and sample (without its picture) of each request that has been given out, by key.
        tallies: what was met in each part.
    """

    def __init__(self, parts: Sequence[tuple[int, SamplePart]], lessons: Lessons) -> None:
        self._parts, self._lessons = parts, lessons
        self.waiting: dict[str, tuple[int, Sample]] = {}
        self.tallies: dict[int, Tally] = {}

    def __iter__(self) -> Iterator[Request]:
        for number, part in self._parts:
            tally = self.tallies[number] = Tally()
            for position, sample in part.read(tally):
                key = f"{number}/{position}/{sample.key}"
                self.waiting[key] = number, dataclasses.replace(sample, image=b"")
                yield Request(key, self._lessons.question(sample), sample.image)


def _size(sample: Sample) -> ImageSize:
    return ImageSize(sample.width, sample.height, sample.width, sample.height)
