"""Pictures with labelled boxes, as every exchange format reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvg.types import Box

FACTS: Final = "kvg"  # name of the field in which a format keeps what it has no field for


@dataclass(frozen=True)
class LabelledBox:
    """A box with its label.

    Attributes:
        label: name of the entity.
        box_px: x1, y1, x2, y2 in pixels of the upright picture.
        category: category of the entity; '' if it is unknown.
        traits: looks of the entity in words.
        score: confidence of a prediction in 0-1; None if there is none.
    """

    label: str
    box_px: Box
    category: str = ""
    traits: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture with its boxes.

    Attributes:
        key: name of the picture, unique in its set; it becomes the name of a file.
        image: an encoded JPEG or PNG that is stored upright.
        width: width of the picture, in pixels.
        height: height of the picture, in pixels.
        boxes: true boxes.
        predictions: boxes of a model.
        target: index of the box that the picture's question asks for; None if there is no such question.
        unclear: labels of boxes that could not be read. Nothing is asked about them, since the right box is unknown.
        facts: what only this project knows of a picture, as JSON: see ``kvg.formats.exchange.samples``.
    """

    key: str
    image: bytes = field(repr=False)
    width: int
    height: int
    boxes: tuple[LabelledBox, ...] = ()
    predictions: tuple[LabelledBox, ...] = ()
    target: int | None = None
    unclear: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
