"""One set made of several: their samples mixed, in shards of equal size, each of them a piece of work."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import ConfigError, DataError
from kvg.text.names import clean_name

if TYPE_CHECKING:
    from kvg.shards.mixing import Found, Mixture
    from kvg.shards.reader import SamplePart, SampleStore
    from kvg.types import Sample
    from kvg.work.pieces import Pieces

log = logging.getLogger(__name__)
_SHOWN = 20  # bad samples that are named

_folder: Path | None = None  # these two are set once in each process
_given: tuple[Mixture, Path, dict[str, float]] | None = None


@dataclass(frozen=True)
class ShardSettings:
    """How sets are put together.

    Attributes:
        seed: of the order.
        samples_per_shard: at most; shards differ by one sample at most.
        shuffle: mix the samples; otherwise they stay in the order of the sets.
        knowledge: JSON file, an object of entity: accuracy of the probe in 0-1; None leaves what the samples say.
    """

    seed: int = 0
    samples_per_shard: int = 500
    shuffle: bool = True
    knowledge: str | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        for name, least in (("seed", None), ("samples_per_shard", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
                raise ConfigError(
                    f"shard.{name}", f"{value!r} must be a whole number" + (" from 1 on" if least else "")
                )
        if not isinstance(self.shuffle, bool):
            raise ConfigError("shard.shuffle", f"{self.shuffle!r} is neither true nor false")


@dataclass(frozen=True)
class Made:
    """What became of it.

    Attributes:
        num_samples: in the new set.
        num_shards: of it.
        num_bad: samples and ends of files that were passed over.
        num_renamed: samples whose key several sets have.
        num_stamped: samples marked known or unknown.
    """

    num_samples: int
    num_shards: int
    num_bad: int
    num_renamed: int
    num_stamped: int


def make_set(inputs: Sequence[Path], out: Path, settings: ShardSettings, workers: int, overwrite: bool) -> Made:
    """Makes one set of several.

    Args:
        inputs: folders of shards, or published files.
        out: folder for the new shards.
        settings: of the new set.
        workers: processes; each holds the samples of one new shard.
        overwrite: whether a finished set is replaced.

    Raises:
        ConfigError: a setting cannot work, or a set is there.
        DataError: an input cannot be used, holds no good sample, or has gone; or the disk is full.
    """
    from kvg.formats.stores import checksums_of, open_store
    from kvg.shards.mixing import Mixture, spread, stamps, told_of
    from kvg.shards.revision import revision
    from kvg.shards.writer import PATTERN, check_set, clear_set, write_manifest
    from kvg.work.pieces import Pieces, writing

    accuracies, names = _accuracies(settings.knowledge), names_of(inputs)
    check_set(out, settings.samples_per_shard, overwrite)
    if any(path.resolve() == out.resolve() for path in inputs):
        raise ConfigError("out", f"{out} is one of the sets that are read; choose another folder")
    stores = [open_store(path) for path in inputs]
    told = [told_of(path, store) for path, store in zip(inputs, stores, strict=True)]
    identity = json.dumps([told, [stamps(path, store) for path, store in zip(inputs, stores, strict=True)]])
    places = Pieces(out / "look.pieces", identity)
    found = _look(stores, names, places, workers)
    orders = list(spread(found.num_samples, settings.samples_per_shard))
    wanted = json.dumps([identity, revision(), settings.seed, settings.samples_per_shard, settings.shuffle, accuracies])
    done = Pieces(out / "shard.pieces", wanted)
    with writing(out):
        clear_set(out, keep=[PATTERN.format(number) for number in done.finished()])
        found.save(index := places.folder / "index.npy")
    numbers = list(range(found.num_samples))
    if settings.shuffle:
        random.Random(f"{settings.seed}/shard").shuffle(numbers)
    pieces = [(number, [numbers[i] for i in order]) for number, order in enumerate(orders)]
    mixture = Mixture(index, found.paths, [names[own] for own in found.sets])
    done.run(_write_shard, pieces, workers, f"writing {out}", _start_writing, (mixture, out, accuracies))
    results = list(done.results(len(pieces)))
    made = _tell(found, results)
    made_of = [checksums_of(path) for path in inputs]
    config = {"sets": told, "made_of": made_of, **dataclasses.asdict(settings)}
    entries = _entries(results, out)
    with writing(out):
        write_manifest(out, entries, [result["counts"] for result in results], settings.seed, config)
    done.clear()
    places.clear()
    return made


def names_of(paths: Sequence[Path]) -> list[str]:
    """A short name for each set, to be put before keys: its folder's, with a number where several are called the same.

    Raises:
        ConfigError: a set is given twice.

    >>> names_of([Path("a/train"), Path("b/train"), Path("lab.parquet")])
    ['train', 'train2', 'lab']
    """
    from kvg.formats.published import safe_key

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
    if path is None:
        return {}
    from kvg.rewards.knowledge import KnowledgeReward  # it imports torch, which takes two seconds

    try:
        return KnowledgeReward(path).accuracies or {}
    except ConfigError as error:
        raise ConfigError("shard.knowledge", error.remedy) from error


def _look(stores: Sequence[SampleStore], names: Sequence[str], places: Pieces, workers: int) -> Found:
    from kvg.shards.mixing import put_together

    parts = [(own, part) for own, store in enumerate(stores) for part in store.parts()]
    pieces = [(number, part) for number, (_, part) in enumerate(parts)]
    places.run(_look_at, pieces, workers, "looking through the sets", _start_looking, (places.folder,))
    found = put_together(places.results(len(pieces)), [own for own, _ in parts], names)
    for problem in found.problems[:_SHOWN]:
        log.warning("passed over: %s", problem)
    if not found.num_samples:
        said = f" ({found.problems[0]})" if found.problems else ""
        places.clear()
        raise DataError(", ".join(names), "samples", f"none can be read{said}")
    return found


def _start_looking(folder: Path) -> None:
    global _folder
    _folder = folder


def _look_at(piece: tuple[int, SamplePart]) -> dict[str, Any]:
    from kvg.shards.mixing import look
    from kvg.work.pieces import writing

    if _folder is None:
        raise RuntimeError("the process was not started")
    with writing(_folder):
        return look(*piece, _folder)


def _start_writing(mixture: Mixture, out: Path, accuracies: dict[str, float]) -> None:
    global _given
    _given = mixture, out, accuracies


def _write_shard(piece: tuple[int, list[int]]) -> dict[str, Any]:
    """Writes the samples of these numbers as the shard of this number; returns what it holds."""
    from kvg.shards.writer import ShardFile
    from kvg.work.pieces import writing

    if _given is None:
        raise RuntimeError("the process was not started")
    mixture, out, accuracies = _given
    number, numbers = piece
    shard, lost, num_stamped = ShardFile(out, number), list[str](), 0
    fetched = mixture.samples(numbers)
    try:
        with writing(out):
            for sample in fetched:
                if isinstance(sample, DataError):
                    lost.append(str(sample))
                    continue
                stamped = _stamp(sample, accuracies)
                num_stamped += clean_name(sample.entity) in accuracies
                try:
                    shard.write(stamped)
                except DataError as error:  # its key is too long with the set's name
                    lost.append(str(error))
            entry = shard.close()
    except BaseException:
        shard.discard()
        raise
    made = entry and dataclasses.asdict(entry)
    return {"entry": made, "counts": shard.counts, "lost": lost, "num_stamped": num_stamped}


def _stamp(sample: Sample, accuracies: Mapping[str, float]) -> Sample:
    from kvg.composites.catalogue_tiles import KNOWN

    name = clean_name(sample.entity)
    if name not in accuracies:  # the probe has not asked for it
        return sample
    known = accuracies[name] >= KNOWN
    return dataclasses.replace(sample, knowledge="known" if known else "unknown")


def _entries(results: Sequence[Mapping[str, Any]], out: Path) -> list[Any]:
    from kvg.shards.manifest import ShardEntry

    entries = [ShardEntry(**result["entry"]) for result in results if result["entry"]]
    if not entries:
        raise DataError(str(out), "samples", f"none could be written ({results[0]['lost'][0]}); run it again")
    return entries


def _tell(found: Found, results: Sequence[Mapping[str, Any]]) -> Made:
    lost = [reason for result in results for reason in result["lost"]]
    for reason in lost[:_SHOWN]:
        log.warning("passed over: %s", reason)
    entries = [result["entry"] for result in results if result["entry"]]
    num_samples = sum(entry["num_samples"] for entry in entries)
    stamped = sum(result["num_stamped"] for result in results)
    return Made(num_samples, len(entries), found.num_bad + len(lost), found.num_renamed, stamped)
