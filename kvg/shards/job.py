"""Makes a set of shards as a job: each shard is a unit, and the manifest is the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kvg.shards.counting import sum_counts
from kvg.shards.manifest import MANIFEST, Manifest, ShardEntry, load_manifest
from kvg.shards.revision import revision
from kvg.shards.writer import PATTERN, ShardFile, check_set, clear_set
from kvg.work.files import disk_errors
from kvg.work.job import Job


class ShardJob(Job):
    """Makes a set shard by shard; see ``kvg.work.job.Job``.

    Args:
        folder: folder of the set.
        name: name of the job; it names the folder of its units.
        identity: text of everything that the set depends on.
        marks: text of everything that its shards depend on; None for ``identity``.
    """

    def __init__(self, folder: Path, name: str, identity: str, marks: str | None = None) -> None:
        super().__init__(folder, MANIFEST, identity, marks, units=folder / f"{name}.units")

    def is_complete(self, *results: Path) -> bool:
        """See ``Job.is_complete``.

        Raises:
            DataError: the manifest exists, but one of its shards is missing.
        """
        return super().is_complete(*results) and load_manifest(self.folder).num_samples > 0

    def open(self, overwrite: bool) -> None:
        """Prepares the folder: keeps finished shards and removes all other files of a set.

        Args:
            overwrite: whether a complete set may be replaced.

        Raises:
            ConfigError: the folder has a complete set, and ``overwrite`` is off.
            DataError: the disk cannot be written.
        """
        check_set(self.folder, overwrite)
        self.reopen()
        with disk_errors(self.folder):
            clear_set(self.folder, keep=[PATTERN.format(number) for number in self.done()])

    def finish(self, num: int, seed: int | None, config: Mapping[str, Any]) -> int:
        """Writes the manifest from the results of the units, see ``shard_result``.

        Args:
            num: number of units.
            seed: see ``kvg.shards.manifest.Manifest``.
            config: see ``kvg.shards.manifest.Manifest``.

        Returns:
            Number of samples in the set. If it is 0, no manifest is written, and the units are removed.

        Raises:
            DataError: the disk cannot be written.
        """
        results = [result for result in self.results(num) if result["entry"]]
        entries = tuple(ShardEntry(**result["entry"]) for result in results)
        if entries:
            counts = sum_counts(result["counts"] for result in results)
            self.complete(Manifest(entries, counts, seed, config, revision=revision()).record())
        else:
            self.discard()
        return sum(entry.num_samples for entry in entries)


def shard_result(shard: ShardFile, **more: Any) -> dict[str, Any]:
    """Closes a shard; returns the result of its unit: its entry (None if it is empty), its counts, and ``more``."""
    entry = shard.close()
    return {"entry": entry and asdict(entry), "counts": shard.counts, **more}
