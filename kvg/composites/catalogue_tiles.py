"""Tiles from the catalogue of a project: photographs, cut around their boxes, and cut-outs."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kvg.benchmark import knowledge_of_accuracy
from kvg.catalogue.boxing import boxed_entries
from kvg.catalogue.entry import CATALOGUE, Entry, open_entry
from kvg.catalogue.project import CatalogueProject, read_project
from kvg.composites.cropping import Cut
from kvg.composites.mirroring import Mirroring
from kvg.composites.sources import EntityInfo
from kvg.composites.tiles import Picture, Tile
from kvg.errors import ConfigError, DataError
from kvg.rationales.facts import read_facts
from kvg.rewards.accuracies import read_accuracies
from kvg.types import Box

KNOWLEDGE = "knowledge.json"  # in a project's folder: {entity: share of correct answers about it}


class CatalogueTiles:
    """A ``kvg.composites.sources.TileSource`` of a scanned project.

    If the project's folder has ``knowledge.json``, an entity is ``known`` if its accuracy is at least 0.30.

    Args:
        project: project file, already scanned.
        uses: uses of the pictures: ``train``, ``val``, ``test``.
        facts: YAML file ``{entity: traits, separated by commas}``; entities that are not in it have no traits.
        max_side: maximum side of cached pictures, in pixels.
        cache_mb: memory for opened pictures in each process, in MB.
        margin: ``[low, high]``, range of the margin around a box when a photograph is cut, as shares of the square root
            of the box's area; None uses whole photographs.
        min_cut_px: minimum side of a cut in pixels, if the photograph is large enough.
        mirror: whether half of the tiles are mirrored.
        unmirrored_sources: sources whose pictures are never mirrored, because they contain text.
        unmirrored_categories: categories whose pictures are never mirrored.

    Raises:
        ConfigError: a setting is outside its range, or ``facts`` cannot be opened.
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
        margin: tuple[float, float] | None = (0.1, 0.5),
        min_cut_px: int = 64,
        mirror: bool = True,
        unmirrored_sources: Sequence[str] = (),
        unmirrored_categories: Sequence[str] = (),
    ) -> None:
        if not uses or set(uses) - {"train", "val", "test"}:
            raise ConfigError("source.uses", f"{list(uses)} are not some of train, val, test")
        for name, value, least in (("max_side", max_side, 1), ("cache_mb", cache_mb, 0)):
            if value < least:
                raise ConfigError(f"source.{name}", f"{value} must be at least {least}")
        self._cut = Cut.of(margin, min_cut_px, "source")
        loaded = read_project(project, CatalogueProject)
        self._sources, self._max_pixels = loaded.build_sources(), loaded.scan.max_pixels
        self._entries: dict[str, list[Entry]] = {}
        self._categories: dict[str, list[str]] = {}
        categories, known = set(), set()
        for entry in boxed_entries(loaded):
            categories.add(entry.category)
            known.add(entry.entity)
            if entry.use not in uses or entry.box_px is None:
                continue
            if entry.entity not in self._entries:
                self._categories.setdefault(entry.category, []).append(entry.entity)
            self._entries.setdefault(entry.entity, []).append(entry)
        if not self._entries:
            remedy = f"no picture with a box is for {', '.join(uses)}; run `kvg-data scan`, which tells what to do"
            raise DataError(str(loaded.out / CATALOGUE), "box_px", remedy)
        self._traits: dict[str, tuple[str, ...]] = {}
        if facts:
            read = read_facts(facts, self._entries, known)
            read.report(str(facts))
            self._traits = read.traits
        self._knowledge = _read_knowledge(loaded.out / KNOWLEDGE)
        unmirrored = {
            "unmirrored_sources": (unmirrored_sources, loaded.sources),
            "unmirrored_categories": (unmirrored_categories, categories),
        }
        self._mirror = Mirroring.of(mirror, unmirrored, "source")
        self._max_side, self._max_bytes = max_side, cache_mb * 2**20
        self._kept: OrderedDict[tuple[str, str, Box | None], tuple[Tile, float]] = OrderedDict()
        self._num_bytes = 0

    def categories(self) -> tuple[str, ...]:
        """See ``TileSource``."""
        return tuple(self._categories)

    def entities(self, category: str) -> tuple[str, ...]:
        """See ``TileSource``."""
        return tuple(self._categories[category])

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Returns no neighbours: a catalogue does not know which entities are similar."""
        return ()

    def info(self, entity: str) -> EntityInfo:
        """See ``TileSource``."""
        entry = self._entries[entity][0]
        return EntityInfo(entry.category, entry.split, self._knowledge.get(entity, ""), self._traits.get(entity, ()))

    def tile(self, entity: str, rng: random.Random) -> Tile:
        """See ``TileSource``; the tile is cut around its box, and mirrored half of the time if that is allowed."""
        entry = rng.choice(self._entries[entity])
        tile, scale = self._opened(entry)
        tile = self._cut.draw(tile, rng, scale) if self._cut else tile
        groups = {"unmirrored_sources": entry.source, "unmirrored_categories": entry.category}
        return self._mirror.draw(tile, rng, **groups)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_num_bytes": 0}  # each process has its own cache

    def _opened(self, entry: Entry) -> tuple[Tile, float]:
        """Returns the widest cut of a picture, and the factor by which it was scaled."""
        key = entry.source, entry.ref, entry.box_px
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = open_entry(self._sources, entry, self._max_pixels)
        if image.size != (entry.width, entry.height) or entry.box_px is None:
            raise DataError(entry.ref, "size", "has changed since the scan; scan again")
        path, box, cut_out = f"{entry.source}/{entry.ref}", entry.box_px, entry.box_from == "alpha"
        if self._cut and not cut_out:
            window = self._cut.widest(box, image.size)
            image, box = image.crop(window), _moved(box, window)
        image, shrunk_box, scale = _shrunk(image, box, cut_out, self._max_side)
        tile = Tile(Picture(image, path, cropped=cut_out), shrunk_box, path=path, licence=entry.licence)
        self._kept[key] = tile, scale
        self._num_bytes += tile.picture.num_bytes
        while self._num_bytes > self._max_bytes and len(self._kept) > 1:
            self._num_bytes -= self._kept.popitem(last=False)[1][0].picture.num_bytes
        return tile, scale


def _moved(box: Box, window: tuple[int, int, int, int]) -> Box:
    """Converts a box to pixels of a window."""
    return box[0] - window[0], box[1] - window[1], box[2] - window[0], box[3] - window[1]


def _shrunk(image: Image.Image, box: Box, cut_out: bool, max_side: int) -> tuple[Image.Image, Box | None, float]:
    """Shrinks a picture to ``max_side``; crops a cut-out to its box.

    Returns:
        The picture, the box in it (None for a cut-out), and the scale.
    """
    if cut_out:
        x1, y1, x2, y2 = (int(value) for value in box)
        image = image.crop((x1, y1, x2, y2))
    scale = min(1.0, max_side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    across, down = size[0] / image.width, size[1] / image.height
    if scale < 1:
        # Premultiplied alpha keeps the colour of transparent pixels out of the edge; a filter with negative lobes would
        # make the edge too bright.
        plain = image.mode == "RGB"
        image = image if plain else image.convert("RGBa")
        sharpness = Image.Resampling.LANCZOS if plain else Image.Resampling.HAMMING
        image = image.resize(size, sharpness, reducing_gap=2.0)
        image = image if plain else image.convert("RGBA")
    return image, None if cut_out else (box[0] * across, box[1] * down, box[2] * across, box[3] * down), scale


def _read_knowledge(path: Path) -> dict[str, str]:
    """Returns ``known`` or ``unknown`` by entity; empty if nothing has been measured."""
    if not path.is_file():
        return {}
    return {name: knowledge_of_accuracy(accuracy) for name, accuracy in read_accuracies(path).items()}
