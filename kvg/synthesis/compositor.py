"""Composites: several entities of one category on one canvas, with exact boxes (paper v3, appendix B.1)."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from PIL import Image

from kvg.catalogue.examine import opaque
from kvg.errors import ConfigError, DataError
from kvg.synthesis.backgrounds import BACKGROUNDS
from kvg.synthesis.layouts import LAYOUTS, Cell, reading_order
from kvg.synthesis.sources import TileSource
from kvg.types import Box, Sample, SceneObject

T = TypeVar("T")


@dataclass(frozen=True)
class CompositorConfig:
    """How composites are made. The paper gives no weights, sizes or gaps: these are this project's.

    Attributes:
        seed: with the index, decides everything about a sample.
        k_weights: weight of each number of tiles.
        layouts: weight of each layout, keys of ``LAYOUTS``.
        canvas_sizes: (width, height) in pixels; one is drawn for each composite.
        gap: pixels between cells and to the rim.
        backgrounds: weight of each background, keys of ``BACKGROUNDS``.
        snap_px: corners of boxes fall on multiples of this many pixels; None leaves them on whole pixels.
        neighbour_prob: chance that a distractor is a neighbour of the entity asked for.
        fill: range of the share of its cell's side that a tile takes.
        min_cell_px: layouts with a shorter cell side are not drawn where another one would do better.
        image_format: ``jpeg`` or ``png``.
        quality: of the JPEG.
        categories: only these; None for all.
        split: only categories of this split (``seen`` or ``unseen``); None for both.
        targets: only these entities are asked for; None for all. Distractors are drawn from all.
    """

    seed: int = 0
    k_weights: Mapping[int, float] = field(default_factory=lambda: {2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 1.0})
    layouts: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(LAYOUTS, 1.0))
    canvas_sizes: Sequence[tuple[int, int]] = ((640, 480), (480, 640), (560, 560))
    gap: int = 8
    backgrounds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(BACKGROUNDS, 1.0))
    snap_px: int | None = None
    neighbour_prob: float = 0.5
    fill: tuple[float, float] = (0.8, 1.0)
    min_cell_px: int = 40
    image_format: str = "jpeg"
    quality: int = 95
    categories: Sequence[str] | None = None
    split: str | None = None
    targets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting cannot work.
        """
        for name, weights, allowed in (
            ("layouts", self.layouts, LAYOUTS),
            ("backgrounds", self.backgrounds, BACKGROUNDS),
        ):
            unknown = set(weights) - set(allowed)
            if unknown:
                raise ConfigError(f"compositor.{name}", f"{sorted(unknown)} are none of {sorted(allowed)}")
        for name, numbers in (
            ("k_weights", self.k_weights),
            ("layouts", self.layouts),
            ("backgrounds", self.backgrounds),
        ):
            values: list[float] = [float(v) for v in numbers.values()]
            if not values or min(values) < 0 or sum(values) <= 0:
                raise ConfigError(f"compositor.{name}", "needs weights of at least 0, one of them above 0")
        if min(self.k_weights) < 1:
            raise ConfigError("compositor.k_weights", "a composite needs at least one tile")
        if self.image_format not in ("jpeg", "png"):
            raise ConfigError("compositor.image_format", f"'{self.image_format}' is neither jpeg nor png")
        if not 0 < self.fill[0] <= self.fill[1] <= 1:
            raise ConfigError("compositor.fill", f"{self.fill} is not a range within 0-1")
        if not 0 <= self.neighbour_prob <= 1:
            raise ConfigError("compositor.neighbour_prob", f"{self.neighbour_prob} is not within 0-1")
        if self.snap_px is not None and self.snap_px < 1:
            raise ConfigError("compositor.snap_px", "must be at least 1, or null")
        if not self.canvas_sizes or min(min(size) for size in self.canvas_sizes) < 16:
            raise ConfigError("compositor.canvas_sizes", "needs at least one size, no side under 16 pixels")


