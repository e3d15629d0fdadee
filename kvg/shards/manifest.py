"""``manifest.json``: the content of a set of shards. It is written last, so it exists only if the set is complete."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.records import excerpt, list_of, object_of, optional_text, read_json, text_of
from kvg.shards.schema import SCHEMA_VERSION
from kvg.work.files import atomic_write

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class ShardEntry:
    """One tar of a set.

    Attributes:
        file: its name inside the folder.
        num_samples: number of samples in it.
        num_bytes: its size; 0 if unknown.
        sha256: checksum of the file, in hexadecimal.
        first_key: key of its first sample; it shows whether a shard belongs to another set. '' in old sets.
    """

    file: str
    num_samples: int
    num_bytes: int
    sha256: str
    first_key: str = ""


@dataclass(frozen=True)
class Manifest:
    """A set of shards.

    Attributes:
        shards: the tars, in order.
        counts: number of samples by value of each of ``COUNTED``; those of ``licences`` can exceed the total.
        seed: seed of the set; None if there was none.
        config: how the set was made, in free form.
        schema_version: version of its records.
        revision: revision of the code that made the set; '' in old sets.
        identity: identity of the job that made the set, see ``kvg.work.job.Job``; '' if it was not made by a job.
    """

    shards: tuple[ShardEntry, ...]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seed: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    revision: str = ""
    identity: str = ""

    @property
    def num_samples(self) -> int:
        """Returns the number of samples in the set."""
        return sum(shard.num_samples for shard in self.shards)

    def record(self) -> dict[str, Any]:
        """Returns the content of ``manifest.json``."""
        return {"num_samples": self.num_samples, **asdict(self)}

    def save(self, folder: Path) -> None:
        """Writes the manifest atomically."""
        atomic_write(folder / MANIFEST, json.dumps(self.record(), indent=1, ensure_ascii=False) + "\n")


def load_manifest(folder: str | Path) -> Manifest:
    """Reads the manifest of a folder of shards.

    Raises:
        DataError: the folder, the manifest or a shard is missing, or the manifest is damaged.
    """
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        if not (Path(folder) / shard.file).is_file():
            raise _missing(Path(folder), shard)
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """Reads the manifest of a folder of shards; does not look at the shards.

    Raises:
        DataError: the folder or the manifest is missing or damaged, or lists no sample.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(str(folder), "folder", "does not exist; make the shards first, or correct the path")
    if not path.is_file():
        remedy = "is missing: these are no shards (make them with `kvg-data compose`), or writing was not finished"
        raise DataError(str(folder), MANIFEST, remedy)
    record = object_of(str(path), "manifest", read_json(path))
    manifest = _manifest(str(path), record)
    if not manifest.num_samples:
        raise DataError(str(path), "num_samples", "is 0; make a set that has samples")
    return manifest


def _manifest(where: str, record: Mapping[str, Any]) -> Manifest:
    version = _whole(where, record, "schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(where, "schema_version", f"is {version}, this program reads {SCHEMA_VERSION}; convert it")
    counts = {}
    for name, values in object_of(where, "counts", record.get("counts")).items():
        values = object_of(where, f"counts.{name}", values)
        counts[name] = {value: _whole(f"{where} counts.{name}", values, value) for value in values}
    seed = record.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise DataError(where, "seed", f"{excerpt(seed)} must be a whole number; make the shards again")
    return Manifest(
        tuple(_entry(where, number, raw) for number, raw in enumerate(list_of(where, "shards", record.get("shards")))),
        counts,
        seed,
        object_of(where, "config", record.get("config")),
        version,
        optional_text(where, record, "revision"),
        optional_text(where, record, "identity"),
    )


def _entry(where: str, number: int, raw: Any) -> ShardEntry:
    entry, where = object_of(where, f"shards[{number}]", raw), f"{where} shards[{number}]"
    file = text_of(where, entry, "file")
    if Path(file).name != file or "\0" in file:
        raise DataError(
            where, "file", f"{excerpt(file)} is not the name of a file in the set's folder; copy the set again"
        )
    num_samples = _whole(where, entry, "num_samples")
    num_bytes = _whole(where, entry, "num_bytes") if entry.get("num_bytes") is not None else 0
    sha256, first_key = text_of(where, entry, "sha256"), optional_text(where, entry, "first_key")
    return ShardEntry(file, num_samples, num_bytes, sha256, first_key)


def _whole(where: str, record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise DataError(where, name, f"{excerpt(value)} must be a whole number from 0 on; make the shards again")
    return value


def file_faults(folder: Path, manifest: Manifest) -> Iterator[DataError]:
    """Yields an error for each shard that is missing, has another size, belongs to another set, or is not listed.

    It reads only the first header of each shard.
    """
    for shard in manifest.shards:
        path = folder / shard.file
        if not path.is_file():
            yield _missing(folder, shard)
            continue
        size = path.stat().st_size
        if shard.num_bytes and size != shard.num_bytes:
            remedy = f"has {size} bytes, the manifest says {shard.num_bytes}; copy or make the set again"
            yield DataError(str(path), "size", remedy)
        elif shard.first_key and (key := _first_key(path)) not in ("", shard.first_key):
            remedy = (
                f"begins with sample {key}, the manifest says {shard.first_key}: it is of another set; copy it again"
            )
            yield DataError(str(path), "key", remedy)
    listed = {shard.file for shard in manifest.shards}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in listed:
            remedy = "is not in the manifest, so it would not be read; remove it, or make the set again"
            yield DataError(str(path), "shard", remedy)


def _missing(folder: Path, shard: ShardEntry) -> DataError:
    return DataError(str(folder / MANIFEST), shard.file, "is listed but missing; copy the whole folder again")


def _first_key(path: Path) -> str:
    """Returns the key of the first sample; '' if its header is damaged, which the reader reports."""
    try:
        with path.open("rb") as stream:
            header = tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except (tarfile.TarError, OSError, ValueError):
        return ""
    return header.name.rpartition("/")[2].partition(".")[0] if header.isreg() else ""


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
