"""Makes one set of several: their samples mixed, in shards of equal size. Each shard is a unit of work."""

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
_MAX_WARNINGS = 20  # bad samples that are named


@dataclass(frozen=True)
class ShardResult:
    """A mixed set.

    Attributes:
        out: its folder.
        num_samples: in the set.
        num_shards: of the set.
        num_bad: samples and ends of files that were passed over.
        num_renamed: samples whose key several sets have.
        num_marked: samples marked known or unknown; None without a file of knowledge.
    """

    out: Path
    num_samples: int
    num_shards: int
    num_bad: int
    num_renamed: int
    num_marked: int | None

    def summary(self) -> str:
        """Numbers in words, a line or several."""
        bad = f"; {self.num_bad} bad ones passed over" if self.num_bad else ""
        lines = [f"{self.num_samples} samples in {self.num_shards} shards in {self.out}{bad}"]
        if self.num_renamed:
            lines.append(f"{self.num_renamed} have a key that several sets have: their set's name stands before it now")
        if self.num_marked is not None:
            lines.append(f"{self.num_marked} are marked known or unknown")
        return "\n".join(lines)


class Inputs:
    """The sets that are mixed.

    Args:
        paths: folders of shards, or published files.

    Raises:
        ConfigError: a set is given twice.
        DataError: one cannot be used.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.names = names_of(paths)
        self.stores = [open_store(path) for path in paths]
        self.checksums = [checksums_of(path) for path in paths]
        self.descriptions = [source_record(path, store) for path, store in zip(paths, self.stores, strict=True)]
        self.stamps = [file_stamps(path, store) for path, store in zip(paths, self.stores, strict=True)]

    def parts(self) -> Iterator[tuple[int, SamplePart]]:
        """Number of the set, and part of it."""
        return ((number, part) for number, store in enumerate(self.stores) for part in store.parts())


def shard(
    paths: Sequence[str | Path], out: str | Path, settings: ShardSettings, workers: int = 1, overwrite: bool = False
) -> ShardResult:
    """Makes one set of several; an interrupted one is resumed.

    Args:
        paths: folders of shards, or published files.
        out: folder for the new shards.
        settings: of the new set.
        workers: processes; each holds the samples of one new shard.
        overwrite: whether a complete set is replaced.

    Raises:
        ConfigError: a setting cannot work, or a set is there.
        DataError: an input cannot be used, holds no good sample, or has gone; or the disk is full.
    """
    sets, out = [Path(path) for path in paths], Path(out)
    accuracies = _accuracies(settings.knowledge)
    if any(path.resolve() == out.resolve() for path in sets):
        raise ConfigError("out", f"{out} is one of the sets that are read; choose another folder")
    inputs = Inputs(sets)
    job = _job(inputs, out, settings, accuracies)
    check_set(out, overwrite)
    # Where each sample lies, and what is wrong with the others, is the first half of the work.
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
        log.warning("passed over: %s", reason)
    config = {"sets": inputs.descriptions, "made_of": inputs.checksums, **dataclasses.asdict(settings)}
    num_samples = job.finish(len(units), settings.seed, config)
    if not num_samples:
        raise DataError(str(out), "samples", f"none could be written ({lost[0]}); run it again")
    search.discard()
    num_shards = sum(result["entry"] is not None for result in results)
    num_marked = sum(result["num_marked"] for result in results) if settings.knowledge else None
    return ShardResult(out, num_samples, num_shards, samples.num_bad + len(lost), samples.num_renamed, num_marked)


def shard_job(paths: Sequence[Path], out: Path, settings: ShardSettings) -> ShardJob:
    """The work of one set.

    Raises:
        ConfigError: a setting cannot work.
        DataError: an input cannot be used.
    """
    return _job(Inputs(paths), out, settings, _accuracies(settings.knowledge))


def _job(inputs: Inputs, out: Path, settings: ShardSettings, accuracies: Mapping[str, float]) -> ShardJob:
    parts = [inputs.checksums, dataclasses.asdict(settings), accuracies]
    marks = [*parts, inputs.descriptions, inputs.stamps, revision()]
    return ShardJob(out, "shard", json.dumps(parts, sort_keys=True), json.dumps(marks, sort_keys=True))


def names_of(paths: Sequence[Path]) -> list[str]:
    """A short name for each set, to be put before keys: its folder's, with a number where several are called the same.

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
    """Where the good samples of all inputs lie.

    Raises:
        DataError: there are none.
    """
    parts = list(inputs.parts())
    job.run(
        SearchPart(job.units), [(n, part) for n, (_, part) in enumerate(parts)], workers, "looking through the sets"
    )
    samples = merge_scans(job.results(len(parts)), [number for number, _ in parts], inputs.names)
    for problem in samples.problems[:_MAX_WARNINGS]:
        log.warning("passed over: %s", problem)
    if not samples.num_samples:
        first = f" ({samples.problems[0]})" if samples.problems else ""
        job.discard()
        raise DataError(", ".join(inputs.names), "samples", f"none can be read{first}")
    return samples


def _orders(num_samples: int, settings: ShardSettings) -> list[list[int]]:
    """Numbers of the samples in each new shard."""
    numbers = list(range(num_samples))
    if settings.shuffle:
        random.Random(f"{settings.seed}/shard").shuffle(numbers)
    return [[numbers[i] for i in order] for order in even_ranges(num_samples, settings.samples_per_shard)]


@dataclass(frozen=True)
class SearchPart:
    """Finds the good samples of a part.

    Attributes:
        folder: for tars that are made of published files.
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
        mixture: reads samples by number.
        out: folder of the new set.
        accuracies: of the probe, by entity.
    """

    mixture: Mixture
    out: Path
    accuracies: Mapping[str, float]

    def __call__(self, unit: tuple[int, list[int]]) -> dict[str, Any]:
        """Writes a shard.

        Args:
            unit: number of the shard, and numbers of its samples.
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
                except DataError as error:  # its key is too long with the name of its set
                    lost.append(str(error))
            return shard_result(file, lost=lost, num_marked=num_marked)

    def _marked(self, sample: Sample) -> Sample:
        accuracy = self.accuracies.get(clean_name(sample.entity))
        if accuracy is None:  # the probe has no question about it
            return sample
        return dataclasses.replace(sample, knowledge=knowledge_of_accuracy(accuracy))
