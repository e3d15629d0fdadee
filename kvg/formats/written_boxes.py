"""Boxes in the texts of published files: how they are written, and their unit.

Two corners in parentheses, ``(x1,y1),(x2,y2)``, are the published form and stand on the 0-1000 grid. A list
``[x1, y1, x2, y2]``, alone or as ``{"bbox_2d": [...]}``, is absolute pixels in Qwen2.5-VL's form and 0-1000 in
Qwen3-VL's, and the text does not say which: such a box needs a declared unit. So do numbers within 0-1 in any form.
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
    """How to read the boxes of a published file, where its form does not define it.

    Attributes:
        box_unit: of all its boxes: ``pixels`` of the picture as the file holds it, ``relative_1000`` or ``unit`` (0-1).
            None takes the published convention where the form has one, and refuses the row where it has none.
        boxes_of: whether boxes refer to the ``upright`` picture or to its ``raw`` pixels before EXIF turns them.

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
        """The settings that differ from the default, for the provenance of a set."""
        unit = {} if self.box_unit is None else {"box_unit": self.box_unit}
        return unit | ({} if self.boxes_of == "upright" else {"boxes_of": self.boxes_of})


@dataclass(frozen=True)
class WrittenBox:
    """A box as a text holds it.

    Attributes:
        start: of its characters.
        end: behind them.
        text: the characters.
        numbers: as they are written.
        is_corners: in the published form; otherwise a list of four numbers, whose unit its form does not tell.
        label: of the box in JSON; '' without one.
    """

    start: int
    end: int
    text: str
    numbers: tuple[float, ...]
    is_corners: bool
    label: str = ""


def written_boxes(text: str) -> list[WrittenBox]:
    """All boxes in a text, in their order.

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
    except ValueError:  # an escape that JSON does not know
        return (label or "")[1:-1]


class BoxReader:
    """Reads the boxes of one row's texts into pixels of its upright picture.

    Args:
        where: file and row, for messages.
        reading: what is declared of the file.
        frame: the pixels that its boxes refer to.
    """

    def __init__(self, where: str, reading: Reading, frame: PixelFrame) -> None:
        self.where, self.reading, self.frame = where, reading, frame

    def pixels(self, box: WrittenBox, field: str) -> Box:
        """A box in pixels of the upright picture.

        Raises:
            DataError: nothing tells its unit, it looks like another unit than the declared one, or it does not lie in
                the picture.
        """
        unit = self.reading.box_unit
        if unit is None and not box.is_corners:
            remedy = "may be pixels (Qwen2.5-VL's form) or on the 0-1000 grid (Qwen3-VL's)"
            raise DataError(self.where, field, f"{excerpt(box.text)} {remedy}; {HOW_TO_STATE}")
        form = BoxForm(unit or "relative_1000")
        # Sets of pixels differ in whether the last one is counted; the grid ends at 1000, and a box cut off there is
        # another one.
        rim = 0.0 if form.unit == "relative_1000" else RIM
        size = self.frame.width, self.frame.height
        return self.frame.upright(form.pixels(box.numbers, *size, self.where, field, rim))

    def only_box(self, text: str, field: str) -> Box:
        """The one box of an answer.

        Raises:
            DataError: it holds none, or several that differ; or see ``pixels``.
        """
        boxes = [self.pixels(box, field) for box in written_boxes(text)]
        if not boxes:
            raise DataError(self.where, field, f"{excerpt(text)} holds no box; write it as (x1,y1),(x2,y2)")
        if len(set(boxes)) > 1:
            raise DataError(
                self.where, field, f"{excerpt(text)} holds {len(set(boxes))} boxes; give the one that is right"
            )
        return boxes[0]

    def with_placeholders(self, text: str, field: str) -> tuple[str, list[Box]]:
        """A rationale with ``<box:N>`` in the places of its boxes, and those boxes, each once.

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
