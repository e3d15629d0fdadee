"""Checks a folder of shards completely: checksums, schema, decoded images, keys, and the counts of the manifest."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.shards.counting import count_sample, empty_counts, sum_counts
from kvg.shards.manifest import MANIFEST, Manifest, ShardEntry, file_faults, read_manifest, sha256_of
from kvg.shards.reader import Shard, Tally
from kvg.shards.schema import check_image
from kvg.text.box_refs import PLACEHOLDER
from kvg.types import Sample
from kvg.work.pool import map_processes
from kvg.work.progress import progress_bar

_LIKE_ONE = re.compile(r"<\s*[/|]?\s*box(?![a-z])[^<>]{0,9}>?", re.I)


def set_problems(folder: Path, workers: int = 1) -> Iterator[str]:
    """Yields every problem of a set, shard by shard.

    Args:
        folder: folder of the set.
        workers: number of processes.

    Raises:
        DataError: there is no usable manifest.
    """
    manifest = read_manifest(folder)
    num_problems = 0
    for fault in file_faults(folder, manifest):
        yield str(fault)
        num_problems += 1
    units = [(folder, entry) for entry in manifest.shards]
    waiting: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    counts, num_yielded = [], 0
    with progress_bar() as progress:
        task = progress.add_task("checking samples", total=manifest.num_samples)
        numbers = range(len(units))
        with contextlib.closing(map_processes(check_shard, units, numbers, workers, "checking samples")) as coming:
            for number, result in coming:
                waiting[number] = result
                progress.advance(task, manifest.shards[number].num_samples)
                while num_yielded in waiting:  # yields in the order of the shards, not in that of completion
                    checked = waiting.pop(num_yielded)
                    checked["problems"] += repeated(folder / manifest.shards[num_yielded].file, checked["keys"], seen)
                    yield from checked["problems"]
                    num_problems += len(checked["problems"])
                    counts.append(checked["counts"])
                    num_yielded += 1
    if not num_problems:  # else the counts differ because of bad samples
        yield from miscounts(folder, manifest, counts)


def repeated(path: Path, keys: Iterable[str], seen: set[str]) -> Iterator[str]:
    """Yields a problem for each key in ``seen``; adds the keys to ``seen``."""
    for key in keys:
        if key in seen:
            yield f"{path} sample {key}: key: occurs twice; make keys unique"
        seen.add(key)


def check_shard(unit: tuple[Path, ShardEntry]) -> dict[str, Any]:
    """Reads one shard completely.

    Args:
        unit: folder of the set, and the manifest's entry of the shard.

    Returns:
        ``problems``, ``keys`` of the good samples, and their ``counts``.
    """
    folder, entry = unit
    path, problems, counts = folder / entry.file, list[str](), empty_counts()
    if not path.is_file():  # reported by ``file_faults``
        return {"problems": [], "keys": [], "counts": counts}
    if sha256_of(path) != entry.sha256:
        problems.append(f"{path}: sha256: differs from the manifest; copy or make the shard again")
    tally = Tally(max_problems=1_000_000, log_problems=False)
    keys = []
    for _, sample in Shard(path, entry.num_samples).read(tally):
        where = f"{path} sample {sample.key}"
        try:
            check_image(sample, where, decode=True)
        except DataError as error:
            problems.append(str(error))
        problems.extend(f"{where}: {fault}" for fault in faults(sample))
        count_sample(counts, sample)
        keys.append(sample.key)
    if len(keys) > entry.num_samples:
        problems.append(
            f"{path}: num_samples: the manifest says {entry.num_samples}, there are {len(keys)}; make it again"
        )
    return {"problems": problems + tally.problems, "keys": keys, "counts": counts}


def faults(sample: Sample) -> Iterator[str]:
    """Yields problems that the schema allows but that would harm training."""
    for match in _LIKE_ONE.finditer(PLACEHOLDER.sub("", sample.rationale)):
        yield f"rationale: {match[0]!r} is not a placeholder; write <box:N> for object N"
    if not all(sample.licences):
        yield f"provenance.licences: {list(sample.licences)!r} is no list of names; write the set again"


def miscounts(folder: Path, manifest: Manifest, counts: list[Mapping[str, Mapping[str, int]]]) -> Iterator[str]:
    """Yields a problem for each count of the manifest that differs from the samples."""
    for name, true in sum_counts(counts).items():
        noted = manifest.counts.get(name)
        if noted is not None and dict(noted) != true:  # old manifests lack some counts
            remedy = f"says {dict(sorted(noted.items()))}, the samples give {true}; write the set again"
            yield f"{folder / MANIFEST}: counts.{name}: {remedy}"
