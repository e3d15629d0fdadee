"""Parses answers to multiple-choice questions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kvg.text.prompts import LETTERS

_ENDINGS = ("<|im_end|>", "<|endoftext|>")
# "Answer: B", "The answer is (B)", "Option B"; the letter must not be the start of a word or sentence.
_LEAD = r"(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*"
_MARKS = r"[\s*_`\"']*"
_LETTER = re.compile(rf"{_MARKS}(?:{_LEAD})?{_MARKS}(\(?)([A-Z])(\)?){_MARKS}(?:[.:,;)]|\Z|\n)", re.IGNORECASE)


def parse_choice(text: str, options: Sequence[str]) -> int | None:
    """Returns the index of the option that an answer names; None if it names none.

    A letter at the start counts: alone, in brackets, before a dot, or after "Answer:". The exact name of an option also
    counts.

    >>> names = ("Wren", "Red Kite", "A Merlin")
    >>> [parse_choice(text, names) for text in ("B", "(c)", "Answer: A.", "B. Red Kite", "red kite", "D", "A bird")]
    [1, 2, 0, 1, 1, None, None]
    """
    for ending in _ENDINGS:
        text = text.replace(ending, "")
    plain = text.strip().strip("*_`\"'.").strip().casefold()
    for number, name in enumerate(options):
        if plain in (name.casefold(), f"{LETTERS[number]} {name}".casefold()):
            return number
    match = _LETTER.match(text)
    if match is None or (match[1] and not match[3]):
        return None
    number = LETTERS.index(match[2].upper())
    return number if number < len(options) else None
