"""Box codecs: write boxes as text for a backbone, and read them from its answers.

Shards store boxes in pixels of the stored image. Each family of models has its own convention. Using the wrong one is
the most frequent cause of a reward that stays at zero, so each backbone has exactly one codec, and only codecs format
coordinates. Reading is more lenient than writing: special tokens may be missing, numbers may have decimals and spaces,
and every family may use the bracket form. But the four numbers must be in parentheses or brackets.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

from kvg.types import Box

BOX_START: Final = "<|box_start|>"
BOX_END: Final = "<|box_end|>"
GRID: Final = 1000  # relative coordinates run from 0 to this

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_CORNERS = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)", re.ASCII)
_LIST = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]", re.ASCII)
_CANONICAL_CORNERS = re.compile(
    rf"\s*(?:<\|object_ref_start\|>[^<]*<\|object_ref_end\|>)?(?:{re.escape(BOX_START)})?"
    rf"\(\d+,\d+\),\(\d+,\d+\)(?:{re.escape(BOX_END)})?\s*",
    re.ASCII,
)

_FOUR = r"\[\d+,\s*\d+,\s*\d+,\s*\d+\]"


@dataclass(frozen=True)
class ImageSize:
    """Both sizes of one image, in pixels: stored (for boxes of shards), and resized for the model."""

    width: int
    height: int
    resized_width: int
    resized_height: int


def to_norm(box_px: Box, size: ImageSize) -> Box:
    """Converts a box of the stored image to the relative grid, without rounding.

    >>> to_norm((10.0, 20.0, 50.0, 100.0), ImageSize(100, 200, 112, 224))
    (100.0, 100.0, 500.0, 500.0)
    """
    x1, y1, x2, y2 = box_px
    return (x1 * GRID / size.width, y1 * GRID / size.height, x2 * GRID / size.width, y2 * GRID / size.height)


def from_norm(box_norm: Box, width: int, height: int) -> Box:
    """Converts a box on the relative grid to pixels of an image.

    >>> from_norm((100.0, 100.0, 500.0, 500.0), 100, 200)
    (10.0, 20.0, 50.0, 100.0)
    """
    x1, y1, x2, y2 = box_norm
    return (x1 * width / GRID, y1 * height / GRID, x2 * width / GRID, y2 * height / GRID)


def _round_pair(low: float, high: float, limit: int) -> tuple[int, int]:
    """Rounds and clamps one axis; keeps an extent of at least 1, so that a true box never becomes degenerate."""
    first, last = (min(max(round(value), 0), limit) for value in (low, high))
    if last > first:
        return first, last
    first = min(first, limit - 1)
    return first, first + 1


def _clamp(value: float, limit: int) -> float:
    return min(max(value, 0.0), float(limit))


def last_numbers(text: str) -> tuple[Box, int] | None:
    """Returns the four numbers of the last box in a text, in no unit, and its form; None without a box.

    As published, corners (1) precede lists of four numbers (2).

    >>> last_numbers("[5, 6, 7, 8], then (1,2),(3,4)")
    ((1.0, 2.0, 3.0, 4.0), 1)
    """
    for form, pattern in enumerate((_CORNERS, _LIST), 1):
        matches = pattern.findall(text)
        if matches:
            x1, y1, x2, y2 = (float(number) for number in matches[-1])
            return (x1, y1, x2, y2), form
    return None


def box_spans(text: str) -> list[tuple[int, int]]:
    """Returns start and end of all boxes in a text, in either form, in order.

    >>> box_spans("1 (1,2),(3,4) red; 2 [5, 6, 7, 8] blue (2019)")
    [(2, 13), (21, 33)]
    """
    return sorted(match.span() for pattern in (_CORNERS, _LIST) for match in pattern.finditer(text))


class BoxCodec(ABC):
    """A box codec. Stateless and picklable.

    Attributes:
        name: its name in ``predictions.jsonl``: ``relative`` or ``absolute``.
        marks: special tokens that it writes.
    """

    name: ClassVar[str]
    marks: tuple[str, ...] = ()

    @abstractmethod
    def encode(self, box_px: Box, size: ImageSize) -> str:
        """Writes a box in the form that the backbone was trained with.

        Args:
            box_px: box in pixels of the stored image; it is clipped to the image.
            size: sizes of that image.
        """

    @abstractmethod
    def find(self, text: str, size: ImageSize) -> tuple[Box, int] | None:
        """Returns the result of ``decode``, and the form of the box: 1 = two corners, 2 = a list of four numbers."""

    def decode(self, text: str, size: ImageSize) -> Box | None:
        """Reads the last box in a text.

        Args:
            text: an answer, or any text.
            size: sizes of its image.

        Returns:
            The box in pixels of the stored image, clamped to it, corners in the given order (a box with ``x2 <= x1`` is
            not changed and counts as a miss); None if there is no box.
        """
        match = self.find(text, size)
        return None if match is None else match[0]

    @abstractmethod
    def is_canonical(self, text: str) -> bool:
        """Returns whether a text is exactly one box in the form that ``encode`` writes.

        Special tokens are optional, since rollouts are often decoded without them.
        """


class RelativeCodec(BoxCodec):
    """Qwen2-VL and Qwen3-VL: integers on a grid of 0-1000 over width and height of the image.

    Args:
        as_json: whether to write ``{"bbox_2d": [x1, y1, x2, y2]}``, as Qwen3-VL does, instead of the corner form.
        published_unit_boxes: whether to read four numbers whose sum is below 4 as shares of the image, as the published
            evaluation does for baselines that answer in 0-1.

    >>> size = ImageSize(200, 100, 224, 112)
    >>> RelativeCodec().encode((20.0, 10.0, 100.0, 99.0), size)
    '<|box_start|>(100,100),(500,990)<|box_end|>'
    >>> RelativeCodec().decode("(100,100),(500,990)", size)
    (20.0, 10.0, 100.0, 99.0)
    """

    name = "relative"
    marks: tuple[str, ...] = (BOX_START, BOX_END)

    def __init__(self, as_json: bool = False, published_unit_boxes: bool = False) -> None:
        self.as_json, self.published_unit_boxes = as_json, published_unit_boxes
        if as_json:
            self.marks = ()

    def encode(self, box_px: Box, size: ImageSize) -> str:
        """See ``BoxCodec.encode``; coordinates are rounded to the nearest integer."""
        norm = to_norm(box_px, size)
        x1, x2 = _round_pair(norm[0], norm[2], GRID)
        y1, y2 = _round_pair(norm[1], norm[3], GRID)
        return _write_json(x1, y1, x2, y2) if self.as_json else f"{BOX_START}({x1},{y1}),({x2},{y2}){BOX_END}"

    def find(self, text: str, size: ImageSize) -> tuple[Box, int] | None:
        """See ``BoxCodec.find``; coordinates beyond 0-1000 are clamped."""
        match = last_numbers(text)
        if match is None:
            return None
        box, form = match
        unit = GRID if self.published_unit_boxes and sum(box) < 4 else 1
        x1, y1, x2, y2 = (_clamp(value * unit, GRID) for value in box)
        return from_norm((x1, y1, x2, y2), size.width, size.height), form

    def is_canonical(self, text: str) -> bool:
        """See ``BoxCodec.is_canonical``."""
        return _is_json_box(text) if self.as_json else _CANONICAL_CORNERS.fullmatch(text) is not None


class ListCodec(RelativeCodec):
    """InternVL and GLM-4.xV: integers on a grid of 0-1000, as a list between two marks.

    Args:
        marks: before and after.
        nested: whether the list stands in another one, as one box of several (InternVL). GLM-4.xV was published with
            either form: it writes one list, and both count as canonical.

    >>> size = ImageSize(200, 100, 896, 448)
    >>> ListCodec().encode((20.0, 10.0, 100.0, 99.0), size)
    '<box>[[100, 100, 500, 990]]</box>'
    >>> ListCodec().decode("<ref>Merlin</ref><box>[[100, 100, 500, 990]]</box>", size)
    (20.0, 10.0, 100.0, 99.0)
    >>> ListCodec(("<|begin_of_box|>", "<|end_of_box|>"), nested=False).encode((20.0, 10.0, 100.0, 99.0), size)
    '<|begin_of_box|>[100, 100, 500, 990]<|end_of_box|>'
    """

    def __init__(self, marks: tuple[str, str] = ("<box>", "</box>"), nested: bool = True) -> None:
        super().__init__()
        self.marks, self.nested = marks, nested
        start, end = (f"(?:{re.escape(mark)})?" for mark in marks)
        lists = rf"\[{_FOUR}\]" if nested else rf"(?:{_FOUR}|\[{_FOUR}\])"
        self._canonical = re.compile(rf"\s*(?:<ref>[^<]*</ref>)?{start}{lists}{end}\s*", re.ASCII)

    def encode(self, box_px: Box, size: ImageSize) -> str:
        """See ``BoxCodec.encode``; coordinates are rounded to the nearest integer."""
        norm = to_norm(box_px, size)
        x1, x2 = _round_pair(norm[0], norm[2], GRID)
        y1, y2 = _round_pair(norm[1], norm[3], GRID)
        numbers = json.dumps([[x1, y1, x2, y2]] if self.nested else [x1, y1, x2, y2])
        return f"{self.marks[0]}{numbers}{self.marks[1]}"

    def is_canonical(self, text: str) -> bool:
        """See ``BoxCodec.is_canonical``."""
        return self._canonical.fullmatch(text) is not None


class AbsoluteCodec(BoxCodec):
    """Qwen2.5-VL: integer pixels of the resized image, as JSON.

    >>> size = ImageSize(200, 100, 224, 112)
    >>> AbsoluteCodec().encode((20.0, 10.0, 100.0, 50.0), size)
    '{"bbox_2d": [22, 11, 112, 56]}'
    >>> AbsoluteCodec().decode('[{"bbox_2d": [56, 28, 112, 56], "label": "Merlin"}]', size)
    (50.0, 25.0, 100.0, 50.0)
    """

    name = "absolute"

    def encode(self, box_px: Box, size: ImageSize) -> str:
        """See ``BoxCodec.encode``; coordinates are rounded to the nearest pixel of the resized image."""
        factor_x, factor_y = size.resized_width / size.width, size.resized_height / size.height
        x1, x2 = _round_pair(box_px[0] * factor_x, box_px[2] * factor_x, size.resized_width)
        y1, y2 = _round_pair(box_px[1] * factor_y, box_px[3] * factor_y, size.resized_height)
        return _write_json(x1, y1, x2, y2)

    def find(self, text: str, size: ImageSize) -> tuple[Box, int] | None:
        """See ``BoxCodec.find``; coordinates beyond the resized image are clamped."""
        match = last_numbers(text)
        if match is None:
            return None
        box, form = match
        x1, x2 = (_clamp(value, size.resized_width) * size.width / size.resized_width for value in box[::2])
        y1, y2 = (_clamp(value, size.resized_height) * size.height / size.resized_height for value in box[1::2])
        return (x1, y1, x2, y2), form

    def is_canonical(self, text: str) -> bool:
        """See ``BoxCodec.is_canonical``; a ``label`` and a code fence are allowed, since the family writes them."""
        return _is_json_box(text)


def _write_json(x1: int, y1: int, x2: int, y2: int) -> str:
    return json.dumps({"bbox_2d": [x1, y1, x2, y2]})


def _is_json_box(text: str) -> bool:
    stripped = text.strip()
    if stripped.startswith("```json") and stripped.endswith("```"):
        stripped = stripped[len("```json") : -len("```")]
    try:
        value = json.loads(stripped)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return False
    box = value.get("bbox_2d")
    return isinstance(box, list) and len(box) == 4 and all(type(number) is int for number in box)
