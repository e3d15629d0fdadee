"""Opens whatever holds samples, by what it is."""

from __future__ import annotations

from pathlib import Path

from kvg.errors import DataError
from kvg.formats.grpo_parquet import GRPOParquet
from kvg.formats.kvg_bench import KVGBench
from kvg.formats.parquet import columns_of
from kvg.formats.sharegpt import ShareGPTFile
from kvg.shards.manifest import sha256_of
from kvg.shards.reader import SampleStore, ShardFolder


def open_store(path: str | Path) -> SampleStore:
    """Opens a folder of shards, a ShareGPT JSON, or a GRPO or KVG-Bench parquet.

    Raises:
        DataError: it is none of them, or cannot be used.
    """
    path = Path(path)
    if path.suffix == ".json":
        return ShareGPTFile(path)
    if path.suffix == ".parquet":
        return KVGBench(path) if "question_id" in columns_of(path)[0] else GRPOParquet(path)
    if path.is_file():
        raise DataError(str(path), "suffix", "must be .json (ShareGPT), .parquet, or a folder of shards")
    return ShardFolder(path)


def checksums_of(path: str | Path) -> list[str]:
    """SHA-256 of each file that holds the samples, those of shards as their manifest tells.

    Raises:
        DataError: see ``open_store``.
    """
    store = open_store(path)
    if isinstance(store, ShardFolder):
        return [entry.sha256 for entry in store.manifest.shards]
    return [sha256_of(Path(path))]
