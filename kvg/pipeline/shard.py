"""Mixes the samples of several sets into one set of shards of equal size. Each shard is a unit of work."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvg.benchmark import knowledge_of_accuracy
from kvg.errors import ConfigError, DataError
from kvg.formats.published import safe_key
from kvg.formats.stores import checksums_of, open_store
from kvg.pipeline.settings.shard import ShardSettings
from kvg.rewards.knowledge import KnowledgeReward
from kvg.shards.job import ShardJob, shard_result
from kvg.shards.mixing import Mixture, ScanIndex, even_ranges, file_stamps, merge_scans, scan_part, source_record
from kvg.shards.reader import SamplePart
from kvg.shards.revision import revision
from kvg.shards.writer import ShardFile, check_set
from kvg.text.names import clean_name
from kvg.types import Sample
from kvg.work.files import disk_errors
from kvg.work.job import Job

log = logging.getLogger(__name__)
_MAX_WARNINGS = 20  # bad samples that are logged


@dataclass(frozen=True)
class ShardResult:
    """A mixed set.

    Attributes:
        out: its folder.
        num_samples: number of samples.
        num_shards: number of shards.
        num_bad: number of bad samples and cut files that were skipped.
        num_renamed: number of samples whose key occurs in several sets.
        num_marked: number of samples marked known or unknown; None without a knowledge file.
    """

    out: Path
    num_samples: int
    num_shards: int
    num_bad: int
    num_renamed: int
    num_marked: int | None

    def summary(self) -> str:
        """Returns the numbers in words, in one or more lines."""
        bad = f"; {self.num_bad} bad ones skipped" if self.num_bad else ""
        lines = [f"{self.num_samples} samples in {self.num_shards} shards in {self.out}{bad}"]
        if self.num_renamed:
            lines.append(f"{self.num_renamed} had a key of several sets, and got the name of their set as a prefix")
        if self.num_marked is not None:
            lines.append(f"{self.num_marked} are marked known or unknown")
        return "\n".join(lines)


class Inputs:
    """The sets that are mixed.

    Args:
        paths: folders of shards, or published files.

    Raises:
        ConfigError: a set is given twice.
        DataError: a set cannot be used.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.names = names_of(paths)
        self.stores = [open_store(path) for path in paths]
        self.checksums = [checksums_of(path) for path in paths]
        self.descriptions = [source_record(path, store) for path, store in zip(paths, self.stores, strict=True)]
        self.stamps = [file_stamps(path, store) for path, store in zip(paths, self.stores, strict=True)]

    def parts(self) -> Iterator[tuple[int, SamplePart]]:
        """Yields the index of a set, and a part of it."""
        return ((number, part) for number, store in enumerate(self.stores) for part in store.parts())


def shard(
    paths: Sequence[str | Path], out: str | Path, settings: ShardSettings, workers: int = 1, overwrite: bool = False
) -> ShardResult:
    """Mixes several sets into one, or resumes an interrupted run.

    Args:
        paths: folders of shards, or published files.
        out: folder for the new shards.
        settings: settings of the new set.
        workers: number of processes; each has the samples of one new shard in memory.
        overwrite: whether a complete set is replaced.

    Raises:
        ConfigError: a setting is outside its range, or a set exists.
        DataError: an input cannot be used, has no good sample, or was removed; or the disk is full.
    """
    sets, out = [Path(path) for path in paths], Path(out)
    accuracies = _accuracies(settings.knowledge)
    if any(path.resolve() == out.resolve() for path in sets):
        raise ConfigError("out", f"{out} is one of the input sets; choose another folder")
    inputs = Inputs(sets)
    job = _job(inputs, out, settings, accuracies)
    check_set(out, overwrite)
    # The first half of the work finds the place of each good sample, and the problems of the others.
    search = Job(out, "search.json", json.dumps([inputs.descriptions, inputs.stamps]))
    samples = _search(inputs, search, workers)
    index = search.units / "index.npy"
    job.open(overwrite)
    with disk_errors(out):
        samples.save(index)
    units = list(enumerate(_orders(samples.num_samples, settings)))
    mixture = Mixture(index, samples.paths, [inputs.names[number] for number in samples.sets])
    job.run(WriteMixed(mixture, out, accuracies), units, workers, f"writing {out}")
    results = list(job.results(len(units)))
    lost = [reason for result in results for reason in result["lost"]]
    for reason in lost[:_MAX_WARNINGS]:
        log.warning("skipped: %s", reason)
    config = {"sets": inputs.descriptions, "made_of": inputs.checksums, **dataclasses.asdict(settings)}
    num_samples = job.finish(len(units), settings.seed, config)
    if not num_samples:
        raise DataError(str(out), "samples", f"none could be written ({lost[0]}); run it again")
    search.discard()
    num_shards = sum(result["entry"] is not None for result in results)
    num_marked = sum(result["num_marked"] for result in results) if settings.knowledge else None
    return ShardResult(out, num_samples, num_shards, samples.num_bad + len(lost), samples.num_renamed, num_marked)


