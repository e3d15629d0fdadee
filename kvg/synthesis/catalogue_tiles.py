"""Tiles from the catalogue of a project: whole pictures with their boxes, cut-outs as they are."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kvg.catalogue.boxing import boxed_entries
from kvg.catalogue.entry import CATALOGUE, Entry, open_entry
from kvg.catalogue.project import load_project, read_yaml
from kvg.errors import ConfigError, DataError
from kvg.records import text_of
from kvg.rewards.accuracies import read_accuracies
from kvg.synthesis.sources import EntityInfo
from kvg.synthesis.tiles import Picture, Tile
from kvg.text.names import clean_name
from kvg.text.special_tokens import check_plain
from kvg.types import Box

KNOWLEDGE = "knowledge.json"  # in a project's folder: {entity: share of the questions about it answered rightly}
KNOWN = 0.30  # as published, the lower end of the third of five levels; a guess among four is right in 0.25


class CatalogueTiles:
    """A ``kvg.synthesis.sources.TileSource`` of a scanned project.

    Where the project's folder holds ``knowledge.json``, an entity is ``known`` from an accuracy of 0.30 on.

    Args:
        project: the project file, scanned before.
        uses: which pictures: ``train``, ``val``, ``test``.
        facts: YAML file with ``{entity: its looks, comma separated}``; entities that it leaves out have no note.
        max_side: pictures are kept no larger than this, in pixels.
        cache_mb: main memory for pictures that have been opened, in each process.

    Raises:
        ConfigError: ``uses`` is none of them, or ``facts`` is no such file.
        DataError: the project has not been scanned, no picture with a box is left, or ``facts`` or ``knowledge.json``
            is damaged.
    """

    def __init__(
        self,
        project: str | Path,
        uses: Sequence[str] = ("train",),
        facts: str | Path | None = None,
        max_side: int = 480,
        cache_mb: int = 512,
    ) -> None:
        if not uses or set(uses) - {"train", "val", "test"}:
            raise ConfigError("source.uses", f"{list(uses)} are not some of train, val, test")
        found = load_project(project)
        self._sources, self._max_pixels = found.build_sources(), found.scan.max_pixels
        self._entries: dict[str, list[Entry]] = {}
        self._categories: dict[str, list[str]] = {}
        for entry in boxed_entries(found):
            if entry.use not in uses or entry.box_px is None:
                continue
            if entry.entity not in self._entries:
                self._categories.setdefault(entry.category, []).append(entry.entity)
            self._entries.setdefault(entry.entity, []).append(entry)
        if not self._entries:
            raise DataError(str(found.out / CATALOGUE), "box_px", f"no picture with a box is for {', '.join(uses)}")
        self._notes = _read_facts(facts) if facts else {}
        self._knowledge = _read_knowledge(found.out / KNOWLEDGE)
        self._max_side, self._max_bytes = max_side, cache_mb * 2**20
        self._kept: OrderedDict[tuple[str, str], Tile] = OrderedDict()
        self._num_bytes = 0

    def categories(self) -> tuple[str, ...]:
        """See ``TileSource``."""
        return tuple(self._categories)

    def entities(self, category: str) -> tuple[str, ...]:
        """See ``TileSource``."""
        return tuple(self._categories[category])

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Empty: pictures do not say who resembles whom."""
        return ()

    def info(self, entity: str) -> EntityInfo:
        """See ``TileSource``."""
        entry = self._entries[entity][0]
        return EntityInfo(entry.category, entry.split, self._knowledge.get(entity, ""), self._notes.get(entity, ""))

    def tile(self, entity: str, rng: random.Random) -> Tile:
        """See ``TileSource``; mirrored half of the time."""
        return self._opened(rng.choice(self._entries[entity])).mirror(rng)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_num_bytes": 0}  # another process opens them for itself

    def _opened(self, entry: Entry) -> Tile:
        key = entry.source, entry.ref
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = open_entry(self._sources, entry, self._max_pixels)
        if image.size != (entry.width, entry.height) or entry.box_px is None:
            raise DataError(entry.ref, "size", "has changed since the scan; scan again")
        path, cut_out = f"{entry.source}/{entry.ref}", entry.box_from == "alpha"
        image, box = _shrunk(image, entry.box_px, cut_out, self._max_side)
        tile = Tile(Picture(image, path, cropped=cut_out), box, path=path, licence=entry.licence)
        self._kept[key] = tile
        self._num_bytes += tile.picture.num_bytes
        while self._num_bytes > self._max_bytes and len(self._kept) > 1:
            self._num_bytes -= self._kept.popitem(last=False)[1].picture.num_bytes
        return tile


def _shrunk(image: Image.Image, box: Box, cut_out: bool, max_side: int) -> tuple[Image.Image, Box | None]:
    """A picture of at most ``max_side``, and where in it the entity is; a cut-out is cropped to itself."""
    if cut_out:
        x1, y1, x2, y2 = (int(value) for value in box)
        image = image.crop((x1, y1, x2, y2))
    scale = min(1.0, max_side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    across, down = size[0] / image.width, size[1] / image.height
    if scale < 1:
        # Straight RGBA would drag the colour of transparent pixels into the rim, a sharper filter would light it up.
        plain = image.mode == "RGB"
        image = image if plain else image.convert("RGBa")
        sharpness = Image.Resampling.LANCZOS if plain else Image.Resampling.HAMMING
        image = image.resize(size, sharpness, reducing_gap=2.0)
        image = image if plain else image.convert("RGBA")
    return image, None if cut_out else (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


def _read_facts(path: str | Path) -> dict[str, str]:
    """Looks by entity, whose names are spelt as in the catalogue."""
    facts = {}
    for name, looks in read_yaml(path).items():
        entity = clean_name(str(name))
        facts[entity] = text_of(str(path), {entity: looks}, entity)
        check_plain(facts[entity], str(path), entity)
    return facts


def _read_knowledge(path: Path) -> dict[str, str]:
    """``known`` or ``unknown`` by entity; empty where nothing has been measured."""
    if not path.is_file():
        return {}
    return {name: "known" if accuracy >= KNOWN else "unknown" for name, accuracy in read_accuracies(path).items()}
