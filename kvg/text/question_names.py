"""Extracts the entity from a published question."""

from __future__ import annotations

import re
from typing import Final

from kvg.text.names import clean_name
from kvg.text.prompts import DESCRIPTION, PROMPTS, REF_END, REF_START

_TAGGED = re.compile(re.escape(REF_START) + r"(.+?)" + re.escape(REF_END), re.DOTALL)
_PLAIN = re.compile(r"bounding box of:?\s+", re.IGNORECASE)
_BEFORE_NAME, _, _AFTER_NAME = DESCRIPTION.partition("{name}")  # our only prompt without marks around the name
_OUR_SUFFIXES: Final = tuple(
    template.removeprefix("{question}")
    for template in PROMPTS.values()
    if template.startswith("{question}") and template != "{question}"
)
_AROUND_NAME: Final = tuple(template.split("{name}") for template in PROMPTS.values() if "{name}" in template)
# Texts of other prompts after the name. Each ends the question: nothing after it belongs to the name.
_SUFFIXES: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"\s*\n.*",
        r"[.,;:]?\s+(?:please\s+)?output (?:the|its|your|only|a|an)\b.*",
        r"\. let's think step by step\b.*",
        r"[.;]\s+(?:please\s+)?(?:answer|respond|reply|return|provide|report|give|think|write|use|first)\s"
        r"(?:(?:the|your|its|in|with|as|only|me|a|an|about|step|by|output)\b).*",
    )
)
_PLACE = re.compile(r"\s+in (?:the|this) (?:image|picture|photo|photograph)\s*$", re.IGNORECASE)
_ABBREVIATION = re.compile(
    r"(?:^|[\s.])(?:[^\W\d_]\.)+[^\W\d_]$|(?:^|\s)(?:jr|sr|inc|ltd|co|corp|sp|spp|var|st)$", re.IGNORECASE
)
_INTERROGATIVE = re.compile(r"\b(?:what|where|which|can|could|would|will|do)\b", re.IGNORECASE)


def name_in_question(*texts: str) -> str:
    """Returns the entity of a question: between the reference tags, else after "bounding box of"; '' if there is none.

    In an untagged question known requests after the name are removed. The text after the first full stop is kept, since
    names may contain full stops. A final full stop is removed, unless it ends an abbreviation.

    Args:
        texts: a question, then other texts that may name the entity, such as its answer.

    >>> name_in_question("Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>")
    'Merlin'
    >>> name_in_question("Find and give the bounding box of Mt. Fuji  Output the thinking process in <think>")
    'Mt. Fuji'
    >>> name_in_question("Give the bounding box of the B.A.T."), name_in_question("... bounding box of Merlin.")
    ('the B.A.T.', 'Merlin')
    """
    for text in texts:
        if match := _TAGGED.search(text):
            return clean_name(match[1])
    for text in texts:
        if text.startswith(_BEFORE_NAME) and _AFTER_NAME in text:
            return clean_name(text[len(_BEFORE_NAME) : text.rindex(_AFTER_NAME)])
        for before, after in _AROUND_NAME:
            if before in text and after in text[text.index(before) :]:
                return clean_name(text[text.index(before) + len(before) : text.rindex(after)])
        if match := _PLAIN.search(text):
            return _without_suffixes(text[: match.start()], text[match.end() :])
    return ""


def _without_suffixes(before: str, text: str) -> str:
    for ours in _OUR_SUFFIXES:
        if text.endswith(ours):
            return clean_name(_PLACE.sub("", text.removesuffix(ours)))
    for suffix in _SUFFIXES:
        if (match := suffix.search(text)) and match.start():
            text = text[: match.start()]
    name = clean_name(text)
    if name.endswith("?") and _INTERROGATIVE.search(before):
        name = name[:-1].rstrip()
    if name.endswith(".") and not _ABBREVIATION.search(name[:-1]):
        name = name[:-1].rstrip()
    return clean_name(_PLACE.sub("", name))