def shard_job(paths: Sequence[Path], out: Path, settings: ShardSettings) -> ShardJob:
    """Returns the job of one set.

    Raises:
        ConfigError: a setting is outside its range.
        DataError: an input cannot be used.
    """
    return _job(Inputs(paths), out, settings, _accuracies(settings.knowledge))


def _job(inputs: Inputs, out: Path, settings: ShardSettings, accuracies: Mapping[str, float]) -> ShardJob:
    parts = [inputs.checksums, dataclasses.asdict(settings), accuracies]
    marks = [*parts, inputs.descriptions, inputs.stamps, revision()]
    return ShardJob(out, "shard", json.dumps(parts, sort_keys=True), json.dumps(marks, sort_keys=True))


def names_of(paths: Sequence[Path]) -> list[str]:
    """Returns a short name for each set, as a prefix of keys: its folder's, with a number if several are the same.

    Raises:
        ConfigError: a set is given twice.

    >>> names_of([Path("a/train"), Path("b/train"), Path("lab.parquet")])
    ['train', 'train2', 'lab']
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("in", "names a set twice; name each once")
    names: list[str] = []
    for path in paths:
        base = safe_key(path.resolve().name if path.is_dir() else path.stem) or "set"
        number, name = 1, base
        while name in names:
            number += 1
            name = f"{base}{number}"
        names.append(name)
    return names


def _accuracies(path: str | None) -> dict[str, float]:
    try:
        return {} if path is None else KnowledgeReward(path).accuracies or {}
    except ConfigError as error:
        raise ConfigError("shard.knowledge", error.remedy) from error


def _search(inputs: Inputs, job: Job, workers: int) -> ScanIndex:
    """Finds the places of the good samples of all inputs.

    Raises:
        DataError: there are no good samples.
    """
    parts = list(inputs.parts())
    job.run(SearchPart(job.units), [(n, part) for n, (_, part) in enumerate(parts)], workers, "scanning the sets")
    samples = merge_scans(job.results(len(parts)), [number for number, _ in parts], inputs.names)
    for problem in samples.problems[:_MAX_WARNINGS]:
        log.warning("skipped: %s", problem)
    if not samples.num_samples:
        first = f" ({samples.problems[0]})" if samples.problems else ""
        job.discard()
        raise DataError(", ".join(inputs.names), "samples", f"none can be read{first}")
    return samples


def _orders(num_samples: int, settings: ShardSettings) -> list[list[int]]:
    """Returns the indices of the samples in each new shard."""
    numbers = list(range(num_samples))
    if settings.shuffle:
        random.Random(f"{settings.seed}/shard").shuffle(numbers)
    return [[numbers[i] for i in order] for order in even_ranges(num_samples, settings.samples_per_shard)]


@dataclass(frozen=True)
class SearchPart:
    """Finds the good samples of a part.

    Attributes:
        folder: folder for tars that are made from published files.
    """

    folder: Path

    def __call__(self, unit: tuple[int, SamplePart]) -> dict[str, Any]:
        """See ``kvg.shards.mixing.scan_part``."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            return scan_part(*unit, self.folder)


@dataclass(frozen=True)
class WriteMixed:
    """Writes samples of the inputs as one shard.

    Attributes:
        mixture: reads samples by index.
        out: folder of the new set.
        accuracies: accuracies of the probe, by entity.
    """

    mixture: Mixture
    out: Path
    accuracies: Mapping[str, float]

    def __call__(self, unit: tuple[int, list[int]]) -> dict[str, Any]:
        """Writes a shard.

        Args:
            unit: index of the shard, and indices of its samples.
        """
        number, numbers = unit
        lost, num_marked = list[str](), 0
        samples = self.mixture.samples(numbers)
        with ShardFile(self.out, number) as file, disk_errors(self.out):
            for sample in samples:
                if isinstance(sample, DataError):
                    lost.append(str(sample))
                    continue
                num_marked += clean_name(sample.entity) in self.accuracies
                try:
                    file.write(self._marked(sample))
                except DataError as error:  # the key is too long with its prefix
                    lost.append(str(error))
            return shard_result(file, lost=lost, num_marked=num_marked)

    def _marked(self, sample: Sample) -> Sample:
        accuracy = self.accuracies.get(clean_name(sample.entity))
        if accuracy is None:  # the probe has no question about this entity
            return sample
        return dataclasses.replace(sample, knowledge=knowledge_of_accuracy(accuracy))
