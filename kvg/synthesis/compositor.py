"""Composites: several entities of one category on one canvas, with exact boxes (paper v3, appendix B.1)."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from PIL import Image

from kvg.catalogue.project import settings_of
from kvg.errors import ConfigError
from kvg.synthesis.artifacts import Artifacts, Ground, check_range
from kvg.synthesis.backgrounds import BACKGROUNDS, PALE, PHOTOGRAPH, Background, Photographs
from kvg.synthesis.cast import Cast
from kvg.synthesis.clutter import clutter
from kvg.synthesis.layouts import LAYOUTS, PUBLISHED, Cell, Layout, overlapping, reading_order
from kvg.synthesis.pasting import Placing, fills, place, visible
from kvg.synthesis.sources import TileSource
from kvg.synthesis.tiles import Tile, origins
from kvg.types import Box, Sample, SceneObject

T = TypeVar("T")
SUBSAMPLING: Final = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
_OVERLAP_TRIES: Final = 8  # before a composite is laid out without overlap


@dataclass(frozen=True)
class CompositorConfig:
    """How composites are made. The paper gives no weights, sizes or gaps: these are this project's.

    Attributes:
        seed: with the index, decides everything about a sample.
        k_weights: weight of each number of tiles.
        layouts: weight of each layout, keys of ``LAYOUTS``; by default the four published ones.
        max_overlap: in the layout ``overlapping`` no more than this share of an entity is hidden by others. Its box is
            that of what can be seen of it.
        canvas_sizes: (width, height) in pixels; one is drawn for each composite.
        gap: pixels between cells and to the rim.
        backgrounds: weight of each background, keys of ``BACKGROUNDS``, and ``photograph``; the pale ones by default.
        background_folder: pictures for ``photograph``.
        snap_px: corners of boxes fall on multiples of this many pixels; None leaves them on whole pixels.
        neighbour_prob: chance that a further entity is a neighbour of one that is there already.
        fill: range of the share of its cell's side that a tile takes.
        same_scale: chance that all entities of a composite have about the same area.
        clutter: range of the number of other things that lie below the entities: smaller ones of other categories, or
            patches of texture where there are none. They have no box.
        min_cell_px: layouts with a shorter cell side are not drawn where another one would do better.
        artifacts: traces of taking, sending and pasting pictures, see ``Artifacts``; none by default.
        image_format: ``jpeg`` or ``png``.
        quality: of the JPEG, or a range of it.
        chroma: of the JPEG: ``4:4:4`` keeps colours as sharp as brightness, ``4:2:0`` is what cameras write.
        categories: only these; None for all.
        split: only categories of this split (``seen`` or ``unseen``); None for both.
        targets: only these entities are asked for; None for all. Distractors are drawn from all.
    """

    seed: int = 0
    k_weights: Mapping[int, float] = field(default_factory=lambda: {2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 1.0})
    layouts: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PUBLISHED, 1.0))
    max_overlap: float = 0.25
    canvas_sizes: Sequence[tuple[int, int]] = ((640, 480), (480, 640), (560, 560))
    gap: int = 8
    backgrounds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PALE, 1.0))
    background_folder: str | None = None
    snap_px: int | None = None
    neighbour_prob: float = 0.5
    fill: tuple[float, float] = (0.8, 1.0)
    same_scale: float = 0.0
    clutter: tuple[int, int] = (0, 0)
    min_cell_px: int = 40
    artifacts: Artifacts = field(default_factory=Artifacts)
    image_format: str = "jpeg"
    quality: int | tuple[int, int] = 95
    chroma: str = "4:4:4"
    categories: Sequence[str] | None = None
    split: str | None = None
    targets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting cannot work.
        """
        if not isinstance(self.artifacts, Artifacts):  # as it stands in YAML
            made = settings_of(Artifacts, self.artifacts, "compositor.artifacts")
            object.__setattr__(self, "artifacts", made)
        _check_weights(self)
        if self.image_format not in ("jpeg", "png"):
            raise ConfigError("compositor.image_format", f"'{self.image_format}' is neither jpeg nor png")
        if self.chroma not in SUBSAMPLING:
            raise ConfigError("compositor.chroma", f"'{self.chroma}' is none of {', '.join(SUBSAMPLING)}")
        check_range("compositor.fill", self.fill, 0.01, 1)
        for name in ("neighbour_prob", "same_scale", "max_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"compositor.{name}", f"{getattr(self, name)} is not within 0-1")
        check_range("compositor.quality", _pair(self.quality), 1, 100)
        check_range("compositor.clutter", self.clutter, 0, 50)
        if self.snap_px is not None and self.snap_px < 1:
            raise ConfigError("compositor.snap_px", "must be at least 1, or null")
        if self.snap_px is not None and self.layouts.get("overlapping"):
            raise ConfigError("compositor.snap_px", "cannot hold in the layout overlapping; set it to null")
        if self.backgrounds.get(PHOTOGRAPH) and not self.background_folder:
            raise ConfigError("compositor.background_folder", "is missing; name a folder of pictures")
        if not self.canvas_sizes or min(min(size) for size in self.canvas_sizes) < 16:
            raise ConfigError("compositor.canvas_sizes", "needs at least one size, no side under 16 pixels")


def _check_weights(config: CompositorConfig) -> None:
    for name, allowed in (("layouts", set(LAYOUTS)), ("backgrounds", {*BACKGROUNDS, PHOTOGRAPH})):
        unknown = set(getattr(config, name)) - allowed
        if unknown:
            raise ConfigError(f"compositor.{name}", f"{sorted(unknown)} are none of {sorted(allowed)}")
    for name in ("k_weights", "layouts", "backgrounds"):
        values = [float(value) for value in getattr(config, name).values()]
        if not values or min(values) < 0 or sum(values) <= 0:
            raise ConfigError(f"compositor.{name}", "needs weights of at least 0, one of them above 0")
    if min(config.k_weights) < 1:
        raise ConfigError("compositor.k_weights", "a composite needs at least one tile")


@dataclass(frozen=True)
class _Laid:
    """A tile on its canvas, and the box of what can be seen of its entity."""

    number: int  # of the entity
    tile: Tile
    placing: Placing
    box: Box


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
        self.cast = Cast(
            source, self.config.neighbour_prob, self.config.categories, self.config.split, self.config.targets
        )
        self._backgrounds: dict[str, Background] = dict(BACKGROUNDS)
        if self.config.backgrounds.get(PHOTOGRAPH):
            self._backgrounds[PHOTOGRAPH] = Photographs(self.config.background_folder or "")
        self._layouts: dict[str, Layout] = {
            **LAYOUTS,
            "overlapping": functools.partial(overlapping, share=self.config.max_overlap),
        }

    def sample(self, index: int) -> Sample:
        """Makes one sample, without a rationale.

        Raises:
            DataError: a tile cannot be read.
        """
        config = self.config
        rng = random.Random(f"{config.seed}/{index}")
        category, entities, target = self.cast.draw(_weighted(config.k_weights, rng), rng)
        canvas = rng.choice(list(config.canvas_sizes))
        canvas = (canvas[0], canvas[1])
        background = _weighted(config.backgrounds, rng)
        image = self._backgrounds[background](canvas, rng)
        tiles = [self.tile(entity, rng) for entity in entities]
        layout, laid = self._laid_out(tiles, canvas, rng)
        # The ground as it was before anything lay on it, so that what comes last is not treated in another way.
        ground = Ground(image)
        if config.clutter[1]:
            clutter(image, self, category, config.clutter, [one.placing for one in laid], rng)
        for one in laid:
            picture = self.treated(one.tile, one.placing, ground, rng)
            image.paste(picture, one.placing.frame[:2], picture if picture.mode == "RGBA" else None)
        image = config.artifacts.on_picture(image, rng)
        order = reading_order([one.box for one in laid])
        laid.sort(key=lambda one: order.index(one.box))
        names = [entities[one.number] for one in laid]
        info = self.source.info(target)
        return Sample(
            key=f"s{config.seed}-{index:07d}",
            image=_encode(image, config, rng),
            width=canvas[0],
            height=canvas[1],
            category=category,
            split=info.split,
            objects=tuple(
                SceneObject(name, one.box, self.source.info(name).note) for name, one in zip(names, laid, strict=True)
            ),
            target=names.index(target),
            knowledge=info.knowledge,
            provenance={
                "seed": config.seed,
                "index": index,
                "layout": layout,
                "background": background,
                "source": type(self.source).__name__,
                **origins([one.tile for one in laid]),
            },
        )

    def tile(self, entity: str, rng: random.Random) -> Tile:
        """A tile of an entity.

        Raises:
            DataError: it cannot be read.
        """
        found = self.source.tile(entity, rng)
        return found if isinstance(found, Tile) else Tile.of(found)

    def treated(self, tile: Tile, placing: Placing, ground: Ground, rng: random.Random) -> Image.Image:
        """What is pasted of a tile: the same for those asked for, for distractors and for clutter."""
        image = tile.scaled(placing.size, placing.region)
        return self.config.artifacts.on_tile(image, tile, placing, ground, rng)

    def _laid_out(self, tiles: Sequence[Tile], canvas: tuple[int, int], rng: random.Random) -> tuple[str, list[_Laid]]:
        """The layout's name, and where each tile lies and what can be seen of it, from the lowest to the uppermost."""
        config = self.config
        layout, cells = self._place(len(tiles), canvas, config.layouts, rng)
        laid = self._laid(tiles, cells, rng)
        for _ in range(_OVERLAP_TRIES if layout == "overlapping" else 0):
            rng.shuffle(laid)
            placings = [one.placing for one in laid]
            found = visible(canvas, placings, [_shape(one) for one in laid], [t.tile.box is not None for t in laid])
            if max(hidden for _, hidden in found) <= config.max_overlap:
                boxes = [box if hidden and box else one.box for (box, hidden), one in zip(found, laid, strict=True)]
                return layout, [replace(one, box=box) for one, box in zip(laid, boxes, strict=True)]
            laid = self._laid(tiles, self._layouts[layout](len(tiles), canvas, config.gap, rng), rng)
        if layout == "overlapping":
            layout, cells = self._place(len(tiles), canvas, {"random": 1.0}, rng)
            laid = self._laid(tiles, cells, rng)
        return layout, laid

    def _laid(self, tiles: Sequence[Tile], cells: Sequence[Cell], rng: random.Random) -> list[_Laid]:
        config, found = self.config, []
        same = config.same_scale > 0 and rng.random() < config.same_scale
        shares = fills(tiles, cells, config.fill, same, rng)
        for number, (tile, cell, fill) in enumerate(zip(tiles, cells, shares, strict=True)):
            placing = place(tile, cell, fill, config.snap_px or 1, rng)
            x1, y1, x2, y2 = map(float, placing.box)
            found.append(_Laid(number, tile, placing, (x1, y1, x2, y2)))
        return found

    def _place(
        self, num_tiles: int, canvas: tuple[int, int], layouts: Mapping[str, float], rng: random.Random
    ) -> tuple[str, list[Cell]]:
        """A layout with room enough, or else the one with the most."""
        left = {name: weight for name, weight in layouts.items() if weight > 0}
        best, cells = "", list[Cell]()
        while left:
            name = _weighted(left, rng)
            drawn = self._layouts[name](num_tiles, canvas, self.config.gap, rng)
            if not best or _shortest(drawn) > _shortest(cells):
                best, cells = name, drawn
            if _shortest(drawn) >= self.config.min_cell_px:
                best, cells = name, drawn
                break
            del left[name]
        if _shortest(cells) < (self.config.snap_px or 1) * 2:
            raise ConfigError("compositor.canvas_sizes", f"{canvas} has no room for {num_tiles} tiles; enlarge it")
        return best, cells


def _shape(laid: _Laid) -> Image.Image | None:
    """Where its tile covers its ground, before any rim is made soft."""
    if not laid.tile.picture.cut_out:
        return None
    return laid.tile.scaled(laid.placing.size, laid.placing.region).getchannel("A")


def _shortest(cells: Sequence[Cell]) -> int:
    return min(min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in cells)


def _weighted(weights: Mapping[T, float], rng: random.Random) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    """A number, or a range of numbers, as a range."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _encode(image: Image.Image, config: CompositorConfig, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    if config.image_format == "png":
        image.save(buffer, "PNG")
    else:
        quality = rng.randint(*_pair(config.quality))
        image.save(buffer, "JPEG", quality=quality, subsampling=SUBSAMPLING[config.chroma])
    return buffer.getvalue()
