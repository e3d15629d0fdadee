"""References to objects in a rationale: placeholders of boxes (``<box:N>``), numbers of objects, and their relation.

A rationale numbers the objects when it describes them ("1 <box:0> red; 2 <box:1> blue"), and names them by number later
("object 2", "#2", "the second one"). The writer chooses the numbers, so the box of a number is read from the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Final

from kvg.text.box_codec import box_spans

PLACEHOLDER: Final = re.compile(r"<box:(\d+)>")
LAST: Final = 0  # number of "the last one" until ``looked_up`` resolves it

_WORDS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ORDINALS: Final = (
    "first", "second", "third", "fourth", "fifth", "sixth",
    "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth",
)  # fmt: skip
_LETTERS: Final = "ABCDEFGH"  # without I, which is a word

_SIGN = r"(?:#|№|\b(?:n(?:umbers?|umbered|um\.|os?\.|rs?\.)|labell?ed|marked))"
_NOUN = r"(?:bounding )?box(?:es)?|objects?|items?|candidates?|entity|entities|instances?|tiles?|regions?"
_OPENING = r"[\s*_\"'(\[{:=-]{0,4}"  # "object **2**", "object (2)", "object-2", "object: 2"
_VALUE = rf"(?:(?P<digits>\d{{1,2}})(?![\w]|[.,]\d)|(?P<word>{'|'.join(_WORDS)})\b|(?P<letter>(?-i:[{_LETTERS}]))\b)"
# "objects 2 and 3"
_MORE = r"(?P<more>(?:(?:\s*(?:,|&|/)\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+)#?\d{1,2}\b(?![.,]\d))*)"
_PLACE = rf"(?:{'|'.join(_ORDINALS)}|\d{{1,2}}(?:st|nd|rd|th)|last|final)"
_BARE = re.compile(
    r"(?:^|\(|\b(?:is|it's|be|answer|choose|pick|choice)|[:=])[\s*(\[]{0,6}(?P<digits>\d{1,2})[)\]*\s.!]{0,8}$",
    re.IGNORECASE,
)
_LIST_NUMBER = re.compile(r"(?:^|(?<=[\n;.,:*]))[\s*(]{0,6}(?P<digits>\d{1,2})(?:\*\*)?[.):](?!\d)")
_NUMBER_AND_BOX = re.compile(r"\b(\d{1,2})\b[^<>\d]{0,24}<box:(\d+)>")
_TOKENS_BEFORE = re.compile(r"(?:<\|object_ref_start\|>[^<]*<\|object_ref_end\|>\s*)?(?:<\|box_start\|>\s*)?$")
_TOKENS_AFTER = re.compile(r"(?:\s*<\|box_end\|>)?")
_JSON_OPENING = re.compile(r"(?:\[\s*)?\{\s*(?:\"label\"\s*:\s*\"[^\"{}]*\"\s*,\s*)?\"bbox(?:_2d)?\"\s*:\s*$")
_JSON_CLOSING = re.compile(r"\s*(?:,\s*\"label\"\s*:\s*\"[^\"{}]*\"\s*)?\}(?:\s*\])?")
_REACH = 200  # maximum length of the JSON text before a box


@dataclass(frozen=True)
class ObjectMention:
    """An object named by its number.

    Attributes:
        number: number in the text, from 1; ``LAST`` for "the last one".
        start: index of the first character of the mention.
        end: index after its last character.
    """

    number: int
    start: int
    end: int


def object_mentions(text: str, nouns: Sequence[str] = ()) -> list[ObjectMention]:
    """Finds the objects that a text names by number, in order.

    Args:
        text: text with placeholders instead of boxes.
        nouns: further nouns for the objects, such as their category: "bird 2", "the second bird".

    >>> [m.number for m in object_mentions("Object 1, objects 2 and 3, #4, object no. 5, the sixth one, box (7)")]
    [1, 2, 3, 4, 5, 6, 7]
    >>> object_mentions("<box:2> has 3 spots, a number of feathers, and no. 2.5 is no object")
    []
    """
    by_number, by_order = _patterns(tuple(nouns))
    mentions = []
    for match in by_number.finditer(text):
        if match["word"]:
            number = _WORDS.index(match["word"].lower()) + 1
        else:
            number = int(match["digits"]) if match["digits"] else _LETTERS.index(match["letter"]) + 1
        mentions.append(ObjectMention(number, match.start(), match.start("more")))
        for further in re.finditer(r"#?(\d+)", match["more"]):
            offset = match.start("more")
            mentions.append(ObjectMention(int(further[1]), offset + further.start(), offset + further.end()))
    for match in by_order.finditer(text):
        word = (match["ordinal"] or match["alone"]).lower()
        number = _ORDINALS.index(word) + 1 if word in _ORDINALS else int(re.sub(r"\D", "", word) or LAST)
        mentions.append(ObjectMention(number, match.start(), match.end()))
    return sorted(mentions, key=lambda mention: mention.start)


def nouns_of(category: str) -> tuple[str, ...]:
    """Returns the nouns for objects of a category beside "object", for ``object_mentions``.

    >>> nouns_of("bird"), nouns_of("")
    (('bird',), ())
    """
    name = " ".join(category.replace("_", " ").split())
    return (name,) if name else ()


def bare_number(sentence: str) -> ObjectMention | None:
    """Finds the number at the end of a sentence of a conclusion, without a noun: "It is 2", "(2)", "2".

    >>> bare_number(" The Hoopoe is (2)").number
    2
    """
    match = _BARE.search(sentence)
    return ObjectMention(int(match["digits"]), match.start("digits"), match.end("digits")) if match else None


def numbered_boxes(text: str, nouns: Sequence[str] = ()) -> dict[int, int]:
    """Returns the box of each number: the box beside the first use of the number.

    Args:
        text: text with placeholders instead of boxes.
        nouns: see ``object_mentions``.

    Returns:
        Index of the placeholder by number of the object.

    >>> numbered_boxes("1 <box:0> red; 2 <box:1> blue"), numbered_boxes("<box:0> (object 2) and <box:1> (object 1)")
    ({1: 0, 2: 1}, {2: 0, 1: 1})
    >>> numbered_boxes("1. An orange bird with a long crest at <box:0>. 2. A blue bird of the same size at <box:1>.")
    {1: 0, 2: 1}
    """
    boxes: dict[int, int] = {}
    labels = object_mentions(text, nouns)
    ends = {label.end for label in labels}
    labels += [
        ObjectMention(int(match["digits"]), match.start("digits"), match.end())
        for match in _LIST_NUMBER.finditer(text)
        if match.end("digits") not in ends
    ]
    labels.sort(key=lambda label: label.start)
    for label, following in zip_longest(labels, labels[1:]):
        box = adjacent_box(text, label)
        if box is None:
            first = PLACEHOLDER.search(text, label.end, following.start if following else len(text))
            box = int(first[1]) if first else None
        if box is not None and label.number != LAST:
            boxes.setdefault(label.number, box)
    for number, placeholder in _NUMBER_AND_BOX.findall(text):
        boxes.setdefault(int(number), int(placeholder))
    return boxes


def adjacent_box(text: str, mention: ObjectMention) -> int | None:
    """Returns the index of the placeholder directly after or before a mention, without a word between; else None."""
    after = re.compile(r"[\W_]{0,8}?(?:\bat\s+)?<box:(\d+)>").match(text, mention.end)
    if after:
        return int(after[1])
    before = re.search(r"<box:(\d+)>[\s:(*_-]{0,6}$", text[max(0, mention.start - 24) : mention.start])
    return int(before[1]) if before else None


def looked_up(mention: ObjectMention, boxes: dict[int, int]) -> int | None:
    """Returns the index of the placeholder of a mention; None if its number was never beside a box."""
    number = max(boxes, default=LAST) if mention.number == LAST else mention.number
    return boxes.get(number)


def with_placeholders(text: str, place: Callable[[str], int | None]) -> str:
    """Replaces each box in a text by ``<box:N>``, together with special tokens and JSON around it.

    Args:
        text: text of a model.
        place: returns N for the text of a box; None keeps the box.

    >>> with_placeholders('1 <|box_start|>(1,2),(3,4)<|box_end|> and {"bbox_2d": [5, 6, 7, 8]}.', lambda box: len(box))
    '1 <box:11> and <box:12>.'
    """
    parts, end = list[str](), 0
    for start, stop in box_spans(text):
        number = place(text[start:stop]) if start >= end else None
        if number is not None:
            start, stop = _decorated(text, (start, stop), end)
            parts += [text[end:start], f"<box:{number}>"]
            end = stop
    return "".join([*parts, text[end:]])


def _decorated(text: str, span: tuple[int, int], lowest: int) -> tuple[int, int]:
    """Returns the span of a box together with the tokens or the JSON around it."""
    start, stop = span
    before = text[max(lowest, start - _REACH) : start]
    opening, closing = _JSON_OPENING.search(before), _JSON_CLOSING.match(text, stop)
    if not (opening and closing):
        opening, closing = _TOKENS_BEFORE.search(before), _TOKENS_AFTER.match(text, stop)
    if opening:
        start -= len(before) - opening.start()
    return start, closing.end() if closing else stop


@lru_cache(maxsize=64)
def _patterns(nouns: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Compiles the patterns of mentions by number and by order, with further nouns for objects."""
    noun = "|".join([_NOUN, *(rf"{re.escape(name)}s?" for name in nouns if name.strip())])
    by_number = rf"(?<![<\w])(?:(?:{noun})(?:{_OPENING}(?:{_SIGN}|no\b))?|{_SIGN}){_OPENING}{_VALUE}{_MORE}"
    ends = r"(?=\s*(?:[.;,:)!?*]|$|<box:|of\b))"
    with_noun = rf"(?:\bthe\s+|(?<!\ba )(?<!\w))(?P<ordinal>{_PLACE})\s+(?:[\w-]+\s+)?(?:{noun}|one)\b"
    by_order = rf"{with_noun}|\bthe\s+(?P<alone>{_PLACE}){ends}"
    return re.compile(by_number, re.IGNORECASE), re.compile(by_order, re.IGNORECASE)
