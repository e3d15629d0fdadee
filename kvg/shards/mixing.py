"""Reads samples of several sets in one new order through an index of file positions.

The index has six numbers per sample, so a million samples take 48 MB. Only the samples of one new shard are in memory
at a time. Tars are read directly. Parts of published files have no random access, so they are converted to tars first.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from kvg.errors import DataError
from kvg.shards.manifest import MANIFEST, sha256_of
from kvg.shards.reader import SamplePart, SampleStore, Shard, ShardFolder, Tally
from kvg.shards.schema import decode_record, image_extension
from kvg.shards.writer import ShardFile
from kvg.types import Sample

# File, offset and length of the record, offset and length of the image, 1 if the key gets the set's name as a prefix.
_COLUMNS: Final = 6
_MAX_PROBLEMS: Final = 20  # messages that are kept per part; further problems are only counted


def scan_part(number: int, part: SamplePart, folder: Path) -> dict[str, Any]:
    """Finds the readable samples of a part.

    Args:
        number: index of the part.
        part: a tar, or a part of a published file.
        folder: existing folder for the tar that is made from a part of a published file.

    Returns:
        JSON: ``path`` of the tar, ``rows`` (key, and four numbers of the index), ``problems``; ``num`` problems.

    Raises:
        OSError: the tar cannot be written.
    """
    tally = Tally(max_problems=_MAX_PROBLEMS, log_problems=False)
    shard = part if isinstance(part, Shard) else _as_tar(number, part, folder, tally)
    rows = [[s.key, *record, *image] for _, s, (record, image) in shard.read_places(tally)] if shard else []
    num_problems = tally.num_bad + tally.num_cut
    return {"path": str(shard.path) if shard else "", "rows": rows, "problems": tally.problems, "num": num_problems}


def _as_tar(number: int, part: SamplePart, folder: Path, tally: Tally) -> Shard | None:
    with ShardFile(folder, number) as file:
        for _, sample in part.read(tally):
            try:
                file.write(sample)
            except DataError as error:
                tally.note(error)
        return Shard(file.path) if file.close() else None


@dataclass
class ScanIndex:
    """Index of the readable samples of several sets.

    Attributes:
        rows: the index, ``_COLUMNS`` numbers per sample.
        paths: paths of the tars.
        sets: index of the set of each tar.
        problems: the first messages of each part.
        num_bad: number of samples that cannot be used.
        num_renamed: number of samples whose key also occurs in another set.
    """

    rows: array[int] = field(default_factory=lambda: array("Q"))
    paths: list[str] = field(default_factory=list)
    sets: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    num_bad: int = 0
    num_renamed: int = 0

    @property
    def num_samples(self) -> int:
        """Returns the number of readable samples."""
        return len(self.rows) // _COLUMNS

    def save(self, path: Path) -> None:
        """Writes the index for ``Mixture``."""
        np.save(path, np.asarray(self.rows, dtype=np.uint64).reshape(-1, _COLUMNS))


def merge_scans(scans: Iterable[Mapping[str, Any]], sets: Sequence[int], names: Sequence[str]) -> ScanIndex:
    """Merges the results of ``scan_part`` into one index in which every key is unique.

    A key that occurs in several sets gets the name of its set as a prefix in each of them. Other keys do not change. A
    sample whose key has occurred before in the same set is bad.

    Args:
        scans: results of the parts, in order.
        sets: index of the set of each part.
        names: names of the sets.

    Raises:
        DataError: a key with the prefix of its set already exists.
    """
    index, first_rows, more = ScanIndex(), dict[str, int](), set[tuple[str, int]]()
    renamed: list[tuple[str, int]] = []
    for part, scan in enumerate(scans):
        index.paths.append(scan["path"])
        index.sets.append(sets[part])
        index.problems += scan["problems"]
        index.num_bad += scan["num"]
        for key, *places in scan["rows"]:
            row = first_rows.setdefault(key, index.num_samples)
            other_set = sets[index.rows[row * _COLUMNS]] if row < index.num_samples else None
            if other_set == sets[part] or (key, sets[part]) in more:
                index.num_bad += 1
                index.problems.append(f"{scan['path']} sample {key}: key: occurs twice in this set; make keys unique")
                continue
            if other_set is not None:
                more.add((key, sets[part]))
                if not index.rows[(row + 1) * _COLUMNS - 1]:
                    index.rows[(row + 1) * _COLUMNS - 1] = 1
                    renamed.append((key, other_set))
                renamed.append((key, sets[part]))
            index.rows.extend((part, *places, int(other_set is not None)))
    new = [f"{names[set_number]}-{key}" for key, set_number in renamed]
    for key in new:
        if key in first_rows:
            remedy = f"'{key}' exists, and a key of several sets would be renamed to it; rename a folder"
            raise DataError(", ".join(names), "key", remedy)
    if len(set(new)) < len(new):
        raise DataError(
            ", ".join(names), "key", "would be the same for several samples after renaming; rename a folder"
        )
    index.num_renamed = len(renamed)
    return index


@dataclass(frozen=True)
class Mixture:
    """Reads samples by their number in the index. Picklable.

    Attributes:
        index: file that ``ScanIndex.save`` wrote.
        paths: paths of the tars.
        prefixes: prefix for keys of each tar: the name of its set.
    """

    index: Path
    paths: Sequence[str]
    prefixes: Sequence[str]

    def samples(self, numbers: Sequence[int]) -> list[Sample | DataError]:
        """Reads samples in the order of the files, and returns them in the order of ``numbers``.

        Returns:
            For each number the sample, or an error if it can no longer be read.

        Raises:
            DataError: a file can no longer be opened.
        """
        rows = np.load(self.index, mmap_mode="r")[list(numbers)]
        fetched: list[Sample | DataError] = [DataError("", "", "")] * len(numbers)
        for file in np.unique(rows[:, 0]):
            path, prefix = self.paths[int(file)], self.prefixes[int(file)]
            try:
                with open(path, "rb") as stream:
                    for slot in sorted(np.flatnonzero(rows[:, 0] == file), key=lambda i: int(rows[i, 1])):
                        _, at, length, image_at, image_length, renamed = map(int, rows[slot])
                        stream.seek(at)
                        record = stream.read(length)
                        stream.seek(image_at)
                        image = stream.read(image_length)
                        fetched[slot] = _sample(path, at, record, image, prefix if renamed else "")
            except OSError as error:
                raise DataError(path, "file", f"cannot be read ({error.strerror}); restore it") from error
        return fetched


def _sample(path: str, at: int, record: bytes, image: bytes, prefix: str) -> Sample | DataError:
    try:
        sample = decode_record(path, f"at byte {at}", {"json": record, image_extension(image, path): image})
    except DataError as error:
        return error
    return replace(sample, key=f"{prefix}-{sample.key}") if prefix else sample


def even_ranges(num: int, most: int) -> Iterator[range]:
    """Splits 0 to ``num`` - 1 into ranges of at most ``most`` numbers whose lengths differ by one at most.

    >>> list(even_ranges(7, 3))
    [range(0, 3), range(3, 5), range(5, 7)]
    """
    parts = -(-num // most)
    share, longer = divmod(num, parts) if parts else (0, 0)
    start = 0
    for number in range(parts):
        stop = start + share + (number < longer)
        yield range(start, stop)
        start = stop


def source_record(path: Path, store: SampleStore) -> dict[str, Any]:
    """Returns the record of an input set for the manifest of the new set."""
    if not isinstance(store, ShardFolder):
        return {"path": str(path), "num_bytes": path.stat().st_size}
    manifest = store.manifest
    licences = manifest.counts.get("licences")
    return {
        "path": str(path),
        "manifest_sha256": sha256_of(path / MANIFEST),
        "num_samples": manifest.num_samples,
        "seed": manifest.seed,
        "revision": manifest.revision,
        "config": manifest.config,
        **({"licences": licences} if licences else {}),
    }


def file_stamps(path: Path, store: SampleStore) -> list[tuple[int, int]]:
    """Returns size and modification time of each file; they show whether it has to be scanned again."""
    files = [shard.path for shard in store.parts()] if isinstance(store, ShardFolder) else [path]
    return [(status.st_size, status.st_mtime_ns) for status in (file.stat() for file in files)]
