"""Finds the box that the conclusion of a rationale points at, from boxes, names and numbers of objects.

A conclusion points at the box or number nearest to the entity's name, or else at the last one. A number stands for the
box that was beside it before ("1 <box:0> ...; object 1"). Negated objects ("not object 2") do not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvg.text.box_refs import (
    PLACEHOLDER,
    ObjectMention,
    adjacent_box,
    bare_number,
    looked_up,
    numbered_boxes,
    object_mentions,
)

NAME: Final = "<name>"
_NEAR: Final = 200  # maximum number of characters between a name and its box
_CLAUSE = re.compile(r",|\b(?:and|but|while|whereas)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?!(?:(?<=\bno)|(?<=\bnr))\.\s*\d)[.!?;](?=\s|$)|\n", re.IGNORECASE)  # not "no. 2"
_DENIAL = re.compile(
    r"\b(?:not|never|neither|nor|cannot|unlike|rather than|instead of|differs? from|(?:is|are|was|does|do|can)n['’]t)\b"
    r"|\bno\W*$",  # "is no NAME", but "has no spots"
    re.IGNORECASE,
)
_BACK_TO = re.compile(r"[,:]|<box:\d+>|\bbut\b", re.IGNORECASE)


@dataclass(frozen=True)
class Pointed:
    """The result of reading a conclusion.

    Attributes:
        box: index of the placeholder that it points at; None if unknown.
        unknown: a number in it that was never beside a box; None if there is none.
        contradicted: a number beside another box than before; None if there is none.
    """

    box: int | None
    unknown: int | None = None
    contradicted: int | None = None


def with_name(text: str, entity: str) -> str:
    """Replaces the entity's name by ``NAME``, because dots in it would end sentences."""
    if not entity:
        return text
    return re.sub(rf"(?<!\w){re.escape(entity)}(?!\w)", NAME, text, flags=re.IGNORECASE)


def pointed_at(before: str, conclusion: str, nouns: Sequence[str] = ()) -> Pointed:
    """Reads a conclusion.

    Args:
        before: the rationale before it, with placeholders instead of boxes.
        conclusion: text with placeholders, and ``NAME`` instead of the entity's name.
        nouns: further nouns for the objects, such as their category.

    >>> pointed_at("1 <box:0> red; 2 <box:1> blue.", "the <name> is not object 1 but #2.").box
    1
    """
    boxes = numbered_boxes(before, nouns)
    contradicted = next((n for n, box in _beside_boxes(conclusion, nouns) if boxes.get(n, box) != box), None)
    box = box_beside_name(conclusion)
    if box is None:
        box = _numbered_beside_name(conclusion, boxes, nouns)
    if box is not None:
        return Pointed(box, contradicted=contradicted)
    unknown = None
    for sentence in reversed(_SENTENCE_END.split(conclusion)):
        quoted = [match for match in PLACEHOLDER.finditer(sentence) if not _is_denied(sentence, match.start())]
        if quoted:
            return Pointed(int(quoted[-1][1]), contradicted=contradicted)
        mentions = _accepted(sentence, nouns)
        if mentions:
            box = looked_up(mentions[-1], boxes)
            if box is not None:
                return Pointed(box, contradicted=contradicted)
            unknown = mentions[-1].number if unknown is None else unknown
    return Pointed(None, unknown, contradicted)


def box_beside_name(text: str) -> int | None:
    """Returns the index of the box nearest to the entity's name, in the last sentence with both; None without one.

    Args:
        text: text with placeholders, and ``NAME`` instead of the name.
    """
    for sentence in reversed(_SENTENCE_END.split(text)):
        boxes = [(match.start(), match.end(), int(match[1])) for match in PLACEHOLDER.finditer(sentence)]
        if (nearest := _nearest_to_name(sentence, boxes)) is not None:
            return nearest
    return None


def _numbered_beside_name(conclusion: str, boxes: dict[int, int], nouns: Sequence[str]) -> int | None:
    """Like ``box_beside_name``, for boxes that are named by number."""
    for sentence in reversed(_SENTENCE_END.split(conclusion)):
        mentions = [
            (m.start, m.end, box) for m in _accepted(sentence, nouns) if (box := looked_up(m, boxes)) is not None
        ]
        if (nearest := _nearest_to_name(sentence, mentions)) is not None:
            return nearest
    return None


def _nearest_to_name(sentence: str, places: Sequence[tuple[int, int, int]]) -> int | None:
    near = []
    for name in re.finditer(NAME, sentence) if places else ():
        for start, end, box in places:
            first, last = min(end, name.end()), max(start, name.start())
            if last - first > _NEAR:
                continue
            between = sentence[first:last]
            if not _DENIAL.search(between.rpartition(" but ")[2]):
                near.append((_CLAUSE.search(between) is not None, len(between), box))
    return min(near)[-1] if near else None  # a box in the same clause precedes a nearer one in another


def _accepted(sentence: str, nouns: Sequence[str]) -> list[ObjectMention]:
    """Returns the objects that a sentence names by number and does not negate."""
    mentions = object_mentions(sentence, nouns)
    if not mentions and (bare := bare_number(sentence)):
        mentions = [bare]
    return [mention for mention in mentions if not _is_denied(sentence, mention.start)]


def _beside_boxes(text: str, nouns: Sequence[str]) -> list[tuple[int, int]]:
    """Returns numbers of objects with the boxes directly beside them."""
    pairs = [(mention.number, adjacent_box(text, mention)) for mention in object_mentions(text, nouns)]
    return [(number, box) for number, box in pairs if box is not None]


def _is_denied(sentence: str, start: int) -> bool:
    """Returns whether the text before ``start``, back to the last comma, box or "but", negates what begins there."""
    return _DENIAL.search(_BACK_TO.split(sentence[max(0, start - 2 * _NEAR) : start])[-1]) is not None
