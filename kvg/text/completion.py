"""Completions: a rationale in think tags, then a box in answer tags. Writes them, and parses them strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_ENDINGS = ("<|im_end|>", "<|endoftext|>")
_WHOLE = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\Z", re.DOTALL)


@dataclass(frozen=True)
class Parsed:
    """A completion taken apart.

    Attributes:
        rationale: text of the first think block, '' without one.
        answer: text of the first answer block. A completion without any of the four tags is all answer (the ``direct``
            prompt); tags without a closed answer block leave ''.
        well_formed: exactly ``<think>..</think><answer>..</answer>``, each tag once, nothing but white space around
            them, neither block empty.
        tagged: ``answer`` comes from a closed answer block.
    """

    rationale: str
    answer: str
    well_formed: bool
    tagged: bool


def write_completion(rationale: str, answer: str) -> str:
    """The completion that stage 1 teaches.

    >>> write_completion("Plan: look.", "(1,2),(3,4)")
    '<think>Plan: look.</think><answer>(1,2),(3,4)</answer>'
    """
    return f"<think>{rationale}</think><answer>{answer}</answer>"


def parse_completion(text: str) -> Parsed:
    """Takes a completion apart; never raises.

    Args:
        text: what was generated, end-of-turn tokens allowed.

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
    """Text of the first block. Not a lazy pattern: that takes quadratic time on a policy that only repeats a tag."""
    start = text.find(opening)
    end = text.find(closing, start + len(opening)) if start >= 0 else -1
    return text[start + len(opening) : end] if end >= 0 else None


def _without_ending(text: str) -> str:
    text = text.rstrip()
    while text.endswith(_ENDINGS):
        for ending in _ENDINGS:
            text = text.removesuffix(ending).rstrip()
    return text
