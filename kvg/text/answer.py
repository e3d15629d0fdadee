"""A parsed completion with its parts and its box; rewards, logs and figures use it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvg.text.box_codec import BoxCodec, ImageSize, box_spans
from kvg.text.completion import Parsed, parse_completion
from kvg.types import Box, Completion


@dataclass(frozen=True)
class Answer(Parsed):
    """A completion, its parts, and the box of its answer block.

    Attributes:
        completion: the completion.
        box_px: the last box of the answer block in pixels of the stored image; None if there is none.
        box_form: form of the box: 1 = two corners, 2 = a list of four numbers, 0 = no box.
        canonical: whether the answer block is exactly one box in the form that the model's codec writes.
        codec: box codec of the model that wrote it.
        size: sizes of its image.
    """

    completion: Completion = field(repr=False)
    box_px: Box | None
    box_form: int
    canonical: bool
    codec: BoxCodec | None = field(default=None, repr=False, compare=False)
    size: ImageSize | None = field(default=None, repr=False, compare=False)

    def quoted(self) -> list[tuple[int, int, Box | None]]:
        """Returns start and end in the rationale, and the box in pixels of the stored image, of each quoted box."""
        if self.codec is None or self.size is None:
            return []
        spans = box_spans(self.rationale)
        return [(start, end, self.codec.decode(self.rationale[start:end], self.size)) for start, end in spans]


def read_answer(completion: Completion, codec: BoxCodec, size: ImageSize) -> Answer:
    """Parses a completion; never raises an error.

    Args:
        completion: a completion, with or without end-of-turn tokens.
        codec: box codec of the model that wrote it.
        size: sizes of its image.

    >>> from kvg.text.box_codec import RelativeCodec
    >>> completion = Completion("<think>left</think><answer>(0,0),(500,1000)</answer>", 30, "stop")
    >>> answer = read_answer(completion, RelativeCodec(), ImageSize(200, 100, 224, 112))
    >>> answer.rationale, answer.box_px, answer.well_formed, answer.canonical
    ('left', (0.0, 0.0, 100.0, 100.0), True, True)
    """
    parsed = parse_completion(completion.text)
    box, form = codec.find(parsed.answer, size) or (None, 0)
    return Answer(
        **vars(parsed),
        completion=completion,
        box_px=box,
        box_form=form,
        canonical=parsed.tagged and codec.is_canonical(parsed.answer),
        codec=codec,
        size=size,
    )
