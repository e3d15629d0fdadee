"""How large pictures may be and how they are cut: what a checkpoint says, and what a config says instead."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kvg.errors import ConfigError
from kvg.ranges import check_number, check_whole
from kvg.records import excerpt
from kvg.work.processes import is_first

log = logging.getLogger(__name__)
FILE: Final = "preprocessor_config.json"
_SIZES: Final = (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))  # the field, and its newer name
_BICUBIC: Final = 3
# What the processor always does. A checkpoint with other settings would get other pictures.
_FIXED: Final = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
}


@dataclass(frozen=True)
class PictureSettings(ABC):
    """How a picture is resized; each kind of picture processor has its own settings.

    Attributes:
        min_pixels: smallest area of a resized picture.
        max_pixels: largest area.
        image_mean: per channel, of values in 0-1.
        image_std: per channel.
    """

    min_pixels: int
    max_pixels: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    @property
    @abstractmethod
    def cell(self) -> int:
        """A resized picture has sides of multiples of this, in pixels."""


@dataclass(frozen=True)
class PatchSettings(PictureSettings):
    """How a picture becomes patches.

    Attributes:
        patch_size: side of one patch in pixels.
        merge_size: patches per side of one visual token.
        temporal_patch_size: frames per patch; a still image is repeated.
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2

    @property
    def cell(self) -> int:
        """See ``PictureSettings.cell``; one visual token covers so much."""
        return self.patch_size * self.merge_size


def parse_patch_settings(content: Mapping[str, Any]) -> PatchSettings:
    """The settings of patches in a checkpoint's ``preprocessor_config.json``. What is left out is as in transformers.

    Args:
        content: of that file. Areas are ``min_pixels`` and ``max_pixels``, or ``size`` with ``shortest_edge`` and
            ``longest_edge``; where both stand there, the first two count, as in transformers.

    Raises:
        ConfigError: a value cannot work; its field is the name in the file.
    """
    values: dict[str, Any] = {}
    size = content.get("size")
    if size is not None and not isinstance(size, Mapping):
        raise ConfigError("size", f"{excerpt(size)} is no mapping; write shortest_edge and longest_edge as areas")
    if size and not set(size) & {name for names in _SIZES for name in names}:
        raise ConfigError("size", f"{excerpt(dict(size))} holds neither shortest_edge nor longest_edge; write areas")
    for name, edge in _SIZES:
        for field, value in ((f"size.{edge}", (size or {}).get(edge)), (f"size.{name}", (size or {}).get(name)),
                             (name, content.get(name))):  # fmt: skip
            if value is not None:
                check_whole(field, value, 1)
                values[name] = value
    for name in ("patch_size", "merge_size", "temporal_patch_size"):
        if content.get(name) is not None:
            check_whole(name, content[name], 1, 1024)
            values[name] = content[name]
    settings = PatchSettings(**values | parse_colours(content))
    check_areas(settings, dict(_SIZES))
    return settings


def parse_colours(content: Mapping[str, Any], resample: int = _BICUBIC) -> dict[str, tuple[float, ...]]:
    """What a ``preprocessor_config.json`` says of ``image_mean`` and ``image_std``; nothing where it does not.

    Args:
        content: of that file.
        resample: Pillow's number of the filter with which the processor resizes.

    Raises:
        ConfigError: a value cannot work, or pictures would be treated in a way that no processor here has.
    """
    for name, fixed in {**_FIXED, "resample": resample}.items():
        if name in content and content[name] is not None and not _equal(content[name], fixed):
            raise ConfigError(name, f"{excerpt(content[name])} is not {fixed}, which is what this project does")
    names = ("image_mean", "image_std")
    return {name: _channels(name, content[name]) for name in names if content.get(name) is not None}


def check_areas(settings: PictureSettings, names: Mapping[str, str] | None = None) -> None:
    """Refuses areas into which no picture can be resized.

    Args:
        settings: of which both areas are checked.
        names: of the fields ``min_pixels`` and ``max_pixels`` in messages; the same by default.

    Raises:
        ConfigError: an area is below that of one visual token, or the smallest is above the largest.
    """
    least, most = (names or {}).get("min_pixels", "min_pixels"), (names or {}).get("max_pixels", "max_pixels")
    for field, value in ((least, settings.min_pixels), (most, settings.max_pixels)):
        check_whole(field, value, settings.cell**2)
    if settings.min_pixels > settings.max_pixels:
        above = f"{settings.min_pixels} is above {most}, which is {settings.max_pixels}; lower it, or raise that"
        raise ConfigError(least, above)


def with_budget(
    stored: PictureSettings, min_pixels: int | None, max_pixels: int | None, checkpoint: str, exported: bool
) -> PictureSettings:
    """A checkpoint's settings with the areas of a config in place of its own.

    Says so where that contradicts what the model was trained with: a model of this project was trained with exactly
    what its export says. Of any other checkpoint no more is known than the range that it allows, and a config may
    choose within it, as the paper does (401,408 of 12,845,056).

    Args:
        stored: what the checkpoint says.
        min_pixels: of the config; None = the checkpoint's.
        max_pixels: of the config; None = the checkpoint's.
        checkpoint: what messages call it.
        exported: whether this project trained it.

    Raises:
        ConfigError: an area cannot work, alone or together with the other.
    """
    areas = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    given: dict[str, Any] = {name: value for name, value in areas.items() if value is not None}
    for name, value in given.items():
        check_whole(f"backbone.{name}", value, stored.cell**2)
    settings = replace(stored, **given)
    origins = {name: f"backbone.{name}" if name in given else f"the checkpoint's {name}" for name, _ in _SIZES}
    if settings.min_pixels > settings.max_pixels:
        change = "min_pixels" if "min_pixels" in given or "max_pixels" not in given else "max_pixels"
        both = f"{origins['min_pixels']} is {settings.min_pixels} and {origins['max_pixels']} is {settings.max_pixels}"
        raise ConfigError(f"backbone.{change}", f"{both}; the smallest area may not be above the largest")
    for name, value in given.items():
        own = getattr(stored, name)
        if value != own and (exported or not stored.min_pixels <= value <= stored.max_pixels) and is_first():
            trained = "was trained with" if exported else "allows"
            log.warning(
                "backbone.%s is %d, but '%s' %s %d: it sees pictures at another size than it knows; set it to null for "
                "the checkpoint's own", name, value, checkpoint, trained, own,
            )  # fmt: skip
    return settings


def _channels(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise ConfigError(name, f"{excerpt(value)} are not three numbers, one a channel")
    for number in value:
        check_number(name, number, 0, above=name == "image_std")
    return tuple(float(number) for number in value)


def _equal(value: Any, fixed: Any) -> bool:
    if isinstance(fixed, bool):
        return value is fixed
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value - fixed) < 1e-6
