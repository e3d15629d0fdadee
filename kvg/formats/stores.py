"""Opens any supported set of samples; its content decides how."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from kvg.errors import DataError
from kvg.formats.entity_list import EntityList, is_entity_list
from kvg.formats.grpo_parquet import GRPOParquet
from kvg.formats.kvg_bench import COLUMNS, KVGBench
from kvg.formats.parquet import columns_of
from kvg.formats.recognition import Recognition, is_recognition
from kvg.formats.refcoco import RefCOCO, form_of
from kvg.formats.sharegpt import ShareGPTFile
from kvg.formats.written_boxes import Reading
from kvg.records import SUFFIXES, load_list
from kvg.shards.manifest import sha256_of
from kvg.shards.reader import SampleStore, ShardFolder

_SHAREGPT: Final = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\[\s*{[^{}\[\]]*"(messages|conversations|images)"\s*:\s*\[')


def open_store(
    path: str | Path,
    images: str | Path | None = None,
    category: str = "",
    seed: int = 0,
    reading: Reading | None = None,
) -> SampleStore:
    """Opens a folder of shards, a ShareGPT JSON, a GRPO or KVG-Bench parquet, or a list of pictures.

    Args:
        path: folder or file.
        images: folder of the pictures that a list names; by default that of the list.
        category: category for a list without categories.
        seed: seed of the options of multiple-choice questions.
        reading: unit and frame of the boxes if the form does not define them.

    Raises:
        DataError: the path is none of these, or cannot be used.
    """
    path, reading = Path(path), reading or Reading()
    if path.suffix in SUFFIXES and (listed := _list_store(path, images, category, seed, reading)) is not None:
        return listed
    if category:
        raise DataError(str(path), "category", "is only for lists of referring expressions or labels; leave it out")
    if path.suffix == ".json":
        return ShareGPTFile(path, images=images, reading=reading)
    if images:
        raise DataError(str(path), "images", "is only for files that name their pictures; leave it out")
    if path.suffix == ".parquet":
        # One column is enough, so that the error names a missing one.
        bench = {*COLUMNS[:4]} & {*columns_of(path)[0]}
        return KVGBench(path, reading) if bench else GRPOParquet(path, reading=reading)
    if path.is_file():
        remedy = "must be .json (ShareGPT or a list), .jsonl or .csv (lists), .parquet, or a folder of shards"
        raise DataError(str(path), "suffix", remedy)
    if reading.box_unit not in (None, "pixels") or reading.boxes_of != "upright":
        remedy = f"{reading.settings} does not fit: boxes of shards are pixels of the upright picture; leave it out"
        raise DataError(str(path), "box_unit", remedy)
    return ShardFolder(path)


def _list_store(
    path: Path, images: str | Path | None, category: str, seed: int, reading: Reading
) -> SampleStore | None:
    """Opens a file that names pictures; returns None for ShareGPT."""
    if path.suffix == ".json" and _SHAREGPT.search(_head(path)):
        return None  # decided without parsing the file, which may be large
    value = load_list(path)
    if form_of(value):
        return RefCOCO(path, images, category, reading)
    if is_entity_list(value):
        return EntityList(path, images, category, reading)
    if is_recognition(value):
        if reading.settings:
            raise DataError(str(path), "box_unit", "is not for labels, which have no boxes; leave it out")
        return Recognition(path, images, category, seed)
    if path.suffix == ".json":
        return None
    remedy = "is not a list of referring expressions (img_path, expression, bbox, ...), names (image, entity)"
    raise DataError(str(path), "form", f"{remedy} or labels (image, label, ...); correct its columns")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(4096)
    except OSError as error:
        raise DataError(str(path), "file", f"cannot be opened ({error.strerror}); correct the path") from error


def checksums_of(path: str | Path, reading: Reading | None = None) -> list[str]:
    """Returns the SHA-256 of each file with samples; for shards, the values in the manifest.

    Raises:
        DataError: see ``open_store``.
    """
    store = open_store(path, reading=reading)
    if isinstance(store, ShardFolder):
        return [entry.sha256 for entry in store.manifest.shards]
    return [sha256_of(Path(path))]
