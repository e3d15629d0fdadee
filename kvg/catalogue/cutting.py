"""Regions around one object of a picture, and areas of boxes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kvg.types import Box


def region_around(box: Box, width: int, height: int, margin: float, others: Sequence[Box] = ()) -> Box:
    """Grows a box by a margin, inside the picture and without other objects.

    If another object lies in the margin, one side is moved inwards: the one that keeps the largest region. The part of
    another object that overlaps the box itself stays in the region.

    Args:
        box: box of the object, x1, y1, x2, y2 in pixels.
        width: width of the picture, in pixels.
        height: height of the picture, in pixels.
        margin: margin at each side, as a share of the box's width and height.
        others: boxes of other objects, in pixels.

    Returns:
        x1, y1, x2, y2 in whole pixels; it contains the whole ``box``.

    >>> region_around((40.0, 40.0, 60.0, 60.0), 100, 100, 0.5)
    (30.0, 30.0, 70.0, 70.0)
    >>> region_around((40.0, 40.0, 60.0, 60.0), 100, 100, 0.5, [(65.0, 0.0, 90.0, 100.0)])
    (30.0, 30.0, 65.0, 70.0)
    """
    x1, y1, x2, y2 = box
    across, down = margin * (x2 - x1), margin * (y2 - y1)
    region = max(0.0, x1 - across), max(0.0, y1 - down), min(float(width), x2 + across), min(float(height), y2 + down)
    for other in sorted(others):
        if shared_area(region, other) <= 0:
            continue
        choices = [
            (max(region[0], other[2]), region[1], region[2], region[3]),
            (region[0], max(region[1], other[3]), region[2], region[3]),
            (region[0], region[1], min(region[2], other[0]), region[3]),
            (region[0], region[1], region[2], min(region[3], other[1])),
        ]
        region = max((c for c in choices if shared_area(c, box) >= area_of(box)), key=area_of, default=region)
    left, top = math.floor(region[0]), math.floor(region[1])
    right, bottom = min(width, math.ceil(region[2])), min(height, math.ceil(region[3]))
    return float(left), float(top), float(right), float(bottom)


def area_of(box: Box) -> float:
    """Returns the area of a box; 0 if x2 <= x1 or y2 <= y1."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def shared_area(one: Box, other: Box) -> float:
    """Returns the area of the intersection of two boxes."""
    return area_of((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))


def covered_share(box: Box, others: Iterable[Box]) -> float:
    """Returns the largest share of a box that another box covers.

    >>> covered_share((0.0, 0.0, 10.0, 10.0), [(5.0, 0.0, 20.0, 10.0), (9.0, 9.0, 20.0, 20.0)])
    0.5
    """
    return max((shared_area(box, other) / area_of(box) for other in others), default=0.0)


def moved_into(box: Box, region: Box) -> Box:
    """Returns a box in the pixels of a region that was cut out; clips it to the region."""
    x, y = region[:2]
    right, bottom = region[2] - x, region[3] - y
    return max(0.0, box[0] - x), max(0.0, box[1] - y), min(right, box[2] - x), min(bottom, box[3] - y)


def overlap(one: Box, other: Box) -> float:
    """Returns the IoU of two boxes, like ``kvg.boxes.iou`` without tensors; 0 if either has no area.

    >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))  # 2 / (4 + 4 - 2)
    0.3333333333333333
    """
    areas, shared = (area_of(one), area_of(other)), shared_area(one, other)
    return shared / (sum(areas) - shared) if min(areas) > 0 else 0.0
