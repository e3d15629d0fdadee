"""Writes shards with rationales, from trait cards or by a teacher: one for each part of the input set."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.inference.request import Client, Request
from kvg.rationales.rationale import CardWriter, RationaleWriter
from kvg.rationales.rules import RationaleRules
from kvg.rationales.teacher import teacher_prompt, template_of
from kvg.shards.job import ShardJob, shard_result
from kvg.shards.reader import SamplePart, Tally
from kvg.shards.writer import ShardFile
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.types import Sample
from kvg.work.files import disk_errors
from kvg.work.progress import with_progress


class RationaleShard:
    """A shard that is being written, and the samples that are left out of it.

    Args:
        out: folder of the set.
        number: index of the shard.
        tally: counts of the part that is read for it.
    """

    def __init__(self, out: Path, number: int, tally: Tally | None = None) -> None:
        self.number, self.tally = number, tally or Tally()
        self._file, self._disk_errors = ShardFile(out, number), disk_errors(out)
        self._lost = list[dict[str, Any]]()
        self._num_undescribed, self._undescribed = 0, Counter[str]()

    def write(self, sample: Sample) -> None:
        """Adds a sample.

        Raises:
            DataError: the disk is full.
        """
        with self._disk_errors:
            self._file.write(sample)
        without = {item.entity for item in sample.objects if not item.traits}
        self._num_undescribed += bool(without)
        self._undescribed.update(without)

    def set_aside(self, sample: Sample, reasons: Sequence[str]) -> None:
        """Records a sample without a usable rationale."""
        short = [reason.removeprefix(f"sample {sample.key}: ") for reason in reasons]
        self._lost.append({"key": sample.key, "entity": sample.entity, "reasons": short})

    def close(self) -> dict[str, Any]:
        """Finishes the shard.

        Returns:
            The result of its unit: ``entry`` (None if nothing was written), ``counts``, ``lost``, ``num_bad``,
            ``num_undescribed`` (samples with an object without traits), ``undescribed`` (of these, by entity).
        """
        with self._disk_errors:
            return shard_result(
                self._file,
                lost=self._lost,
                num_bad=self.tally.num_bad + self.tally.num_cut,
                num_undescribed=self._num_undescribed,
                undescribed=dict(self._undescribed),
            )

    def discard(self) -> None:
        """Removes the unfinished shard."""
        with suppress(OSError):  # the error that stopped the work matters more
            self._file.discard()


def write_shard(out: Path, number: int, part: SamplePart, writer: RationaleWriter) -> dict[str, Any]:
    """Writes the rationales of one part without a model; returns the result of ``RationaleShard.close``."""
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


@dataclasses.dataclass(frozen=True)
class WriteFromCards:
    """Writes the rationales of a unit from the traits of its objects.

    Attributes:
        out: folder of the new set.
        min_facts: minimum number of traits of every object; other samples are set aside.
    """

    out: Path
    min_facts: int

    def __call__(self, unit: tuple[int, SamplePart]) -> dict[str, Any]:
        """Writes the shard of a unit (number, part)."""
        return write_shard(self.out, *unit, CardWriter(self.min_facts))


class Teacher:
    """A large model that writes the rationales of many samples.

    Args:
        client: client of the model.
        codec: its box codec.
        rules: rules for its rationales.
        max_attempts: maximum number of attempts for a rationale.
    """

    def __init__(self, client: Client, codec: BoxCodec, rules: RationaleRules, max_attempts: int) -> None:
        self.client, self._codec, self._rules, self._max_attempts = client, codec, rules, max_attempts

    def write(self, parts: Sequence[SamplePart], job: ShardJob, work: Path) -> None:
        """Writes a shard for each part that is not done. Requests are sent ahead of the shard that is being written.

        Args:
            parts: parts of the input set.
            job: job of the new set.
            work: folder for the answers.

        Raises:
            DataError: the model no longer answers, or the disk is full; answers are kept.
        """
        left = job.left(len(parts))
        requests = _TeacherRequests([(number, parts[number]) for number in left], self)
        outcomes = self.client.ask(requests, self._validator(requests), work, self._max_attempts)
        total = sum(parts[number].num_samples for number in left)
        shard: RationaleShard | None = None
        try:
            for outcome in with_progress(outcomes, f"asking for {job.folder}", total):
                number, sample = requests.waiting.pop(outcome.request.key)
                while left[0] != number:  # all outcomes of the part before have been read
                    self._finish(left.pop(0), shard, requests, job)
                    shard = None
                shard = shard or RationaleShard(job.folder, number, requests.tallies[number])
                if outcome.values:
                    image = outcome.request.image
                    shard.write(dataclasses.replace(sample, image=image, rationale=outcome.values[0]))
                else:
                    shard.set_aside(sample, outcome.faults or ["no answer"])
            while left:
                self._finish(left.pop(0), shard, requests, job)
                shard = None
        except BaseException:
            if shard is not None:
                shard.discard()
            raise

    def _finish(self, number: int, shard: RationaleShard | None, requests: _TeacherRequests, job: ShardJob) -> None:
        shard = shard or RationaleShard(job.folder, number, requests.tallies.get(number))
        job.save(number, shard.close())

    def prompt(self, sample: Sample) -> str:
        """Returns the text of the request about a sample."""
        return teacher_prompt(sample, self._codec, _size(sample))

    def _validator(self, requests: _TeacherRequests) -> Any:
        def validate(request: Request, text: str) -> str:
            _, sample = requests.waiting[request.key]
            return template_of(text, sample, self._codec, _size(sample), self._rules)

        return validate


class _TeacherRequests:
    """The requests of several parts; each iteration reads the parts anew.

    Attributes:
        waiting: part and sample (without its picture) of each request that has been yielded, by key.
        tallies: counts of each part.
    """

    def __init__(self, parts: Sequence[tuple[int, SamplePart]], teacher: Teacher) -> None:
        self._parts, self._teacher = parts, teacher
        self.waiting: dict[str, tuple[int, Sample]] = {}
        self.tallies: dict[int, Tally] = {}

    def __len__(self) -> int:
        return sum(part.num_samples for _, part in self._parts)

    def __iter__(self) -> Iterator[Request]:
        for number, part in self._parts:
            tally = self.tallies[number] = Tally()
            for position, sample in part.read(tally):
                key = f"{number}/{position}/{sample.key}"
                self.waiting[key] = number, dataclasses.replace(sample, image=b"")
                yield Request(key, self._teacher.prompt(sample), sample.image)


def _size(sample: Sample) -> ImageSize:
    return ImageSize(sample.width, sample.height, sample.width, sample.height)
