"""Boxes as people write them: four numbers whose unit and order are declared, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from kvg.errors import ConfigError, DataError
from kvg.pictures import picture_size, raw_orientation, upright_box
from kvg.records import excerpt, number_of
from kvg.types import Box

BoxUnit = Literal["pixels", "relative_1000", "unit"]
BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
BoxesOf = Literal["upright", "raw"]
_SCALES: Final = {"relative_1000": 1000.0, "unit": 1.0}
RIM: Final = 1.5  # pixels that a box may reach over the rim: sets differ in whether the last pixel is counted


@dataclass(frozen=True)
class BoxForm:
    """Unit and order of the four numbers of a box.

    Attributes:
        unit: ``pixels`` of the picture, ``relative_1000`` (0-1000 over width and height, Qwen2-VL and Qwen3-VL) or
            ``unit`` (0-1 over width and height).
        format: ``xyxy`` (two corners), ``xywh`` (corner, width, height; COCO) or ``cxcywh`` (centre, width, height;
            YOLO).

    Raises:
        ConfigError: unit or format is unknown.
    """

    unit: BoxUnit = "pixels"
    format: BoxFormat = "xyxy"

    def __post_init__(self) -> None:
        for name, value, known in (("box_unit", self.unit, BoxUnit), ("box_format", self.format, BoxFormat)):
            if value not in get_args(known):
                raise ConfigError(name, f"{value!r} is none of {', '.join(get_args(known))}")

    def pixels(self, raw: Any, width: int, height: int, where: str, field: str, rim: float = RIM) -> Box:
        """A box in pixels of its picture.

        Args:
            raw: as a source writes it: a list of four numbers, which may stand in quotes.
            width: of the picture in pixels.
            height: of the picture in pixels.
            where: file and row, for messages.
            field: that holds the box.
            rim: pixels that it may reach over the rim of the picture, where it is cut off.

        Returns:
            x1, y1, x2, y2 in pixels, inside the picture.

        Raises:
            DataError: it is not four finite numbers, has no area, does not lie in its picture, or looks like another
                unit than the declared one.
        """
        x1, y1, x2, y2 = self.uncut(raw, width, height, where, field)
        inside = -rim <= x1 < x2 <= width + rim and -rim <= y1 < y2 <= height + rim
        box = max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
        if not inside or box[0] >= box[2] or box[1] >= box[3]:
            needed = "x1 < x2 and y1 < y2" if self.format == "xyxy" else "width and height above 0"
            fault = f"does not lie inside its {width}x{height} picture"
            if x1 >= x2 or y1 >= y2:
                fault = f"has no area, which needs {needed}"
            remedy = "correct it, or state box_unit and box_format as they are"
            raise DataError(where, field, f"{excerpt(raw)} as {self._order()} {fault}; {remedy}")
        return box

    def uncut(self, raw: Any, width: int, height: int, where: str, field: str) -> Box:
        """As ``pixels``, wherever the box lies: it is neither checked against its picture nor cut off there.

        Raises:
            DataError: see ``numbers``.
        """
        values = self.numbers(raw, where, field)
        if self.unit in _SCALES:
            scale = _SCALES[self.unit]
            values = tuple(v * side / scale for v, side in zip(values, (width, height) * 2, strict=True))
        return self.corners(values)

    def numbers(self, raw: Any, where: str, field: str) -> tuple[float, ...]:
        """The four numbers of a box, in its own unit and order.

        Raises:
            DataError: it is not four finite numbers, or all of them lie in 0-1 although another unit is declared.
        """
        parts = raw if isinstance(raw, Sequence) and not isinstance(raw, str | bytes) else ()
        values = [number_of(part) for part in parts]
        if len(values) != 4 or None in values:
            raise DataError(where, field, f"{excerpt(raw)} is not four numbers {self._order()}; correct it")
        numbers = tuple(float(v) for v in values if v is not None)
        if self.unit != "unit" and max(map(abs, numbers)) <= 1:
            remedy = f"{excerpt(raw)} lies in 0-1, but box_unit is {self.unit}; state box_unit: unit, or correct it"
            raise DataError(where, field, remedy)
        return numbers

    def corners(self, values: Sequence[float]) -> Box:
        """Two corners of four numbers in this order, in the same unit.

        >>> BoxForm(format="cxcywh").corners((5.0, 5.0, 4.0, 2.0))
        (3.0, 4.0, 7.0, 6.0)
        """
        first, second, third, fourth = values
        if self.format == "xywh":
            return first, second, first + third, second + fourth
        if self.format == "cxcywh":
            return first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2
        return first, second, third, fourth

    def _order(self) -> str:
        names = {"xyxy": "[x1, y1, x2, y2]", "xywh": "[x, y, width, height]", "cxcywh": "[x, y of the centre, ...]"}
        return f"{names[self.format]} in {self.unit}"


@dataclass(frozen=True)
class PixelFrame:
    """The pixels that a source's boxes refer to, and how they lie.

    Attributes:
        width: of these pixels.
        height: of these pixels.
        turned: EXIF orientation that brings them upright; 1 where they are.
    """

    width: int
    height: int
    turned: int = 1

    def upright(self, box: Box) -> Box:
        """A box of these pixels in the upright picture, exact to the pixel."""
        return upright_box(box, self.width, self.height, self.turned)


def pixel_frame(data: bytes, name: str, boxes_of: BoxesOf) -> PixelFrame:
    """The pixels that the boxes of a picture refer to.

    Args:
        data: the picture's file as the source holds it.
        name: what errors call it.
        boxes_of: ``upright``: the picture as viewers show it; ``raw``: its pixels as stored, before EXIF turns them.

    Raises:
        ConfigError: ``boxes_of`` is unknown.
        DataError: the header cannot be read.
    """
    check_boxes_of(boxes_of)
    return PixelFrame(*(raw_orientation(data, name) if boxes_of == "raw" else picture_size(data, name)))


def check_boxes_of(boxes_of: str) -> None:
    """Checks the setting.

    Raises:
        ConfigError: it is unknown.
    """
    if boxes_of not in get_args(BoxesOf):
        raise ConfigError("boxes_of", f"{boxes_of!r} is none of {', '.join(get_args(BoxesOf))}")
