"""Boxes in the texts of published files: finds them, and converts them to pixels.

Two corners in parentheses, ``(x1,y1),(x2,y2)``, are the published form, on the 0-1000 grid. A list
``[x1, y1, x2, y2]``, alone or as ``{"bbox_2d": [...]}``, is in absolute pixels for Qwen2.5-VL and in 0-1000 for
Qwen3-VL. The text does not show which, so such a box needs a declared unit. Numbers within 0-1 need one in any form.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from kvg.box_forms import RIM, BoxesOf, BoxForm, BoxUnit, PixelFrame, check_boxes_of
from kvg.errors import DataError
from kvg.records import excerpt
from kvg.types import Box

HOW_TO_STATE: Final = "state box_unit: pixels, relative_1000 or unit (kvg-data convert --box-unit, data.box_unit)"

_NUMBER = r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_CORNERS = rf"\({_NUMBER},{_NUMBER}\)\s*,?\s*\({_NUMBER},{_NUMBER}\)"
_LIST = rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]"
_NESTED = rf"\[\s*\[{_NUMBER},{_NUMBER}\]\s*,\s*\[{_NUMBER},{_NUMBER}\]\s*\]"
_KEY = r"\"bbox(?:_2d)?\"\s*:\s*"
_LABEL = r"\"label\"\s*:\s*(\"(?:[^\"\\]|\\.)*\")"
_ANY = re.compile(
    rf"(?:<\|box_start\|>\s*)?(?:{_CORNERS}|\{{\s*(?:{_LABEL}\s*,\s*)?{_KEY}{_LIST}\s*(?:,\s*{_LABEL}\s*)?\}}|{_LIST}|{_NESTED})"
    r"(?:\s*<\|box_end\|>)?",
    re.ASCII,
)


@dataclass(frozen=True)
class Reading:
    """Declared unit and frame of the boxes of a published file whose form does not define them.

    Attributes:
        box_unit: unit of all boxes: ``pixels`` of the stored picture, ``relative_1000`` or ``unit`` (0-1). None uses
            the published convention of the form; a row whose form has none is rejected.
        boxes_of: ``upright`` if boxes refer to the upright picture, ``raw`` if they refer to pixels before the EXIF
            rotation.

    Raises:
        ConfigError: a value is unknown.
    """

    box_unit: BoxUnit | None = None
    boxes_of: BoxesOf = "upright"

    def __post_init__(self) -> None:
        if self.box_unit is not None:
            BoxForm(self.box_unit)
        check_boxes_of(self.boxes_of)

    @property
    def settings(self) -> dict[str, str]:
        """Returns the settings that differ from the default, for the provenance of a set."""
        unit = {} if self.box_unit is None else {"box_unit": self.box_unit}
        return unit | ({} if self.boxes_of == "upright" else {"boxes_of": self.boxes_of})


@dataclass(frozen=True)
class WrittenBox:
    """A box that was found in a text.

    Attributes:
        start: index of its first character.
        end: index after its last character.
        text: its characters.
        numbers: its four numbers.
        is_corners: whether it has the published form; otherwise it is a list of four numbers of unknown unit.
        label: label of the box in JSON; '' if there is none.
    """

    start: int
    end: int
    text: str
    numbers: tuple[float, ...]
    is_corners: bool
    label: str = ""


def written_boxes(text: str) -> list[WrittenBox]:
    """Finds all boxes in a text, in order.

    >>> [(box.text, box.is_corners) for box in written_boxes('a (1,2),(3,4) b [5, 6, 7, 8] c (2019)')]
    [('(1,2),(3,4)', True), ('[5, 6, 7, 8]', False)]
    """
    boxes = []
    for match in _ANY.finditer(text):
        groups = match.groups()
        corners, keyed, listed, nested = groups[:4], groups[5:9], groups[10:14], groups[14:]
        texts = next(four for four in (corners, keyed, listed, nested) if four[0] is not None)
        numbers = tuple(map(float, texts))
        is_corners = corners[0] is not None
        boxes.append(
            WrittenBox(*match.span(), match[0].strip(), numbers, is_corners, _unquoted(groups[4] or groups[9]))
        )
    return boxes


def _unquoted(label: str | None) -> str:
    try:
        return str(json.loads(label, strict=False)) if label else ""
    except ValueError:  # an escape sequence that is not JSON
        return (label or "")[1:-1]


class BoxReader:
    """Reads the boxes of one row's texts into pixels of its upright picture.

    Args:
        where: file and row, for messages.
        reading: declared unit and frame of the file's boxes.
        frame: the pixels that its boxes refer to.
    """

    def __init__(self, where: str, reading: Reading, frame: PixelFrame) -> None:
        self.where, self.reading, self.frame = where, reading, frame

    def pixels(self, box: WrittenBox, field: str) -> Box:
        """Converts a box to pixels of the upright picture.

        Raises:
            DataError: the unit is unknown, the box looks like another unit than the declared one, or it lies outside
                the picture.
        """
        unit = self.reading.box_unit
        if unit is None and not box.is_corners:
            remedy = "may be pixels (Qwen2.5-VL's form) or on the 0-1000 grid (Qwen3-VL's)"
            raise DataError(self.where, field, f"{excerpt(box.text)} {remedy}; {HOW_TO_STATE}")
        form = BoxForm(unit or "relative_1000")
        # Data sets in pixels differ in whether x2 is inclusive, so a small excess is clipped. The 0-1000 grid has no
        # such ambiguity: a number above 1000 is an error.
        rim = 0.0 if form.unit == "relative_1000" else RIM
        size = self.frame.width, self.frame.height
        return self.frame.upright(form.pixels(box.numbers, *size, self.where, field, rim))

    def only_box(self, text: str, field: str) -> Box:
        """Returns the only box of an answer.

        Raises:
            DataError: the answer has no box or several different ones; or see ``pixels``.
        """
        boxes = [self.pixels(box, field) for box in written_boxes(text)]
        if not boxes:
            raise DataError(self.where, field, f"{excerpt(text)} contains no box; write it as (x1,y1),(x2,y2)")
        if len(set(boxes)) > 1:
            raise DataError(
                self.where,
                field,
                f"{excerpt(text)} contains {len(set(boxes))} different boxes; give only the correct one",
            )
        return boxes[0]

    def with_placeholders(self, text: str, field: str) -> tuple[str, list[Box]]:
        """Replaces the boxes of a rationale by ``<box:N>``; returns the text and the distinct boxes.

        Raises:
            DataError: see ``pixels``.
        """
        boxes: list[Box] = []
        parts: list[str] = []
        end = 0
        for written in written_boxes(text):
            box = self.pixels(written, field)
            if box not in boxes:
                boxes.append(box)
            label = f"{written.label} " if written.label else ""
            parts += [text[end : written.start], f"{label}<box:{boxes.index(box)}>"]
            end = written.end
        return "".join((*parts, text[end:])), boxes
