"""Low-level features of the pixels in and around a box: rim, sharpness, noise, JPEG blocks, contrast."""

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
    """Computes the features of each object, by family.

    Rim: mean step in brightness across the box's border, and its ratio to steps inside (logarithms). Sharpness: mean
    second difference inside. Noise: lower quartile of the second difference, which detail hardly affects. JPEG blocks:
    how much larger steps are at one of eight offsets than at the others, without the picture's own blocks. Contrast:
    difference of mean brightness to a ring around the box, its absolute value, and the distance of the mean colours.

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
    """Rounds a box to whole pixels, with sides of at least three pixels if the picture is large enough."""
    x1, y1 = min(int(box[0]), width - 3), min(int(box[1]), height - 3)
    x1, y1 = max(0, x1), max(0, y1)
    return x1, y1, min(width, max(x1 + 3, round(box[2]))), min(height, max(y1 + 3, round(box[3])))


def _rim(across: Floats, down: Floats, box: tuple[int, int, int, int]) -> float:
    """Returns the mean step across the sides of a box that do not lie on the border of the picture."""
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
    """Returns how much larger steps are at the strongest of eight offsets, as a logarithm.

    Args:
        steps: mean step to the next pixel along an axis.
        start: position of the first step on the picture; the picture's own blocks begin at multiples of eight.
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
    """Adds to each feature of one composite its rank among the objects, 0-1; equal values get their mean rank.

    >>> ranked([[5.0], [1.0], [3.0]])
    [[5.0, 1.0], [1.0, 0.0], [3.0, 0.5]]
    >>> ranked([[2.0], [1.0], [2.0]])
    [[2.0, 0.75], [1.0, 0.0], [2.0, 0.75]]
    """
    values = np.asarray(rows)
    larger, equal = values[:, None] > values[None], values[:, None] == values[None]
    ranks = (larger.sum(1) + (equal.sum(1) - 1) / 2) / max(1, len(rows) - 1)
    return [[*row, *more] for row, more in zip(rows, ranks.tolist(), strict=True)]
