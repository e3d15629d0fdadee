"""Backgrounds of composites: pale colours, gradients, clouds, natural textures, or photographs."""

from __future__ import annotations

import colorsys
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFilter

from kvg.catalogue.walking import walk
from kvg.errors import ConfigError, DataError
from kvg.pictures import read_file

log = logging.getLogger(__name__)
Background = Callable[[tuple[int, int], random.Random], Image.Image]
Colour = tuple[int, int, int]


def white(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """Makes a white background."""
    return Image.new("RGB", canvas, (255, 255, 255))


def plain(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """Makes a background of one pale colour."""
    return Image.new("RGB", canvas, _pale(rng))


def gradient(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """Makes a gradient from one pale colour to another, horizontal or vertical."""
    across = rng.random() < 0.5
    ramp = np.linspace(0, 255, canvas[0] if across else canvas[1]).astype(np.uint8)
    mask = np.broadcast_to(ramp if across else ramp[:, None], (canvas[1], canvas[0]))
    return _coloured(Image.fromarray(np.ascontiguousarray(mask)), (_pale(rng), _pale(rng)))


def clouds(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """Makes soft blotches of two pale colours."""
    cells = (max(2, canvas[0] // 40), max(2, canvas[1] // 40))
    return _coloured(_noise(cells, rng).resize(canvas, Image.Resampling.BICUBIC), (_pale(rng), _pale(rng)))


@dataclass(frozen=True)
class Texture:
    """Parameters of one kind of texture.

    Attributes:
        stretch: relative width and height of its blotches.
        grain: share of pixel noise.
        slope: share of a vertical gradient that is lighter at the bottom.
        colours: colours from dark to light.
    """

    stretch: tuple[float, float]
    grain: float
    slope: float
    colours: tuple[Colour, ...]


TEXTURES: Final[dict[str, Texture]] = {
    "sky": Texture((2.5, 1.0), 0.03, 0.5, ((66, 116, 190), (108, 156, 212), (168, 198, 226), (236, 240, 244))),
    "grass": Texture((0.5, 2.0), 0.30, 0.1, ((38, 62, 22), (70, 104, 40), (108, 140, 62), (160, 170, 96))),
    "sand": Texture((1.5, 1.0), 0.25, 0.1, ((150, 124, 90), (188, 164, 124), (212, 190, 152), (232, 216, 186))),
    "wood": Texture((12.0, 0.6), 0.10, 0.0, ((74, 46, 28), (118, 78, 48), (156, 110, 72), (190, 148, 106))),
    "stone": Texture((1.0, 1.0), 0.20, 0.0, ((72, 70, 68), (112, 110, 106), (146, 144, 140), (188, 186, 180))),
    "water": Texture((4.0, 0.7), 0.05, 0.3, ((24, 58, 78), (46, 92, 112), (86, 132, 148), (168, 192, 198))),
}
_OCTAVES = (1.0, 0.55, 0.35, 0.22, 0.14)  # weights of the octaves, each with blotches of half the size
_MIN_ANISOTROPY = 2.0  # above this ratio of stretches the grain is stretched, too; pixel noise would hide the direction


def texture(canvas: tuple[int, int], rng: random.Random) -> Image.Image:
    """Makes noise of several octaves in the colours of sky, grass, sand, wood, stone or water."""
    kind = TEXTURES[rng.choice(list(TEXTURES))]
    coarse = max(4, canvas[0] // 3), max(4, canvas[1] // 3)
    span, total, sum_of_weights = rng.uniform(0.25, 0.6) * max(coarse), Image.new("L", coarse), 0.0
    for number, weight in enumerate(_OCTAVES):
        octave = _noise(_cells(coarse, span * 0.5**number, kind.stretch), rng)
        sum_of_weights += weight
        total = Image.blend(total, octave.resize(coarse, Image.Resampling.BICUBIC), weight / sum_of_weights)
    if kind.slope:
        ramp = Image.linear_gradient("L").resize(coarse, Image.Resampling.BILINEAR)
        total = Image.blend(total, ramp, kind.slope * rng.random())
    shaped = total.resize(canvas, Image.Resampling.BICUBIC)
    along = max(kind.stretch) > _MIN_ANISOTROPY * min(kind.stretch)
    grain = _noise(_cells(canvas, 1.5, kind.stretch) if along else canvas, rng)
    shaped = Image.blend(shaped, grain.resize(canvas, Image.Resampling.BILINEAR), kind.grain * rng.uniform(0.5, 1))
    shift = rng.uniform(-18, 18)
    jittered = [[min(255.0, max(0.0, v + shift + rng.uniform(-8, 8))) for v in colour] for colour in kind.colours]
    return _coloured(shaped, jittered, 0.2)


def _cells(size: tuple[int, int], span: float, stretch: tuple[float, float]) -> tuple[int, int]:
    """Returns the numbers of noise cells across and down, each ``span`` pixels times ``stretch``; at least two."""
    across, down = (min(length, max(2, round(length / (span * s)))) for length, s in zip(size, stretch, strict=True))
    return across, down


PALE: Final[dict[str, Background]] = {"white": white, "plain": plain, "gradient": gradient, "clouds": clouds}
BACKGROUNDS: Final[dict[str, Background]] = {**PALE, "texture": texture}
PHOTOGRAPH: Final = "photograph"  # the background made by ``Photographs``


class Photographs:
    """Crops of pictures, sharp or blurred to varying degrees.

    They must not show entities of the composites' categories, since objects on a background have no box.

    Args:
        root: folder of the pictures; folders below it are included.
        max_side: maximum side of cached pictures, in pixels.
        cache_mb: memory for opened pictures in each process, in MB.
        mirror: whether half of the crops are mirrored.

    Raises:
        ConfigError: the folder is missing or has no picture.
    """

    def __init__(self, root: str | Path, max_side: int = 1024, cache_mb: int = 128, mirror: bool = True) -> None:
        self._mirror = mirror
        self.root, self.max_side, self._max_bytes = Path(root), max_side, cache_mb * 2**20
        walked = walk(self.root)
        self._paths = list(walked.pictures())
        if not self._paths:
            raise ConfigError("compositor.background_folder", f"'{root}' contains no pictures; correct the path")
        if walked.hidden or walked.closed:
            num = len(walked.hidden), len(walked.closed)
            log.info("%s: %d hidden or system files skipped, %d folders cannot be opened", self.root, *num)
        self._bad: set[Path] = set()
        self._kept: OrderedDict[Path, Image.Image] = OrderedDict()

    def __call__(self, canvas: tuple[int, int], rng: random.Random) -> Image.Image:
        """Makes a background.

        Raises:
            DataError: none of the sampled pictures can be read.
        """
        image = self._sample(rng)
        scale = min(image.width / canvas[0], image.height / canvas[1]) * rng.uniform(0.5, 1.0)
        width, height = canvas[0] * scale, canvas[1] * scale
        x, y = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        blur = 2 ** rng.uniform(0.0, 4.0) if rng.random() < 0.7 else 1.0
        small = max(4, round(canvas[0] / blur)), max(4, round(canvas[1] / blur))
        made = image.resize(small, Image.Resampling.HAMMING, box=(x, y, x + width, y + height))
        if rng.random() < 0.5 and self._mirror:
            made = made.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if small == canvas:
            return made
        if blur > 2:  # hides the pixel grid of the small picture
            made = made.filter(ImageFilter.GaussianBlur(0.8))
        return made.resize(canvas, Image.Resampling.BICUBIC)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}  # each process has its own cache

    def _sample(self, rng: random.Random) -> Image.Image:
        """Samples a picture; a picture that cannot be read is logged once and skipped."""
        for path in rng.sample(self._paths, min(len(self._paths), 20)):
            if path in self._bad:
                continue
            try:
                return self._opened(path)
            except DataError as error:
                self._bad.add(path)
                log.warning("background skipped: %s", error)
        raise DataError(str(self.root), "background_folder", "none of its pictures can be read; replace them")

    def _opened(self, path: Path) -> Image.Image:
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        image = read_file(path).convert("RGB")
        scale = self.max_side / max(image.size)
        if scale < 1:
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        self._kept[path] = image
        while len(self._kept) > 1 and 4 * sum(i.width * i.height for i in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)
        return image


def _noise(cells: tuple[int, int], rng: random.Random) -> Image.Image:
    return Image.frombytes("L", cells, rng.randbytes(cells[0] * cells[1]))


def _coloured(mask: Image.Image, stops: Sequence[Sequence[float]], margin: float = 0.0) -> Image.Image:
    """Maps a grey picture to colours.

    Args:
        mask: picture in mode L.
        stops: colours for black to white, evenly spaced.
        margin: share of the greys at each end that have the first or the last colour.
    """
    greys = (np.linspace(0, 1, 256) - margin) / (1 - 2 * margin)
    places = np.linspace(0, 1, len(stops))
    palette = np.stack([np.interp(greys, places, channel) for channel in zip(*stops, strict=True)], axis=1)
    mask = mask.copy()  # putpalette changes its picture
    mask.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    return mask.convert("RGB")


def _pale(rng: random.Random) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.02, 0.22), rng.uniform(0.82, 1.0))
    return round(red * 255), round(green * 255), round(blue * 255)
