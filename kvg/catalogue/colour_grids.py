"""Colour grids of pictures. They show whether two similar pictures differ in a part."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kvg.catalogue.hashing import on_grey

GRID: Final = 12  # cells per side
_MAX_GAIN: Final = 1.3  # maximum ratio of contrast between copies


def colour_grid(image: Image.Image) -> str:
    """Computes the mean colours of 12 x 12 cells of a picture.

    Args:
        image: picture in RGB or RGBA.

    Returns:
        12 * 12 * 3 bytes in base 64.
    """
    cells = on_grey(image).convert("RGB").resize((GRID, GRID), Image.Resampling.BOX).tobytes()
    return base64.b64encode(cells).decode("ascii")


class ColourGrids:
    """Compares colour grids with each other, after removing differences of brightness and contrast.

    Args:
        grids: results of ``colour_grid`` for N pictures.
    """

    def __init__(self, grids: Sequence[str]) -> None:
        raw = b"".join(base64.b64decode(grid) for grid in grids)
        cells = np.frombuffer(raw, np.uint8).reshape(-1, GRID, GRID, 3).astype(np.float32)
        self._cells = cells - cells.mean((1, 2, 3), keepdims=True)
        self._contrasts = np.maximum(cells.std((1, 2, 3)), 1e-3)

    def same(self, one: int, others: NDArray[np.int64], max_change: float) -> NDArray[np.bool_]:
        """Returns for each other picture whether all its cells are the same, mirrored or not.

        Args:
            one: index of the picture.
            others: ``[M]``, indices of the other pictures.
            max_change: maximum difference of a cell's colour that counts as the same, 0-255.

        Returns:
            ``[M]`` bool.
        """
        alike: NDArray[np.bool_] = np.minimum(self._changes(one, others), self._changes(one, others, -1)) <= max_change
        return alike

    def is_mirrored(self, one: int, other: int) -> bool:
        """Returns whether a picture is closer to the mirror image of the other picture than to that picture itself."""
        number = np.array([other])
        return bool(self._changes(one, number, -1)[0] < self._changes(one, number)[0])

    def _changes(self, one: int, others: NDArray[np.int64], step: int = 1) -> NDArray[np.float32]:
        """Returns the largest difference of a cell, ``[M]``; a step of -1 mirrors the others."""
        gains = np.clip(self._contrasts[one] / self._contrasts[others], 1 / _MAX_GAIN, _MAX_GAIN)
        fitted = self._cells[others][:, :, ::step] * gains[:, None, None, None]
        changes: NDArray[np.float32] = np.abs(fitted - self._cells[one]).max((1, 2, 3))
        return changes
