"""Reads the four numbers of a box under every convention: units, orders, and rules of resizing pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from kvg.text.box_codec import ImageSize
from kvg.types import Box

BoxUnit = Literal["relative_1000", "pixels", "resized", "unit", "percent"]
BoxOrder = Literal["xyxy", "yxyx", "xywh", "cxcywh"]

_UNITS: Final[dict[BoxUnit, str]] = {
    "relative_1000": "0-1000 of width and height",
    "pixels": "pixels of the picture in the file",
    "resized": "pixels of the resized picture",
    "unit": "0-1 of width and height",
    "percent": "0-100 of width and height",
}
_ORDERS: Final[dict[BoxOrder, str]] = {
    "xyxy": "x1, y1, x2, y2",
    "yxyx": "y1, x1, y2, x2",
    "xywh": "x, y, width, height",
    "cxcywh": "centre x, centre y, width, height",
}
_SCALES: Final[dict[BoxUnit, float]] = {"relative_1000": 1000.0, "unit": 1.0, "percent": 100.0}


@dataclass(frozen=True)
class Convention:
    """One meaning of four numbers.

    Attributes:
        unit: of the numbers.
        order: of the numbers.
        rule: rule of resizing, of the unit ``resized``; '' for the other units.
    """

    unit: BoxUnit
    order: BoxOrder = "xyxy"
    rule: str = ""

    @property
    def title(self) -> str:
        """The convention in words.

        >>> Convention("unit", "yxyx").title
        '0-1 of width and height (y1, x1, y2, x2)'
        """
        rule = f", {self.rule}" if self.rule else ""
        return f"{_UNITS[self.unit]}{rule} ({_ORDERS[self.order]})"

    def share(self, numbers: Box, size: ImageSize) -> Box:
        """The box in shares of width and height, 0-1, clamped to the picture as codecs do it.

        Args:
            numbers: as the model wrote them.
            size: sizes of the picture; the resized ones are those of ``rule``.

        >>> Convention("relative_1000", "xywh").share((100, 200, 300, 400), ImageSize(50, 50, 56, 56))
        (0.1, 0.2, 0.4, 0.6)
        >>> Convention("resized").share((28, 14, 56, 60), ImageSize(100, 100, 112, 56))
        (0.25, 0.25, 0.5, 1.0)
        """
        x1, y1, x2, y2 = _corners(numbers, self.order)
        if self.unit == "pixels":
            width, height = float(size.width), float(size.height)
        elif self.unit == "resized":
            width, height = float(size.resized_width), float(size.resized_height)
        else:
            width = height = _SCALES[self.unit]
        return _inside(x1 / width), _inside(y1 / height), _inside(x2 / width), _inside(y2 / height)


def conventions(rules: Iterable[str]) -> Iterator[Convention]:
    """Yields every convention, common ones first.

    Args:
        rules: names of the rules of resizing.
    """
    names = list(rules)
    for order in _ORDERS:
        for unit in _UNITS:
            if unit == "resized":
                yield from (Convention(unit, order, rule) for rule in names)
            else:
                yield Convention(unit, order)


def _corners(numbers: Box, order: BoxOrder) -> Box:
    first, second, third, fourth = numbers
    if order == "yxyx":
        return second, first, fourth, third
    if order == "xywh":
        return first, second, first + third, second + fourth
    if order == "cxcywh":
        return first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2
    return numbers


def _inside(share: float) -> float:
    return min(max(share, 0.0), 1.0)
