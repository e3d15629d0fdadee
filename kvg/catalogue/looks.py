"""Coarse looks of pictures: whether two that are alike on the whole differ somewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kvg.catalogue.hashing import on_grey

GRID: Final = 12  # cells a side
_MAX_GAIN: Final = 1.3  # of contrast between copies


def coarse_look(image: Image.Image) -> str:
    """The mean colours of 12 x 12 cells of a picture.

    Args:
        image: RGB or RGBA.

    Returns:
        12 * 12 * 3 bytes in base 64.
    """
    cells = on_grey(image).convert("RGB").resize((GRID, GRID), Image.Resampling.BOX).tobytes()
    return base64.b64encode(cells).decode("ascii")


class Looks:
    """Coarse looks that are compared with each other, apart from brightness and contrast.

    Args:
        looks: those of N pictures, see ``coarse_look``.
    """

    def __init__(self, looks: Sequence[str]) -> None:
        raw = b"".join(base64.b64decode(look) for look in looks)
        cells = np.frombuffer(raw, np.uint8).reshape(-1, GRID, GRID, 3).astype(np.float32)
        self._cells = cells - cells.mean((1, 2, 3), keepdims=True)
        self._contrasts = np.maximum(cells.std((1, 2, 3)), 1e-3)

    def same(self, one: int, others: NDArray[np.int64], max_change: float) -> NDArray[np.bool_]:
        """Whether a picture is like others in every cell, mirrored or not.

        Args:
            one: its number.
            others: ``[M]`` numbers.
            max_change: of 255, by which the colour of a cell may differ.

        Returns:
            ``[M]``.
        """
        alike: NDArray[np.bool_] = np.minimum(self._changes(one, others), self._changes(one, others, -1)) <= max_change
        return alike

    def is_mirrored(self, one: int, other: int) -> bool:
        """Whether a picture is more like the mirror image of another than like the other itself."""
        number = np.array([other])
        return bool(self._changes(one, number, -1)[0] < self._changes(one, number)[0])

    def _changes(self, one: int, others: NDArray[np.int64], step: int = 1) -> NDArray[np.float32]:
        """By how much some cell differs; a step of -1 mirrors the others."""
        gains = np.clip(self._contrasts[one] / self._contrasts[others], 1 / _MAX_GAIN, _MAX_GAIN)
        fitted = self._cells[others][:, :, ::step] * gains[:, None, None, None]
        changes: NDArray[np.float32] = np.abs(fitted - self._cells[one]).max((1, 2, 3))
        return changes