class Compositor:
    """Makes samples, each from ``(seed, index)`` alone, so that any process can make any of them.

    Args:
        source: supply of tiles.
        config: how composites are made.

    Raises:
        ConfigError: no category or entity is left to draw from.
        DataError: a category has fewer than two entities, so that nothing has to be told apart.
    """

    def __init__(self, source: TileSource, config: CompositorConfig | None = None) -> None:
        self.source, self.config = source, config or CompositorConfig()
        self._targets = _targets_by_category(source, self.config)

    def sample(self, index: int) -> Sample:
        """Makes one sample, without a rationale.

        Raises:
            DataError: a tile cannot be read.
        """
        config = self.config
        rng = random.Random(f"{config.seed}/{index}")
        category = rng.choice(sorted(self._targets))
        target = rng.choice(self._targets[category])
        entities = self._draw_entities(category, target, _weighted(config.k_weights, rng), rng)
        canvas = rng.choice(list(config.canvas_sizes))
        canvas = (canvas[0], canvas[1])
        layout, cells = self._place(len(entities), canvas, rng)
        background = _weighted(config.backgrounds, rng)
        image = BACKGROUNDS[background](canvas, rng)
        objects, tiles = [], []
        for entity, cell in zip(entities, cells, strict=True):
            tile = self.source.tile(entity, rng)
            box = _paste(image, tile, cell, rng.uniform(*config.fill), config.snap_px or 1, rng)
            objects.append(SceneObject(entity, box, self.source.info(entity).note))
            tiles.append(str(tile.info.get("path", "")))
        ranks = reading_order([o.box_px for o in objects])
        objects.sort(key=lambda o: ranks.index(o.box_px))
        info = self.source.info(target)
        provenance = {
            "seed": config.seed,
            "index": index,
            "layout": layout,
            "background": background,
            "source": type(self.source).__name__,
        }
        return Sample(
            key=f"s{config.seed}-{index:07d}",
            image=_encode(image, config.image_format, config.quality),
            width=canvas[0],
            height=canvas[1],
            category=category,
            split=info.split,
            objects=tuple(objects),
            target=[o.entity for o in objects].index(target),
            knowledge=info.knowledge,
            provenance=provenance | ({"tiles": tiles} if any(tiles) else {}),
        )

    def _draw_entities(self, category: str, target: str, num_tiles: int, rng: random.Random) -> list[str]:
        note = self.source.info(target).note
        # Two entities that look the same in words could not be told apart by any rationale.
        others = [e for e in self.source.entities(category) if e != target and not (note and self._note(e) == note)]
        near = [e for e in self.source.neighbours(target) if e in others]
        chosen = [target]
        for _ in range(min(num_tiles - 1, len(others))):
            pool = [e for e in near if e not in chosen] if rng.random() < self.config.neighbour_prob else []
            chosen.append(rng.choice(pool or [e for e in others if e not in chosen]))
        rng.shuffle(chosen)
        return chosen

    def _note(self, entity: str) -> str:
        return self.source.info(entity).note

    def _place(self, num_tiles: int, canvas: tuple[int, int], rng: random.Random) -> tuple[str, list[Cell]]:
        weights = {name: weight for name, weight in self.config.layouts.items() if weight > 0}
        options = {name: LAYOUTS[name](num_tiles, canvas, self.config.gap, rng) for name in weights}
        roomy = {n: w for n, w in weights.items() if _shortest(options[n]) >= self.config.min_cell_px}
        name = _weighted(roomy, rng) if roomy else max(weights, key=lambda n: _shortest(options[n]))
        if _shortest(options[name]) < (self.config.snap_px or 1) * 2:
            raise ConfigError("compositor.canvas_sizes", f"{canvas} has no room for {num_tiles} tiles; enlarge it")
        return name, options[name]


def _targets_by_category(source: TileSource, config: CompositorConfig) -> dict[str, list[str]]:
    names = source.categories()
    unknown = set(config.categories or ()) - set(names)
    if unknown:
        raise ConfigError("compositor.categories", f"{sorted(unknown)} are none of {sorted(names)}")
    found: dict[str, list[str]] = {}
    for category in names:
        entities = source.entities(category)
        if config.categories is not None and category not in config.categories:
            continue
        if len(entities) < 2:
            raise DataError(f"category {category}", "entities", f"has {len(entities)}, needs at least 2; add some")
        wanted = [e for e in entities if config.targets is None or e in config.targets]
        wanted = [e for e in wanted if config.split in (None, source.info(e).split)]
        if wanted:
            found[category] = wanted
    if not found:
        raise ConfigError("compositor", "no entity is left to ask for; widen categories, split or targets")
    missing = set(config.targets or ()) - {e for c in names for e in source.entities(c)}
    if missing:
        raise ConfigError("compositor.targets", f"{sorted(missing)[:5]} are not in the source; correct the names")
    return found


def _paste(image: Image.Image, tile: Image.Image, cell: Cell, fill: float, step: int, rng: random.Random) -> Box:
    """Pastes a tile into its cell so that the entity's box falls on the grid of ``step`` pixels; returns that box."""
    if "box" not in tile.info:
        bounds = opaque(tile).getbbox()
        if bounds is None:
            raise DataError(str(tile.info.get("path", "tile")), "alpha", "is empty, so there is no entity; remove it")
        tile = tile.crop(bounds)
    box: Box = tile.info.get("box", (0, 0, tile.width, tile.height))
    scale = fill * min((cell[2] - cell[0]) / tile.width, (cell[3] - cell[1]) / tile.height)
    spans, sources = [], []
    for axis in (0, 1):
        low, high, length = cell[axis], cell[axis + 2], tile.size[axis]
        near, far = box[axis], box[axis + 2]
        first, last = -(-low // step), high // step
        steps = min(max(1, round((far - near) * scale / step)), last - first)
        factor = steps * step / (far - near)
        # Room for the whole picture, not only for the entity in it, as far as the grid allows.
        lowest = min(max(first, -int(-(low + near * factor) // step)), last - steps)
        highest = max(lowest, min(last - steps, int((high - (length - far) * factor) // step - steps)))
        start = rng.randint(lowest, highest) * step
        left = max(low, -int(-(start - near * factor) // 1))
        right = min(high, int(start + (length - near) * factor + 1e-6))
        spans.append((start, start + steps * step, left, right))
        sources.append((max(0.0, near + (left - start) / factor), min(float(length), near + (right - start) / factor)))
    (x1, x2, left, right), (y1, y2, top, bottom) = spans
    region = (sources[0][0], sources[1][0], sources[0][1], sources[1][1])
    resized = _premultiplied_resize(tile, (right - left, bottom - top), region)
    image.paste(resized, (left, top), resized)
    return float(x1), float(y1), float(x2), float(y2)


def _premultiplied_resize(
    tile: Image.Image, size: tuple[int, int], region: tuple[float, float, float, float]
) -> Image.Image:
    # Straight RGBA would drag the colour of transparent pixels into the rim.
    return tile.convert("RGBa").resize(size, Image.Resampling.BICUBIC, box=region).convert("RGBA")


def _shortest(cells: Sequence[Cell]) -> int:
    return min(min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in cells)


def _weighted(weights: Mapping[T, float], rng: random.Random) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]


def _encode(image: Image.Image, image_format: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    if image_format == "png":
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
