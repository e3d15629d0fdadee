"""Perceptual hashes of pictures, which find copies of any size, and groups of near hashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # pixels of the grey copy that is transformed
KEPT = 8  # lowest frequencies per side that form the fingerprint
BANDS = 4  # number of horizontal bands of equal height whose mean colours are kept
MAX_TINT = 48  # maximum difference, 0-255, of the mean colours of a band of two copies
_SHAPE = (1 << 64) - 1  # the brightness bits


def perceptual_hash(image: Image.Image) -> int:
    """Computes bits that hardly change if a picture is scaled, re-encoded, mirrored or slightly changed.

    The lower 64 bits are brightness bits: the discrete cosine transform of a 32x32 grey copy, each of its lowest
    frequencies compared with their median. Mirroring a picture flips the signs of all odd horizontal frequencies, so
    these signs are chosen such that the largest of them is positive. The upper 96 bits are the mean colours of four
    bands, twelve bytes: a red shirt and a blue shirt are equal in grey. Transparent pixels are laid over grey.

    Args:
        image: picture in RGB or RGBA.
    """
    image = on_grey(image)
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    # [vertical, horizontal frequency]. Rounded: values that are 0 by symmetry are noise that depends on the processor.
    low = np.round(_COSINES @ grey @ _COSINES.T, 6)
    odd = low[:, 1::2]
    odd *= np.sign(odd.flat[np.abs(odd).argmax()]) or 1.0
    coefficients = low.ravel()[1:]  # without the mean brightness
    bits = np.packbits(np.concatenate([coefficients > np.median(coefficients), [False]]))
    tints = image.convert("RGB").resize((1, BANDS), Image.Resampling.BOX).tobytes()
    return int.from_bytes(tints + bits.tobytes(), "big")


def on_grey(image: Image.Image) -> Image.Image:
    """Lays a transparent picture over grey; returns other pictures unchanged."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, (128, 128, 128, 255)), image)


class Groups:
    """Disjoint sets of the numbers from 0 to ``num`` - 1 (union-find).

    Args:
        num: how many numbers there are.

    >>> groups = Groups(4)
    >>> groups.join(3, 1)
    >>> [groups.first(number) for number in range(4)]
    [0, 1, 2, 1]
    """

    def __init__(self, num: int) -> None:
        self._first = list(range(num))

    def first(self, number: int) -> int:
        """Returns the lowest number of the group of a number."""
        while self._first[number] != number:
            self._first[number] = self._first[self._first[number]]
            number = self._first[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Joins the groups of two numbers."""
        low, high = sorted((self.first(one), self.first(other)))
        self._first[high] = low


def groups_of_copies(hashes: Sequence[int], max_distance: int) -> list[int]:
    """Groups pictures whose fingerprints are near, directly or through others.

    Two hashes that differ in at most d brightness bits are equal in at least one of d + 1 parts of these bits. So only
    hashes with an equal part are compared.

    Args:
        hashes: fingerprints of the pictures.
        max_distance: maximum number of brightness bits that differ, at most 15; colours may differ by ``MAX_TINT``.

    Returns:
        For each picture the index of the first picture of its group.

    >>> groups_of_copies([0, 255 << 40, 1, 3], 1)
    [0, 1, 0, 0]
    """
    groups = Groups(len(hashes))
    for one, other in near_pairs(hashes, max_distance):
        groups.join(one, other)
    return [groups.first(number) for number in range(len(hashes))]


def near_pairs(hashes: Sequence[int], max_distance: int) -> Iterable[tuple[int, int]]:
    """Yields pairs of near pictures, the lower index first; see ``groups_of_copies``.

    Of many equal hashes it yields only the pairs with the first one.
    """
    first_by_hash: dict[int, int] = {}
    distinct: list[int] = []
    for number, value in enumerate(hashes):
        if value in first_by_hash:
            yield first_by_hash[value], number
        else:
            first_by_hash[value] = number
            distinct.append(number)
    values = np.array([hashes[number] & _SHAPE for number in distinct], dtype=np.uint64)
    tints = np.array([list((hashes[number] >> 64).to_bytes(3 * BANDS, "big")) for number in distinct], dtype=np.int16)
    pairs: set[tuple[int, int]] = set()
    for members in _sharing_a_part(values, max_distance + 1):
        member_values = values[members]
        for place in range(len(members) - 1):
            near = np.bitwise_count(member_values[place + 1 :] ^ member_values[place]) <= max_distance
            for other in (members[place + 1 + int(k)] for k in np.flatnonzero(near)):
                if np.abs(tints[members[place]] - tints[other]).max() <= MAX_TINT:
                    pairs.add((members[place], other))
    for one, other in sorted(pairs):
        yield distinct[one], distinct[other]


def _sharing_a_part(values: NDArray[np.uint64], num_parts: int) -> Iterable[list[int]]:
    """Yields groups of indices of values that are equal in one part of their bits."""
    borders = [round(64 * part / num_parts) for part in range(num_parts + 1)]
    for low, high in pairwise(borders):
        part = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(part, kind="stable")
        ends = np.flatnonzero(np.diff(part[order])) + 1
        yield from (sorted(run.tolist()) for run in np.split(order, ends) if len(run) > 1)


def matches(wanted: Mapping[str, int], hashes: Sequence[int], max_distance: int) -> list[str]:
    """Returns for each picture the name of a known picture that it is a copy of; '' if there is none.

    Args:
        wanted: fingerprints of known pictures by name.
        hashes: fingerprints of the pictures.
        max_distance: see ``groups_of_copies``.
    """
    names = list(wanted)
    groups = groups_of_copies([*wanted.values(), *hashes], max_distance)
    named: dict[int, str] = {}
    for name, group in zip(names, groups, strict=False):
        named.setdefault(group, name)
    return [named.get(group, "") for group in groups[len(names) :]]


_FREQUENCIES, _PLACES = np.arange(KEPT)[:, None], np.arange(SIDE)[None]
_COSINES = np.cos(np.pi * _FREQUENCIES * (2 * _PLACES + 1) / (2 * SIDE))  # [KEPT, SIDE]
