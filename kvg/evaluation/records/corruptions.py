"""The artifact test: the same question about a corrupted picture, with five kinds and five strengths.

A model that recognises entities loses little accuracy on slightly worse pictures. A model that finds the target by an
artifact of the composites, such as the border of a tile, loses accuracy where the artifact is removed: ``seams``
changes only pixels outside all boxes.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.question import Question
from kvg.pictures import read_rgb
from kvg.ranges import check_choice
from kvg.types import Sample

Pixels = NDArray[np.float32]  # [height, width, 3], grey levels
Known = NDArray[np.bool_]  # [height, width]
Places = NDArray[np.int64]  # [N]

STRENGTHS: Final = (1, 2, 3, 4, 5)
_SIGMAS: Final = (8, 16, 32, 48, 64)  # of the noise, in grey levels
_RADII: Final = (0.003, 0.006, 0.012, 0.018, 0.025)  # of the blur, as a share of the shorter side
_QUALITIES: Final = (60, 40, 25, 15, 8)  # of the JPEG
_HUE, _GAIN, _LIGHT = 30.0, 0.25, 0.25  # the strongest colour shift: degrees, and relative changes
_RIM: Final = 0.01  # width of the rim inside a box that the fill continues, as a share of the shorter side
_ALIKE: Final = 12.0  # largest difference of background pixels, in grey levels
_ROUNDS: Final = 12  # smoothing steps per pyramid level


def corrupted(question: Question, kind: str, strength: int, seed: int) -> Question:
    """Corrupts the picture of a question.

    The random numbers depend only on seed, kind and the sample's key: they are the same for all strengths and do not
    depend on the order of the questions.

    Args:
        question: about a clean picture.
        kind: a key of ``KINDS``: ``noise`` (Gaussian), ``blur`` (Gaussian), ``jpeg`` (lower quality), ``colour`` (hue,
            channels and brightness shifted) or ``seams`` (blends the area outside all boxes with a smooth field that
            continues the background inside the boxes; at the highest strength only that field is left).
        strength: 1 to 5.
        seed: of the random numbers.

    Returns:
        The question with a corrupted picture of the same size, a PNG (``jpeg``: a JPEG), and with ``artifact`` and
        ``strength``.

    Raises:
        ConfigError: the kind or strength is unknown.
        DataError: the picture cannot be decoded, or ``seams`` needs a picture with all objects known.
    """
    check_choice("artifact", kind, KINDS)
    if strength not in STRENGTHS:
        raise ConfigError("strength", f"{strength!r} is not one of {', '.join(map(str, STRENGTHS))}")
    sample = question.sample
    image = read_rgb(sample.image, f"sample {sample.key}")
    made = _CORRUPTIONS[kind](image, sample, strength, f"{seed}/{kind}/{sample.key}")
    buffer = io.BytesIO()
    if kind == "jpeg":
        made.save(buffer, "JPEG", quality=_QUALITIES[strength - 1])
    else:
        made.save(buffer, "PNG", compress_level=1)
    return replace(question, sample=replace(sample, image=buffer.getvalue()), artifact=kind, strength=strength)


def _noise(image: Image.Image, sample: Sample, strength: int, draw: str) -> Image.Image:
    """Does not use ``kvg.composites.augmentations.noisy``, whose range ends at half of this noise."""
    rng = np.random.default_rng(list(draw.encode()))
    noise = rng.standard_normal((image.height, image.width, 3), np.float32)
    return _image(np.asarray(image, np.float32) + _SIGMAS[strength - 1] * noise)


def _blur(image: Image.Image, sample: Sample, strength: int, draw: str) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(_RADII[strength - 1] * min(image.size)))


def _jpeg(image: Image.Image, sample: Sample, strength: int, draw: str) -> Image.Image:
    return image


def _colour(image: Image.Image, sample: Sample, strength: int, draw: str) -> Image.Image:
    """Rotates hue about the grey axis and scales each channel and the brightness, each by at least half its maximum."""
    rng, share = random.Random(draw), strength / STRENGTHS[-1]
    hue, light, *gains = (rng.choice((-1, 1)) * rng.uniform(0.5, 1) * share for _ in range(5))
    cos, sin = math.cos(math.radians(_HUE * hue)), math.sin(math.radians(_HUE * hue))
    even, lean = (1 - cos) / 3, sin / math.sqrt(3)
    turn = [cos + even, even - lean, even + lean]  # first row; the others are its rotations
    rows: list[float] = []
    for channel, gain in enumerate(gains):
        factor = (1 + _GAIN * gain) * (1 + _LIGHT * light)
        rows += [factor * turn[(column - channel) % 3] for column in range(3)] + [0.0]
    return image.convert("RGB", tuple(rows))


def _seams(image: Image.Image, sample: Sample, strength: int, draw: str) -> Image.Image:
    if len(sample.objects) < 2 or "layout" not in sample.provenance:
        remedy = "needs a composite of this project, with all objects known; use such a set, or remove `seams`"
        raise DataError(f"sample {sample.key}", "objects", remedy)
    pixels, side = np.asarray(image, np.float32), min(image.size)
    changed, rims, inside = pixels.copy(), np.zeros(pixels.shape[:2], bool), np.zeros(pixels.shape[:2], bool)
    for one in sample.objects:
        box = *(math.floor(v) for v in one.box_px[:2]), *(math.ceil(v) for v in one.box_px[2:])
        inside[box[1] : box[3], box[0] : box[2]] = True
        at_y, at_x = _rim(box, max(1, round(_RIM * side)))
        rims[at_y, at_x] = True
        changed[at_y, at_x] = _ground(pixels[at_y, at_x], at_y, at_x)
    # The blend is uniform up to the boxes: a soft edge would keep the pixels next to them.
    made = pixels + strength / STRENGTHS[-1] * (_filled(changed, rims) - pixels)
    return _image(np.where(inside[..., None], pixels, made))


def _rim(box: tuple[int, ...], width: int) -> tuple[Places, Places]:
    """Rows and columns of the pixels inside a box along its border."""
    left, top, right, bottom = box
    ring = np.ones((bottom - top, right - left), bool)
    ring[width:-width, width:-width] = False
    at_y, at_x = np.nonzero(ring)
    return at_y + top, at_x + left


def _ground(colours: Pixels, at_y: Places, at_x: Places) -> Pixels:
    """The colours of a rim, ``[N, 3]``; where the object touches the rim, the extrapolated background gradient.

    Otherwise the object's colours would leak out of its box.
    """
    plane = np.stack([np.ones_like(at_x), at_x - at_x.mean(), at_y - at_y.mean()], -1).astype(np.float32)
    guess = np.broadcast_to(np.median(colours, 0), colours.shape)
    for _ in range(4):  # robust fit: alternates between the gradient and the half of the pixels closest to it
        off = np.abs(colours - guess).max(-1)
        near = off <= np.median(off)
        guess = plane @ np.linalg.lstsq(plane[near], colours[near], rcond=None)[0]
    off = np.abs(colours - guess).max(-1, keepdims=True)
    return np.where(off <= max(_ALIKE, 2 * float(np.median(off))), colours, guess).astype(np.float32)


def _filled(pixels: Pixels, known: Known) -> Pixels:
    """Fills the unknown pixels with the solution of Laplace's equation, with the known pixels as boundary values.

    It is solved from coarse to fine: each level starts from the solution at half its size.
    """
    height, width = known.shape
    if known.all() or min(height, width) < 2:
        mean = pixels[known].mean(0) if known.any() else np.zeros(3, np.float32)
        return np.where(known[..., None], pixels, mean).astype(np.float32)
    pad = ((0, height % 2), (0, width % 2))
    weight = np.pad(known.astype(np.float32), pad)[..., None]
    sums = np.pad(pixels, (*pad, (0, 0))) * weight
    sums, counts = (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2] for a in (sums, weight))
    coarse = _filled((sums / np.maximum(counts, 1)).astype(np.float32), counts[..., 0] > 0)
    field = np.where(known[..., None], pixels, _enlarged(coarse, width, height))
    for _ in range(_ROUNDS):
        room = np.pad(field, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (room[:-2, 1:-1] + room[2:, 1:-1] + room[1:-1, :-2] + room[1:-1, 2:]) / 4
        field = np.where(known[..., None], pixels, mean)
    return field


def _enlarged(pixels: Pixels, width: int, height: int) -> Pixels:
    channels = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(3)]
    size = 2 * pixels.shape[1], 2 * pixels.shape[0]
    made = np.stack([np.asarray(c.resize(size, Image.Resampling.BILINEAR)) for c in channels], -1)
    return made[:height, :width]


def _image(pixels: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


_CORRUPTIONS: Final[dict[str, Callable[[Image.Image, Sample, int, str], Image.Image]]] = {
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
    "colour": _colour,
    "seams": _seams,
}
KINDS: Final = tuple(_CORRUPTIONS)
