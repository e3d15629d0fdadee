"""The boxes that a text quotes, while it is being written: where they stand, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from PIL import Image

from kvg.pipeline.grounding import BOX_COLOUR, draw_box
from kvg.text.box_codec import BoxCodec, ImageSize, box_spans
from kvg.text.completion import parse_completion
from kvg.types import Box

_OPENING, _CLOSING = "<answer>", "</answer>"
_TAGS: Final = ("<think>", "</think>", _OPENING, _CLOSING)
_COLOURS: Final = ((37, 99, 235), (21, 128, 61), (126, 34, 206), (180, 83, 9), (15, 118, 110), (190, 24, 93))
_SHORTEST, _LONGEST = 560, 1400  # pixels of the sides of a picture on the page: small ones are enlarged
_MARGIN: Final = 8  # pixels of the page between the answer and a quoted box that is the same


@dataclass(frozen=True)
class Quote:
    """A box in a text.

    Attributes:
        start: index of its first character.
        stop: index after its last character.
        box_px: x1, y1, x2, y2 in pixels of the upright picture.
        number: from 1; the same box has the same number. 0 for the answer.
    """

    start: int
    stop: int
    box_px: Box
    number: int

    @property
    def colour(self) -> tuple[int, int, int]:
        """Its red, green and blue, 0-255."""
        return _COLOURS[(self.number - 1) % len(_COLOURS)] if self.number else BOX_COLOUR


def answer_box(text: str, codec: BoxCodec, size: ImageSize) -> Box | None:
    """The box of the answer in an unfinished text, as ``kvg.text.answer.read_answer`` reads it at the end.

    Without tags any box may be followed by others, so that the end alone says which one is the answer.

    >>> from kvg.text.box_codec import RelativeCodec
    >>> size = ImageSize(100, 200, 112, 224)
    >>> answer_box("<think>1 (0,0),(500,500)</think><answer>(100,100),(500,500)", RelativeCodec(), size)
    (10.0, 20.0, 50.0, 100.0)
    >>> answer_box("<think>1 (0,0),(500,500)", RelativeCodec(), size)
    """
    if _OPENING not in text:
        return None
    return codec.decode(parse_completion(text if _CLOSING in text else text + _CLOSING).answer, size)


def read_quotes(text: str, codec: BoxCodec, size: ImageSize, answer: Box | None) -> list[Quote]:
    """The boxes in a text, in order.

    Args:
        text: of a model, finished or not.
        codec: the model's box convention.
        size: both sizes of the picture.
        answer: see ``answer_box``.
    """
    numbers: dict[Box, int] = {}
    quotes = []
    answer_start = text.find(_OPENING)
    for start, stop in box_spans(text):
        box = codec.decode(text[start:stop], size)
        if box is None:
            continue
        is_answer = box == answer and start > answer_start
        number = 0 if is_answer else numbers.setdefault(box, len(numbers) + 1)
        quotes.append(Quote(start, stop, box, number))
    return quotes


def text_as_html(text: str, quotes: Sequence[Quote]) -> str:
    """A text without tags as HTML, in which quoted boxes have their colours and numbers; the answer starts a line."""
    parts, end = list[str](), 0
    for quote in quotes:
        colour = f"--box: rgb{quote.colour}"
        name = f"<b>{quote.number}</b> " if quote.number else ""
        box = f'<span class="kvg-box" style="{colour}">{name}{escape(text[quote.start : quote.stop])}</span>'
        parts += [_prose(text[end : quote.start]), box]
        end = quote.stop
    return "".join([*parts, _prose(text[end:])])


def picture_with_boxes(picture: Image.Image, quotes: Sequence[Quote], answer: Box | None) -> Image.Image:
    """The picture in a size for the page, with the quoted boxes and, last, the answer.

    Args:
        picture: upright, RGB.
        quotes: whose boxes are in pixels of ``picture``.
        answer: in pixels of ``picture``; None if there is none yet.
    """
    factor = min(max(1.0, _SHORTEST / min(picture.size)), _LONGEST / max(picture.size))
    sized = picture.resize([max(1, round(side * factor)) for side in picture.size], Image.Resampling.LANCZOS)
    across, down = sized.width / picture.width, sized.height / picture.height
    goal = None if answer is None else _scaled(answer, across, down)
    around = []  # boxes that the answer repeats are drawn last, around it, so that both are seen
    for quote in {quote.number: quote for quote in quotes if quote.number}.values():
        box = _scaled(quote.box_px, across, down)
        if goal is not None and max(map(_distance, box, goal)) < _MARGIN:
            around.append((_enlarged(box), quote))
        else:
            draw_box(sized, box, quote.colour, str(quote.number))
    if goal is not None:
        draw_box(sized, goal)
    for box, quote in around:
        draw_box(sized, box, quote.colour, str(quote.number))
    return sized


def _prose(text: str) -> str:
    """Text between boxes: tags leave a break before the answer, and nothing elsewhere."""
    safe = escape(text)
    for tag in _TAGS:
        safe = safe.replace(escape(tag), '<br><span class="kvg-answer">Answer</span> ' if tag == _OPENING else "")
    return safe


def _scaled(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _enlarged(box: Box) -> Box:
    x1, y1, x2, y2 = box
    return min(x1, x2) - _MARGIN, min(y1, y2) - _MARGIN, max(x1, x2) + _MARGIN, max(y1, y2) + _MARGIN


def _distance(one: float, other: float) -> float:
    return abs(one - other)
