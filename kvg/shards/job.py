"""A set of shards as a job: each shard is a unit, and the manifest is the record."""

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
        folder: of the set.
        name: of the work; names the folder of its units.
        identity: all that the set depends on.
        marks: what its shards depend on, where that is more.
    """

    def __init__(self, folder: Path, name: str, identity: str, marks: str | None = None) -> None:
        super().__init__(folder, MANIFEST, identity, marks, units=folder / f"{name}.units")

    def is_complete(self, *results: Path) -> bool:
        """See ``Job.is_complete``.

        Raises:
            DataError: the manifest is there, but one of its shards is not.
        """
        return super().is_complete(*results) and load_manifest(self.folder).num_samples > 0

    def open(self, overwrite: bool) -> None:
        """Prepares the folder: keeps the shards that are done, removes everything else of a set.

        Args:
            overwrite: whether a complete set may be replaced.

        Raises:
            ConfigError: a complete set is there.
            DataError: the disk refuses.
        """
        check_set(self.folder, overwrite)
        self.reopen()
        with disk_errors(self.folder):
            clear_set(self.folder, keep=[PATTERN.format(number) for number in self.done()])

    def finish(self, num: int, seed: int | None, config: Mapping[str, Any]) -> int:
        """Writes the manifest from the results of the units, see ``shard_result``.

        Args:
            num: units.
            seed: see ``kvg.shards.manifest.Manifest``.
            config: see there.

        Returns:
            Samples in the set. Where there are none, no manifest is written, and the units are removed.

        Raises:
            DataError: the disk refuses.
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
    """Closes a shard; returns the result of its unit: its entry (None where it is empty), counts, and ``more``."""
    entry = shard.close()
    return {"entry": entry and asdict(entry), "counts": shard.counts, **more}
