"""What the model says: a rationale in think tags, then a box in answer tags. Writing it, and reading it strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_END = re.compile(r"(?:\s|<\|im_end\|>|<\|endoftext\|>)+\Z")
_WHOLE = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\Z", re.DOTALL)
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


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
    text = _END.sub("", text)
    whole = _WHOLE.match(text)
    once = all(text.count(tag) == 1 for tag in _TAGS)
    well_formed = bool(whole and once and whole[1].strip() and whole[2].strip())
    think, answer = _THINK.search(text), _ANSWER.search(text)
    untagged = "" if any(tag in text for tag in _TAGS) else text.strip()
    return Parsed(
        rationale=think[1].strip() if think else "",
        answer=answer[1].strip() if answer else untagged,
        well_formed=well_formed,
        tagged=answer is not None,
    )
