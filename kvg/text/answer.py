"""A parsed completion, with its parts and its box. Rewards, logs and figures read from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.completion import Parsed, parse_completion
from kvg.types import Box, Completion


@dataclass(frozen=True)
class Answer(Parsed):
    """A completion, its parts, and what its answer block says of the box.

    Attributes:
        completion: as it was generated.
        box_px: the last box of the answer block in pixels of the stored image; None where none can be read.
        box_form: how the box is written: 1 = two corners, 2 = a list of four numbers, 0 = no box.
        canonical: the answer block is one box and nothing else, spelt as the model's codec spells it.
    """

    completion: Completion = field(repr=False)
    box_px: Box | None
    box_form: int
    canonical: bool


def read_answer(completion: Completion, codec: BoxCodec, size: ImageSize) -> Answer:
    """Reads a completion; never raises.

    Args:
        completion: end-of-turn tokens allowed.
        codec: box convention of the model that wrote it.
        size: sizes of the image that it speaks of.

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
    )
