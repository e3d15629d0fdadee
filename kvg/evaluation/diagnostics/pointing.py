"""Assigns a box to an object of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kvg.boxes import iou
from kvg.evaluation.records.prediction import NamedBox, Prediction
from kvg.evaluation.records.scoring import IOU_GATE
from kvg.types import Box


def object_at(box: Box | None, objects: Sequence[NamedBox]) -> int | None:
    """The object with the highest IoU with a box, if that is at least 0.5.

    Args:
        box: on the 0-1000 grid.
        objects: of the picture.

    Returns:
        Its index; None without a box or without such an object.

    >>> birds = [NamedBox("Merlin", (0.0, 0.0, 10.0, 10.0)), NamedBox("Hobby", (0.0, 0.0, 10.0, 15.0))]
    >>> object_at((0.0, 0.0, 10.0, 14.0), birds), object_at((0.0, 0.0, 10.0, 4.0), birds)
    (1, None)
    """
    if box is None or not objects:
        return None
    overlaps = iou(torch.tensor([box] * len(objects)), torch.tensor([item.box for item in objects]))
    best = int(overlaps.argmax())
    return best if float(overlaps[best]) >= IOU_GATE else None


def answered_object(case: Prediction) -> int | None:
    """Index of the object that the answer boxes: the target if the answer is correct, else another object or None."""
    if not case.objects:
        return None
    if case.correct:
        return case.target
    others = [n for n in range(len(case.objects)) if n != case.target]
    place = object_at(case.box, [case.objects[n] for n in others])
    return None if place is None else others[place]
