"""Composites: several entities of one category on one canvas, with exact boxes (paper v3, appendix B.1)."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from PIL import Image

from kvg.composites.augmentations import Ground
from kvg.composites.backgrounds import BACKGROUNDS, PHOTOGRAPH, Background, Photographs
from kvg.composites.clutter import clutter
from kvg.composites.entity_sampler import EntitySampler
from kvg.composites.layouts import LAYOUTS, Cell, Layout, overlapping, reading_order
from kvg.composites.least_size import LeastSize, TooSmall
from kvg.composites.pasting import Placing, fills, place, visible
from kvg.composites.settings import SUBSAMPLING, CompositorConfig, as_range
from kvg.composites.sources import TileSource
from kvg.composites.tiles import Tile, origins
from kvg.errors import ConfigError
from kvg.types import Box, Sample, SceneObject

T = TypeVar("T")
_MAX_OVERLAP_ATTEMPTS: Final = 8  # then the composite is laid out without overlap
_MAX_SIZE_ATTEMPTS: Final = 12  # layouts per canvas; then other pictures on another canvas are tried
_MAX_CANVAS_ATTEMPTS: Final = 4  # canvases per composite; then the composite is left out


@dataclass(frozen=True)
class _Laid:
    """A tile on its canvas, and the box of the visible part of its entity."""

    number: int  # index of the entity
    tile: Tile
    placing: Placing
    box: Box


class Compositor:
    """Makes samples. A sample depends only on ``(seed, index)``, so any process can make it.

    Args:
        source: source of tiles.
        config: settings of the composites.

    Raises:
        ConfigError: no category or entity is left to sample from.
        DataError: a category has fewer than two entities, so there are no distractors.
    """

    def __init__(self, source: TileSource, config: CompositorConfig | None = None) -> None:
        self.source, self.config = source, config or CompositorConfig()
        self.sampler = EntitySampler(
            source, self.config.neighbour_prob, self.config.categories, self.config.split, self.config.targets
        )
        self._backgrounds: dict[str, Background] = dict(BACKGROUNDS)
        if self.config.backgrounds.get(PHOTOGRAPH):
            self._backgrounds[PHOTOGRAPH] = Photographs(
                self.config.background_folder or "", mirror=self.config.mirror_backgrounds
            )
        self._layouts: dict[str, Layout] = {
            **LAYOUTS,
            "overlapping": functools.partial(overlapping, share=self.config.max_overlap),
        }
        self._least = LeastSize(self.config.min_object_px, self.config.min_object_share)

    def sample(self, index: int) -> Sample:
        """Makes one sample, without a rationale.

        Raises:
            DataError: a tile cannot be read, or an object would be too small.
        """
        config = self.config
        first = index - index % 2 if config.paired else index
        rng = random.Random(f"{config.seed}/{first}")  # the same numbers for both of a pair
        category, entities, target = self.sampler.draw(_weighted(config.k_weights, rng), rng)
        places = self._places(entities, target, swapped=first != index)
        small = TooSmall(self._least)
        for _ in range(_MAX_CANVAS_ATTEMPTS):
            width, height = rng.choice(list(config.canvas_sizes))
            canvas = (width, height)
            background = _weighted(config.backgrounds, rng)
            image = self._backgrounds[background](canvas, rng)
            own = [self.tile(entity, rng) for entity in entities]
            layout, laid = self._laid_out([own[place] for place in places], canvas, small, rng)
            if laid:
                break
        entities = [entities[place] for place in places]
        if not laid:
            raise small.error(entities)
        # The empty background: else the augmentation of a tile would depend on the order of pasting.
        ground = Ground(image)
        if config.clutter[1]:
            clutter(image, self, category, config.clutter, [one.placing for one in laid], rng)
        for one in laid:
            picture = self.treated(one.tile, one.placing, ground, rng)
            image.paste(picture, one.placing.frame[:2], picture if picture.mode == "RGBA" else None)
        image = config.augmentations.on_picture(image, rng)
        order = reading_order([one.box for one in laid])
        laid.sort(key=lambda one: order.index(one.box))
        names = [entities[one.number] for one in laid]
        info = self.source.info(target)
        return Sample(
            key=_key(config.seed, index),
            image=_encode(image, config, rng),
            width=canvas[0],
            height=canvas[1],
            category=category,
            split=info.split,
            objects=tuple(
                SceneObject(name, one.box, self.source.info(name).traits) for name, one in zip(names, laid, strict=True)
            ),
            target=names.index(target),
            knowledge=info.knowledge,
            licences=tuple(sorted({one.tile.licence for one in laid} - {""})),
            pair=_key(config.seed, first) if config.paired else "",
            provenance={
                "seed": config.seed,
                "index": index,
                "layout": layout,
                "background": background,
                "source": type(self.source).__name__,
                **origins([one.tile for one in laid]),
            },
        )

    def _places(self, entities: Sequence[str], target: str, swapped: bool) -> list[int]:
        """Returns which entity stands in each place: its own, or target and look-alike in that of the other."""
        places, own = list(range(len(entities))), entities.index(target)
        if swapped and len(entities) > 1:
            looks, near = set(self.source.info(target).traits), set(self.source.neighbours(target))
            other = max(
                (place for place in places if place != own),
                key=lambda place: (entities[place] in near, len(looks & set(self.source.info(entities[place]).traits))),
            )
            places[own], places[other] = other, own
        return places

    def tile(self, entity: str, rng: random.Random) -> Tile:
        """Returns a tile of an entity.

        Raises:
            DataError: the tile cannot be read.
        """
        picture = self.source.tile(entity, rng)
        return picture if isinstance(picture, Tile) else Tile.of(picture)

    def treated(self, tile: Tile, placing: Placing, ground: Ground, rng: random.Random) -> Image.Image:
        """Returns the augmented picture of a tile to paste. Targets, distractors and clutter are treated the same."""
        image = tile.scaled(placing.size, placing.region)
        return self.config.augmentations.on_tile(image, tile, placing, ground, rng)

    def _laid_out(
        self, tiles: Sequence[Tile], canvas: tuple[int, int], small: TooSmall, rng: random.Random
    ) -> tuple[str, list[_Laid]]:
        """Samples a layout in which no object is too small, see ``_sample_layout``; empty if none was found."""
        for _ in range(_MAX_SIZE_ATTEMPTS):
            layout, laid = self._sample_layout(tiles, canvas, rng)
            too_small = [one for one in laid if not self._least.holds(one.box, canvas)]
            if not too_small:
                return layout, laid
            for one in too_small:
                small.add(one.number, one.tile, one.box)
        return "", []

    def _sample_layout(
        self, tiles: Sequence[Tile], canvas: tuple[int, int], rng: random.Random
    ) -> tuple[str, list[_Laid]]:
        """Returns the layout's name, and each tile with its visible box, from the lowest to the uppermost."""
        config = self.config
        layout, cells = self._place(len(tiles), canvas, config.layouts, rng)
        laid = self._laid(tiles, cells, canvas, rng)
        for _ in range(_MAX_OVERLAP_ATTEMPTS if layout == "overlapping" else 0):
            rng.shuffle(laid)
            placings = [one.placing for one in laid]
            extents = visible(canvas, placings, [_shape(one) for one in laid], [t.tile.box is not None for t in laid])
            if max(hidden for _, hidden in extents) <= config.max_overlap:
                boxes = [box if hidden and box else one.box for (box, hidden), one in zip(extents, laid, strict=True)]
                return layout, [replace(one, box=box) for one, box in zip(laid, boxes, strict=True)]
            laid = self._laid(tiles, self._layouts[layout](len(tiles), canvas, config.gap, rng), canvas, rng)
        if layout == "overlapping":
            layout, cells = self._place(len(tiles), canvas, {"random": 1.0}, rng)
            laid = self._laid(tiles, cells, canvas, rng)
        return layout, laid

    def _laid(
        self, tiles: Sequence[Tile], cells: Sequence[Cell], canvas: tuple[int, int], rng: random.Random
    ) -> list[_Laid]:
        config, placed = self.config, []
        same = config.same_scale > 0 and rng.random() < config.same_scale
        tiles = [self._least.tightened(tile, cell, canvas) for tile, cell in zip(tiles, cells, strict=True)]
        shares = fills(tiles, cells, config.fill, same, rng)
        for number, (tile, cell, fill) in enumerate(zip(tiles, cells, shares, strict=True)):
            fill = max(fill, self._least.fill(tile, cell, canvas))
            placing = place(tile, cell, fill, config.snap_px or 1, rng)
            x1, y1, x2, y2 = map(float, placing.box)
            placed.append(_Laid(number, tile, placing, (x1, y1, x2, y2)))
        return placed

    def _place(
        self, num_tiles: int, canvas: tuple[int, int], layouts: Mapping[str, float], rng: random.Random
    ) -> tuple[str, list[Cell]]:
        """Samples a layout whose cells are large enough, or else the one with the largest cells."""
        left = {name: weight for name, weight in layouts.items() if weight > 0}
        best, cells = "", list[Cell]()
        while left:
            name = _weighted(left, rng)
            slots = self._layouts[name](num_tiles, canvas, self.config.gap, rng)
            if not best or _shortest(slots) > _shortest(cells):
                best, cells = name, slots
            if _shortest(slots) >= self.config.min_cell_px:
                best, cells = name, slots
                break
            del left[name]
        if _shortest(cells) < (self.config.snap_px or 1) * 2:
            raise ConfigError("compositor.canvas_sizes", f"{canvas} is too small for {num_tiles} tiles; enlarge it")
        return best, cells


def _shape(laid: _Laid) -> Image.Image | None:
    """Returns the alpha of a cut-out before its edge is softened; None for a whole picture."""
    if not laid.tile.picture.cut_out:
        return None
    return laid.tile.scaled(laid.placing.size, laid.placing.region).getchannel("A")


def _key(seed: int, index: int) -> str:
    return f"s{seed}-{index:07d}"


def _shortest(cells: Sequence[Cell]) -> int:
    return min(min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in cells)


def _weighted(weights: Mapping[T, float], rng: random.Random) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]


def _encode(image: Image.Image, config: CompositorConfig, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    if config.image_format == "png":
        image.save(buffer, "PNG")
    else:
        quality = rng.randint(*as_range(config.quality))
        image.save(buffer, "JPEG", quality=quality, subsampling=SUBSAMPLING[config.chroma])
    return buffer.getvalue()
