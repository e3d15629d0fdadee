"""Settings of the compositor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvg.composites.augmentations import Augmentations, check_range
from kvg.composites.backgrounds import BACKGROUNDS, PALE, PHOTOGRAPH
from kvg.composites.layouts import LAYOUTS, PUBLISHED
from kvg.errors import ConfigError

SUBSAMPLING: Final = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


@dataclass(frozen=True)
class CompositorConfig:
    """Settings of composites. The paper gives no weights, sizes or gaps; these defaults are this project's.

    Attributes:
        seed: seed; a sample depends only on seed and index.
        k_weights: weight of each number of tiles.
        layouts: weight of each layout, keys of ``LAYOUTS``; by default the four published ones.
        max_overlap: maximum share of an entity that others hide in the layout ``overlapping``. Its box is that of its
            visible part.
        canvas_sizes: (width, height) in pixels; one is sampled for each composite.
        gap: pixels between cells, and between cells and the border.
        backgrounds: weight of each background, keys of ``BACKGROUNDS``, and ``photograph``; the pale ones by default.
        background_folder: folder of pictures for ``photograph``.
        mirror_backgrounds: whether half of those pictures are mirrored.
        snap_px: corners of boxes are multiples of this number of pixels; None for whole pixels.
        neighbour_prob: probability that a further entity is a neighbour of one that was sampled before.
        fill: range of the share of its cell's side that a tile fills.
        same_scale: probability that all entities of a composite have about the same area.
        clutter: range of the number of further objects below the entities: smaller objects of other categories, or
            patches of texture if there is no other category. They have no box.
        min_object_px: minimum of the shorter side of an object's box, in pixels. If it would be shorter, the tile fills
            its cell, is cut closer to its box, and other layouts are tried. If all this fails, the composite is left
            out and counted.
        min_object_share: minimum share of the composite that an object's box covers; it works in the same way.
        min_cell_px: minimum side of a cell; a layout with a shorter one is used only if no other has longer ones.
        augmentations: noise, compression and edges of pasted pictures, see ``Augmentations``; none by default.
        image_format: ``jpeg`` or ``png``.
        quality: quality of the JPEG, or a range of it.
        chroma: chroma subsampling of the JPEG: ``4:4:4`` for none; cameras write ``4:2:0``.
        categories: categories to use; None for all.
        paired: whether composites come in pairs, one behind the other: the same objects in the same places, but target
            and look-alike have changed places. Sizes of sets and shards count composites, not pairs.
        split: split of the targets (``seen`` or ``unseen``); None for both.
        targets: entities that can be targets; None for all. Distractors are sampled from all entities.
    """

    seed: int = 0
    k_weights: Mapping[int, float] = field(default_factory=lambda: {2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 1.0})
    layouts: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PUBLISHED, 1.0))
    max_overlap: float = 0.25
    canvas_sizes: Sequence[tuple[int, int]] = ((640, 480), (480, 640), (560, 560))
    gap: int = 8
    backgrounds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PALE, 1.0))
    background_folder: str | None = None
    mirror_backgrounds: bool = True
    snap_px: int | None = None
    neighbour_prob: float = 0.5
    fill: tuple[float, float] = (0.8, 1.0)
    same_scale: float = 0.0
    clutter: tuple[int, int] = (0, 0)
    min_object_px: int = 0
    min_object_share: float = 0.0
    min_cell_px: int = 40
    augmentations: Augmentations = field(default_factory=Augmentations)
    image_format: str = "jpeg"
    quality: int | tuple[int, int] = 95
    chroma: str = "4:4:4"
    categories: Sequence[str] | None = None
    paired: bool = False
    split: str | None = None
    targets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        _check_weights(self)
        if self.image_format not in ("jpeg", "png"):
            raise ConfigError("compositor.image_format", f"'{self.image_format}' is neither jpeg nor png")
        if self.chroma not in SUBSAMPLING:
            raise ConfigError("compositor.chroma", f"'{self.chroma}' is none of {', '.join(SUBSAMPLING)}")
        check_range("compositor.fill", self.fill, 0.01, 1)
        for name in ("neighbour_prob", "same_scale", "max_overlap", "min_object_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"compositor.{name}", f"{getattr(self, name)} is not within 0-1")
        check_range("compositor.quality", as_range(self.quality), 1, 100)
        check_range("compositor.clutter", self.clutter, 0, 50)
        if self.snap_px is not None and self.snap_px < 1:
            raise ConfigError("compositor.snap_px", "must be at least 1, or null")
        if self.snap_px is not None and self.layouts.get("overlapping"):
            raise ConfigError("compositor.snap_px", "does not work with the layout overlapping; set it to null")
        if self.backgrounds.get(PHOTOGRAPH) and not self.background_folder:
            raise ConfigError("compositor.background_folder", "is missing; name a folder of pictures")
        if self.paired and min(k for k, weight in self.k_weights.items() if weight) < 2:
            raise ConfigError("compositor.paired", "needs two objects that change places; set k_weights to 2 or more")
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


def as_range(value: int | Sequence[int]) -> tuple[int, int]:
    """Converts a number or a range to a range."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
