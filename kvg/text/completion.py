"""Writes and strictly parses completions: a rationale in think tags, then a box in answer tags."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_ENDINGS = ("<|im_end|>", "<|endoftext|>", "<end_of_utterance>")
_WHOLE = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\Z", re.DOTALL)


@dataclass(frozen=True)
class Parsed:
    """The parts of a completion.

    Attributes:
        rationale: text of the first think block; '' if there is none.
        answer: text of the first answer block. Without any of the four tags it is the whole completion (for the
            ``direct`` prompt); with tags but no closed answer block it is ''.
        well_formed: whether the completion is exactly ``<think>..</think><answer>..</answer>``: each tag once, only
            white space around them, and no empty block.
        tagged: whether ``answer`` comes from a closed answer block.
    """

    rationale: str
    answer: str
    well_formed: bool
    tagged: bool


def write_completion(rationale: str, answer: str) -> str:
    """Returns the completion that stage 1 trains on.

    >>> write_completion("Plan: look.", "(1,2),(3,4)")
    '<think>Plan: look.</think><answer>(1,2),(3,4)</answer>'
    """
    return f"<think>{rationale}</think><answer>{answer}</answer>"


def answer_first(rationale: str, answer: str) -> str:
    """Returns a completion whose answer cannot follow from its rationale, which comes after it.

    >>> answer_first("Plan: look.", "(1,2),(3,4)")
    '<answer>(1,2),(3,4)</answer><think>Plan: look.</think>'
    """
    return f"<answer>{answer}</answer><think>{rationale}</think>"


def parse_completion(text: str) -> Parsed:
    """Parses a completion; never raises an error.

    Args:
        text: text of a completion, with or without end-of-turn tokens.

    >>> parse_completion("<think>two birds</think> <answer>(1,2),(3,4)</answer><|im_end|>")
    Parsed(rationale='two birds', answer='(1,2),(3,4)', well_formed=True, tagged=True)
    >>> parse_completion("<think>two birds</think> <answer>(1,2),(3,")
    Parsed(rationale='two birds', answer='', well_formed=False, tagged=False)
    >>> parse_completion("(1,2),(3,4)")
    Parsed(rationale='', answer='(1,2),(3,4)', well_formed=False, tagged=False)
    """
    text = _without_ending(text)
    counts = [text.count(tag) for tag in _TAGS]
    whole = _WHOLE.match(text) if counts == [1, 1, 1, 1] else None
    answer = _between(text, "<answer>", "</answer>")
    untagged = "" if any(counts) else text.strip()
    return Parsed(
        rationale=(_between(text, "<think>", "</think>") or "").strip(),
        answer=untagged if answer is None else answer.strip(),
        well_formed=bool(whole and whole[1].strip() and whole[2].strip()),
        tagged=answer is not None,
    )


def _between(text: str, opening: str, closing: str) -> str | None:
    """Returns the text of the first block; None if it is not closed.

    It does not use a lazy pattern, which takes quadratic time if a policy only repeats a tag.
    """
    start = text.find(opening)
    end = text.find(closing, start + len(opening)) if start >= 0 else -1
    return text[start + len(opening) : end] if end >= 0 else None


def _without_ending(text: str) -> str:
    text = text.rstrip()
    while text.endswith(_ENDINGS):
        for ending in _ENDINGS:
            text = text.removesuffix(ending).rstrip()
    return text
