"""Checks single fields of a prediction line; lines are external data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvg.box_forms import RIM, BoxForm, BoxUnit
from kvg.errors import DataError
from kvg.records import excerpt, number_of, optional_text
from kvg.text.box_codec import GRID, ImageSize, to_norm
from kvg.types import Box

LARGEST: Final = 2**31  # limit of counts, lengths and sides, so that figures stay finite
DIGITS: Final = 6  # digits of coordinates on the 0-1000 grid: integers stay integers


def text_field(record: Mapping[str, Any], name: str, where: str) -> str:
    """A text; '' if it is missing or null.

    Raises:
        DataError: it is not a text, or cannot be encoded as UTF-8.
    """
    return optional_text(where, record, name, strip=False)


def whole_number(record: Mapping[str, Any], name: str, where: str) -> int | None:
    """An integer of at least 0; None if it is missing or null.

    Raises:
        DataError: it is not such an integer.
    """
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST:
        raise DataError(where, name, f"{excerpt(value)} must be a whole number from 0 on")
    return value


def name_field(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The name of a line and the field that holds it; both '' if there is none.

    Raises:
        DataError: the name is neither text nor an integer.
    """
    for field in ("key", "question_id"):
        value = record.get(field)
        if value is None or value == "":
            continue
        if isinstance(value, str):
            return text_field(record, field, where), field
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**100:
            raise DataError(where, field, f"{excerpt(value)} must be text")
        return str(value), field
    return "", ""


def sides_field(record: Mapping[str, Any], where: str, length: int, why: str) -> tuple[int, ...]:
    """The first ``length`` values of ``size``: [width, height, resized width, resized height] in pixels.

    Args:
        record: the line.
        where: file and line, for messages.
        length: number of values.
        why: the condition that needs them, for messages.

    Raises:
        DataError: they are missing or wrong.
    """
    sides = record.get("size")
    given = sides if isinstance(sides, list) and len(sides) in {length, 4} else [None]
    if not all(type(side) is int and 0 < side < LARGEST for side in given):
        names = ", ".join(("width", "height", "resized width", "resized height")[:length])
        raise DataError(where, "size", f"{excerpt(sides)} must be [{names}] where {why}")
    return tuple(given[:length])


def box_numbers(value: Any, where: str, name: str) -> Box:
    """Four finite numbers, without a check of their range.

    Raises:
        DataError: the value is not four finite numbers.
    """
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    numbers = [None if isinstance(part, str) else number_of(part) for part in parts]
    if len(numbers) != 4 or None in numbers:
        raise DataError(where, name, f"{excerpt(value)} is not four numbers x1, y1, x2, y2")
    x1, y1, x2, y2 = (number for number in numbers if number is not None)
    return x1, y1, x2, y2


def box_of(value: Any, where: str, name: str) -> Box:
    """Checks a true box.

    Raises:
        DataError: it is not four numbers on the 0-1000 grid, or lies within 0-1, which is another unit.
    """
    x1, y1, x2, y2 = box = _on_grid(value, where, name)
    if max(box) <= 1 and x1 < x2 and y1 < y2:
        remedy = (
            f"{excerpt(value)} lies in 0-1, not on the 0-{GRID} grid; state the unit: kvg-data score --box-unit unit"
        )
        raise DataError(where, name, remedy)
    return box


def boxes_of(value: Any, where: str, name: str) -> list[Box]:
    """Checks a list of true boxes.

    A box without area beside others is accepted, as in the published evaluation: its IoU is always 0.

    Raises:
        DataError: it is not a list or is empty, a box is off the grid, or no box has an area.
    """
    raws = _box_list(value, where, name)
    boxes = [box_of(raw, where, f"{name}[{i}]") for i, raw in enumerate(raws)]
    if not any(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in boxes):
        remedy = f"{excerpt(value)} holds no box with x1 < x2 and y1 < y2: no answer could be correct"
        raise DataError(where, name, remedy)
    return boxes


def on_grid(record: Mapping[str, Any], unit: BoxUnit | None, where: str) -> dict[str, Any]:
    """A line with its true boxes converted to the 0-1000 grid; the model's answer is not changed.

    Args:
        record: the line; ``gt_bbox`` and the boxes of ``objects`` are in ``unit``.
        unit: ``pixels`` needs the picture's ``size``; None and ``relative_1000`` change nothing.
        where: file and line, for messages.

    Raises:
        DataError: a box is not in that unit, or ``size`` is missing.
    """
    if unit in (None, "relative_1000") or "options" in record:
        return dict(record)
    width, height = sides_field(record, where, 2, "box_unit is pixels") if unit == "pixels" else (GRID, GRID)
    form, size = BoxForm(unit), ImageSize(width, height, width, height)

    def converted(raw: Any, field: str) -> list[float]:
        x1, y1, x2, y2 = form.uncut(box_numbers(raw, where, field), width, height, where, field)
        across, down = (min(x1, x2), max(x1, x2)), (min(y1, y2), max(y1, y2))
        if any(low < -RIM or high > side + RIM for (low, high), side in ((across, width), (down, height))):
            remedy = "does not lie inside its picture; correct it, or --box-unit"
            raise DataError(where, field, f"{excerpt(raw)} in {unit} {remedy}")
        return [min(max(round(v, DIGITS), 0.0), float(GRID)) for v in to_norm((x1, y1, x2, y2), size)]

    made = dict(record)
    if record.get("gt_bbox") is not None:
        raws = _box_list(record["gt_bbox"], where, "gt_bbox")
        made["gt_bbox"] = [converted(raw, f"gt_bbox[{number}]") for number, raw in enumerate(raws)]
    objects = record.get("objects")
    if isinstance(objects, list):
        made["objects"] = [
            {**item, "box": converted(item["box"], f"objects[{number}].box")}
            if isinstance(item, Mapping) and "box" in item
            else item
            for number, item in enumerate(objects)
        ]
    return made


def _box_list(value: Any, where: str, name: str) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        remedy = "is not a list of boxes; write [[x1, y1, x2, y2], ...] on the 0-1000 grid"
        raise DataError(where, name, f"{excerpt(value)} {remedy}")
    return value


def _on_grid(value: Any, where: str, name: str) -> Box:
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(parts) == 4 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in parts):
        if all(0 <= v <= GRID for v in parts):  # also rejects NaN, and integers that are too large for a float
            x1, y1, x2, y2 = map(float, parts)
            return x1, y1, x2, y2
        remedy = f"{excerpt(list(parts))} does not lie on the 0-{GRID} grid; give relative coordinates"
        raise DataError(where, name, f"{remedy}, or state their unit: kvg-data score --box-unit")
    raise DataError(where, name, f"{excerpt(value)} is not four numbers x1, y1, x2, y2")
