"""Boxes as ``supervision.Detections``, in Python. ``supervision`` is optional: install it to use these functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvg.errors import DataError
from kvg.formats.exchange.picture import LabelledBox
from kvg.records import excerpt

_CLASS_NAME = "class_name"  # supervision's own key for names, which its annotators show


def to_detections(boxes: Sequence[LabelledBox], classes: Sequence[str] | None = None) -> Any:
    """Converts boxes to ``supervision.Detections``.

    Args:
        boxes: boxes in pixels of the upright picture.
        classes: names by class number; by default the labels of these boxes in order of their first appearance.

    Returns:
        Detections in pixels (float32, as supervision stores them) with ``class_id``, ``data["class_name"]``, and
        ``confidence`` if every box has a score.

    Raises:
        DataError: a label is none of ``classes``.
    """
    import supervision  # optional, and it imports OpenCV

    names = list(dict.fromkeys(box.label for box in boxes)) if classes is None else list(classes)
    numbers = {name: number for number, name in enumerate(names)}
    for box in boxes:
        if box.label not in numbers:
            raise DataError("detections", "label", f"{excerpt(box.label)} is none of the {len(names)} classes; add it")
    scores = [box.score for box in boxes if box.score is not None]
    return supervision.Detections(
        xyxy=np.array([box.box_px for box in boxes], dtype=np.float32).reshape(-1, 4),
        class_id=np.array([numbers[box.label] for box in boxes], dtype=int),
        confidence=np.array(scores, dtype=np.float32) if boxes and len(scores) == len(boxes) else None,
        data={_CLASS_NAME: np.array([box.label for box in boxes], dtype=object)},
    )


def from_detections(detections: Any, classes: Sequence[str] | None = None) -> list[LabelledBox]:
    """Converts ``supervision.Detections`` in pixels of the upright picture to boxes.

    Args:
        detections: with ``data["class_name"]``, or with ``class_id``.
        classes: names by class number; needed if there are no names.

    Raises:
        DataError: there are neither names nor classes, or a number has no name.
    """
    names = detections.data.get(_CLASS_NAME)
    if names is None:
        if classes is None or (detections.class_id is None and len(detections)):
            raise DataError("detections", _CLASS_NAME, "is missing; give classes, the names by class number")
        numbers = [] if detections.class_id is None else [int(number) for number in detections.class_id]
        if any(not 0 <= number < len(classes) for number in numbers):
            raise DataError(
                "detections", "class_id", f"has a number that is none of the {len(classes)} classes; add it"
            )
        names = [classes[number] for number in numbers]
    scores = [None] * len(detections) if detections.confidence is None else map(float, detections.confidence)
    boxes = []
    for name, numbers_px, score in zip(names, detections.xyxy.tolist(), scores, strict=True):
        x1, y1, x2, y2 = numbers_px
        boxes.append(LabelledBox(str(name), (x1, y1, x2, y2), score=score))
    return boxes
