"""Writes shards: equal samples give equal bytes, and an interrupted run leaves no incomplete shard."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import Self

from kvg.errors import ConfigError, DataError
from kvg.shards.counting import Counts, count_sample, empty_counts, sum_counts
from kvg.shards.manifest import MANIFEST, Manifest, ShardEntry, sha256_of
from kvg.shards.revision import revision
from kvg.shards.schema import encode_record
from kvg.types import Sample
from kvg.work.files import disk_errors
from kvg.work.progress import progress_bar

if TYPE_CHECKING:
    from webdataset.writer import TarWriter

PATTERN: Final = "shard-{:06d}.tar"


class ShardFile:
    """One tar of a set; it gets its final name only when it is complete.

    It is a context manager that removes the unfinished tar on an exception.

    Args:
        folder: existing folder of the set.
        number: index of the shard, from 0.

    Attributes:
        counts: number of samples by value, see ``Manifest``.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / PATTERN.format(number)
        self.num_samples = 0
        self.first_key = ""
        self.counts: Counts = empty_counts()
        self._tar: TarWriter | None = None

    def __enter__(self) -> Self:
        """Returns the shard itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Removes the unfinished tar on an exception."""
        if kind is not None:
            self.discard()

    def write(self, sample: Sample) -> None:
        """Adds a sample.

        Raises:
            DataError: the sample breaks the schema.
        """
        members = encode_record(sample)
        if self._tar is None:
            from webdataset.writer import TarWriter  # it imports torch, which takes two seconds

            # Without time and user, equal samples give equal checksums.
            self._tar = TarWriter(str(self._partial), encoder=False, mtime=0, user="", group="", mode=0o644)
        self._tar.write({"__key__": sample.key, **members})
        self.first_key = self.first_key or sample.key
        self.num_samples += 1
        count_sample(self.counts, sample)

    def close(self) -> ShardEntry | None:
        """Finishes the tar and returns its entry; None, and no file, if no sample was written."""
        if self._tar is None:
            return None
        self._tar.close()
        with self._partial.open("rb") as stream:
            os.fsync(stream.fileno())
        size, checksum = self._partial.stat().st_size, sha256_of(self._partial)
        entry = ShardEntry(self.path.name, self.num_samples, size, checksum, self.first_key)
        os.replace(self._partial, self.path)
        return entry

    def discard(self) -> None:
        """Removes the unfinished tar. It hides its own errors, because the one that stopped the work matters more."""
        if self._tar is not None:
            with contextlib.suppress(OSError):  # the end mark cannot be written to a full disk
                self._tar.close()
            self._tar = None
            self._partial.unlink(missing_ok=True)

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.partial")


class ShardWriter:
    """Context manager that fills a folder with WebDataset tars and, on success, a manifest.

    A shard gets its name only when it is complete. The manifest is written when all shards are complete.

    Args:
        folder: folder of the set; it is created if it is missing.
        samples_per_shard: size of every shard but the last. There should be at least as many shards as processes times
            workers.
        seed: seed for the manifest.
        config: how the set is made, for the manifest; it must be JSON.
        total: expected number of samples for the progress bar; None hides the bar.
        overwrite: whether an existing set is replaced.

    Raises:
        ConfigError: the folder has a finished set and ``overwrite`` is off, or ``samples_per_shard`` is below 1.
    """

    def __init__(
        self,
        folder: str | Path,
        samples_per_shard: int = 500,
        *,
        seed: int | None = None,
        config: Mapping[str, Any] | None = None,
        total: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        check_shard_size(samples_per_shard)
        check_set(self.folder, overwrite)
        self.samples_per_shard, self.seed, self.config = samples_per_shard, seed, dict(config or {})
        self._entries: list[ShardEntry] = []
        self._counts: list[Counts] = []
        self._keys: set[str] = set()
        self._shard: ShardFile | None = None
        self._progress = progress_bar(hidden=total is None)
        self._task = self._progress.add_task(f"writing {self.folder}", total=total)

    def __enter__(self) -> Self:
        """Creates the folder, and removes an old set, its manifest first."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            clear_set(self.folder)
        self._progress.start()
        return self

    def write(self, sample: Sample) -> None:
        """Adds a sample.

        Raises:
            DataError: the sample does not conform to the schema, its key occurs twice, or the disk is full.
        """
        if sample.key in self._keys:
            raise DataError(str(self.folder), "key", f"'{sample.key}' occurs twice; make keys unique")
        if self._shard is None:
            self._shard = ShardFile(self.folder, len(self._entries))
        with disk_errors(self.folder):
            self._shard.write(sample)
            self._keys.add(sample.key)
            self._progress.advance(self._task)
            if self._shard.num_samples == self.samples_per_shard:
                self._close_shard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes the set; on an exception it leaves the set without a manifest."""
        self._progress.stop()
        if kind is not None:
            if self._shard is not None:
                self._shard.discard()
            return
        try:
            with disk_errors(self.folder):
                self._close_shard()
                counts = sum_counts(self._counts)
                Manifest(tuple(self._entries), counts, self.seed, self.config, revision=revision()).save(self.folder)
        except DataError:
            if self._shard is not None:
                self._shard.discard()
            raise

    def _close_shard(self) -> None:
        if self._shard is None:
            return
        entry = self._shard.close()
        if entry is not None:
            self._entries.append(entry)
            self._counts.append(self._shard.counts)
        self._shard = None


def check_shard_size(samples_per_shard: int) -> None:
    """Checks ``samples_per_shard``.

    Raises:
        ConfigError: it is below 1.
    """
    if samples_per_shard < 1:
        raise ConfigError("samples_per_shard", f"{samples_per_shard} must be at least 1")


def check_set(folder: Path, overwrite: bool) -> None:
    """Checks that a set may be written.

    Raises:
        ConfigError: the folder has a complete set and ``overwrite`` is off.
    """
    if (folder / MANIFEST).exists() and not overwrite:
        raise ConfigError("out", f"{folder} already contains a set; choose another folder or allow overwriting")


def clear_set(folder: Path, keep: Iterable[str] = ()) -> None:
    """Removes a set, its manifest first, and the files of an interrupted writer.

    Args:
        folder: folder of the set.
        keep: names of shards that are kept.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    kept = set(keep)
    for old in (*folder.glob("shard-*.tar"), *folder.glob("*.partial")):
        if old.name not in kept:
            old.unlink()
