"""Features of the pixels in and around a box without the object itself: rim, sharpness, noise, blocks, contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvg.pictures import read_rgb
from kvg.types import Box, Sample

Floats = NDArray[np.float32]
RIM, SHARPNESS, NOISE, BLOCKS, CONTRAST = "rim", "sharpness", "noise", "JPEG blocks", "contrast with the surroundings"
FAMILIES: Final = (RIM, SHARPNESS, NOISE, BLOCKS, CONTRAST)
_RING = 8  # pixels around a box that count as its surroundings
_BLOCK = 8  # pixels of a JPEG block
_EDGE_WEIGHTS: Final = np.array([0.299, 0.587, 0.114], np.float32)  # brightness of red, green, blue


def pixel_traces(sample: Sample) -> dict[str, list[list[float]]]:
    """The features of each object, by family.

    Rim: the step in brightness from outside to inside along the box, and that over the steps inside. Sharpness: the
    mean second difference inside. Noise: its lower quartile, which detail hardly reaches. JPEG blocks: how far steps
    inside are larger at one of eight places than at the others, other than at the blocks of the picture itself.
    Contrast: difference of mean brightness and mean colour to a ring around the box, in either direction, and without.

    Raises:
        DataError: the picture cannot be decoded.
    """
    pixels = np.asarray(read_rgb(sample.image, sample.key), np.float32)
    grey = pixels @ _EDGE_WEIGHTS
    across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    bent = np.abs(4 * grey[1:-1, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:] - grey[:-2, 1:-1] - grey[2:, 1:-1])
    traces: dict[str, list[list[float]]] = {family: [] for family in FAMILIES}
    for item in sample.objects:
        x1, y1, x2, y2 = _whole(item.box_px, sample.width, sample.height)
        inside_x, inside_y = across[y1:y2, x1 : x2 - 1], down[y1 : y2 - 1, x1:x2]
        inside = (float(inside_x.mean()) + float(inside_y.mean())) / 2
        rim = _rim(across, down, (x1, y1, x2, y2))
        second = bent[max(0, y1 - 1) : y2 - 1, max(0, x1 - 1) : x2 - 1]
        traces[RIM].append([_log(rim), _log(rim) - _log(inside)])
        traces[SHARPNESS].append([_log(float(second.mean()))])
        traces[NOISE].append([_log(float(np.percentile(second, 25)))])
        traces[BLOCKS].append([_blocks(inside_x.mean(0), x1), _blocks(inside_y.mean(1), y1)])
        traces[CONTRAST].append(_contrast(pixels, (x1, y1, x2, y2)))
    return traces


def _whole(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """A box in whole pixels, at least three a side where the picture has them."""
    x1, y1 = min(int(box[0]), width - 3), min(int(box[1]), height - 3)
    x1, y1 = max(0, x1), max(0, y1)
    return x1, y1, min(width, max(x1 + 3, round(box[2]))), min(height, max(y1 + 3, round(box[3])))


def _rim(across: Floats, down: Floats, box: tuple[int, int, int, int]) -> float:
    """Mean step over those sides of a box that do not lie on the border of the picture."""
    x1, y1, x2, y2 = box
    sides: list[Floats] = []
    if x1 > 0:
        sides.append(across[y1:y2, x1 - 1])
    if x2 <= across.shape[1]:
        sides.append(across[y1:y2, x2 - 1])
    if y1 > 0:
        sides.append(down[y1 - 1, x1:x2])
    if y2 <= down.shape[0]:
        sides.append(down[y2 - 1, x1:x2])
    return float(np.concatenate(sides).mean()) if sides else 0.0


def _blocks(steps: Floats, start: int) -> float:
    """How far steps are larger at every eighth place, as a logarithm.

    Args:
        steps: mean step to the next pixel along an axis.
        start: place of the first on the picture; the blocks of the picture itself begin at multiples of eight.
    """
    places = (np.arange(len(steps)) + start + 1) % _BLOCK
    means = [float(steps[places == place].mean()) for place in range(1, _BLOCK) if (places == place).any()]
    return _log(max(means)) - _log(float(np.median(means))) if means else 0.0


def _contrast(pixels: Floats, box: tuple[int, int, int, int]) -> list[float]:
    x1, y1, x2, y2 = box
    left, top = max(0, x1 - _RING), max(0, y1 - _RING)
    outer = pixels[top : y2 + _RING, left : x2 + _RING]
    inner = pixels[y1:y2, x1:x2]
    total_in, num_in = inner.sum((0, 1), dtype=np.float64), inner.shape[0] * inner.shape[1]
    num_out = outer.shape[0] * outer.shape[1] - num_in
    if not num_out:
        return [0.0, 0.0, 0.0]
    around = (outer.sum((0, 1), dtype=np.float64) - total_in) / num_out
    difference = total_in / num_in - around
    brightness = float(difference @ _EDGE_WEIGHTS)
    return [brightness, abs(brightness), float(np.sqrt((difference**2).sum()))]


def _log(value: float) -> float:
    return float(np.log(value + 0.1))


def ranked(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Features of one composite, and the rank of each among its objects, from 0 to 1; equal ones share theirs.

    >>> ranked([[5.0], [1.0], [3.0]])
    [[5.0, 1.0], [1.0, 0.0], [3.0, 0.5]]
    >>> ranked([[2.0], [1.0], [2.0]])
    [[2.0, 0.75], [1.0, 0.0], [2.0, 0.75]]
    """
    values = np.asarray(rows)
    larger, equal = values[:, None] > values[None], values[:, None] == values[None]
    ranks = (larger.sum(1) + (equal.sum(1) - 1) / 2) / max(1, len(rows) - 1)
    return [[*row, *more] for row, more in zip(rows, ranks.tolist(), strict=True)]
