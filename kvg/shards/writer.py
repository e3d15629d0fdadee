"""Writes shards so that the same samples give the same bytes, and an interrupted run leaves nothing half done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typing_extensions import Self

from kvg.errors import ConfigError, DataError
from kvg.shards.manifest import MANIFEST, Manifest, ShardEntry, sha256_of
from kvg.shards.schema import encode_record
from kvg.types import Sample

if TYPE_CHECKING:
    from webdataset.writer import TarWriter

PATTERN: Final = "shard-{:06d}.tar"


class ShardWriter:
    """Context manager that fills a folder with WebDataset tars and, on success, a manifest.

    A shard appears under its name only when it is complete, the manifest only when all are.

    Args:
        folder: made where it is missing.
        samples_per_shard: of every shard but the last. Have at least as many shards as processes times workers.
        seed: noted in the manifest.
        config: how the set is made, noted in the manifest; must be JSON.
        total: number of samples to come, for the progress bar; None hides it.
        overwrite: replace a set that is already there.

    Raises:
        ConfigError: the folder holds a finished set and ``overwrite`` is off, or ``samples_per_shard`` is below 1.
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
        if samples_per_shard < 1:
            raise ConfigError("samples_per_shard", f"{samples_per_shard} must be at least 1")
        if (self.folder / MANIFEST).exists() and not overwrite:
            raise ConfigError("out", f"{self.folder} already holds a set; choose another folder or allow overwriting")
        self.samples_per_shard, self.seed, self.config = samples_per_shard, seed, dict(config or {})
        self._entries: list[ShardEntry] = []
        self._keys: set[str] = set()
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("category", "split", "knowledge", "num_objects", "rationale")
        }
        self._tar: TarWriter | None = None
        self._in_shard = 0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, disable=total is None)
        self._task = self._progress.add_task(f"writing {self.folder}", total=total)

    def __enter__(self) -> Self:
        """Makes the folder; an old set loses its manifest first, since it is no longer whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        for old in (*self.folder.glob("shard-*.tar"), *self.folder.glob("*.partial")):
            old.unlink()
        self._progress.start()
        return self

    def write(self, sample: Sample) -> None:
        """Adds a sample.

        Raises:
            DataError: the sample breaks the schema, or its key has been used.
        """
        members = encode_record(sample)
        if sample.key in self._keys:
            raise DataError(str(self.folder), "key", f"'{sample.key}' occurs twice; make keys unique")
        self._keys.add(sample.key)
        if self._tar is None:
            self._tar = self._open_shard()
        self._tar.write({"__key__": sample.key, **members})
        self._count(sample)
        self._in_shard += 1
        self._progress.advance(self._task)
        if self._in_shard == self.samples_per_shard:
            self._close_shard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes the set, or leaves it without a manifest where an exception passes through."""
        self._progress.stop()
        if kind is not None:
            if self._tar is not None:
                self._tar.close()
                self._partial.unlink()
            return
        self._close_shard()
        counts = {name: dict(sorted(counter.items())) for name, counter in self._counts.items()}
        Manifest(tuple(self._entries), counts, self.seed, self.config).save(self.folder)

    @property
    def _partial(self) -> Path:
        return self.folder / f"{PATTERN.format(len(self._entries))}.partial"

    def _open_shard(self) -> TarWriter:
        from webdataset.writer import TarWriter  # it imports torch, which takes two seconds

        # No clock and no user: equal samples give equal checksums.
        return TarWriter(str(self._partial), encoder=False, mtime=0, user="", group="", mode=0o644)

    def _close_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        partial = self._partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        path = self.folder / PATTERN.format(len(self._entries))
        entry = ShardEntry(path.name, self._in_shard, partial.stat().st_size, sha256_of(partial))
        os.replace(partial, path)
        self._entries.append(entry)
        self._tar, self._in_shard = None, 0

    def _count(self, sample: Sample) -> None:
        for name in ("category", "split", "knowledge"):
            self._counts[name][getattr(sample, name) or "-"] += 1
        self._counts["num_objects"][str(len(sample.objects))] += 1
        self._counts["rationale"]["yes" if sample.rationale else "no"] += 1
