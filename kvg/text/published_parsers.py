"""The answer parsers of the published evaluations: DeepPerception's (version 2) and KARL's (version 3).

Both try an ordered list of patterns and use the last match of the first pattern that matches. Four numbers with a sum
below 4 are shares of the picture. Version 3 first extracts the answer block, then a JSON block, and has one more
pattern. These parsers differ from the strict one (``kvg.text.box_codec``). They make figures comparable with those of
the papers.

The published expressions allow gaps of any length between their parts. Backtracking over all gaps takes time in a high
power of the length, so an answer that is cut off within a list of boxes can block an evaluation. Here a pattern is a
sequence of marks on one line, each searched from the end of the one before. This finds the same matches: the shortest
gap leads to the first position of the next mark, and any match from a later position can also be found from there. Each
line is read only a few times.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from kvg.types import Box

Version = Literal[2, 3]
Numbers = tuple[str, ...]  # the four texts in the places of a pattern's numbers

_FENCE: Final = "```"
_UNIT_SUM: Final = 4  # four numbers with a smaller sum are shares of the picture
_UNIT: Final = 1000


@dataclass(frozen=True)
class _Mark:
    """A mark: the next expression to search on the line; its groups are numbers.

    With ``takes_gap`` the text between the mark before and this one also counts as a number, whatever it is.
    """

    pattern: re.Pattern[str]
    takes_gap: bool = False


def _mark(expression: str) -> _Mark:
    return _Mark(re.compile(expression))


def _up_to(text: str) -> _Mark:
    return _Mark(re.compile(re.escape(text)), takes_gap=True)


def _matches(marks: Sequence[_Mark], line: str) -> Iterator[Numbers]:
    """Yields all matches on a line, from left to right, without overlap."""
    place = 0
    while True:
        numbers: list[str] = []
        for mark in marks:
            match = mark.pattern.search(line, place)
            if match is None:
                return
            if mark.takes_gap:
                numbers.append(line[place : match.start()])
            numbers.extend(match.groups())
            place = match.end()
        yield tuple(numbers)


def _last_on_a_line(marks: Sequence[_Mark], text: str) -> Numbers | None:
    for line in reversed(text.split("\n")):
        match = deque(_matches(marks, line), maxlen=1)
        if match:
            return match[0]
    return None


def _last_two_pairs(text: str) -> Numbers | None:
    """Matches the eighth pattern: two pairs on one line, or on two lines if the first line ends with its pair."""
    last, before = None, None
    for pair in _PAIR.finditer(text):
        if before is None or "\n" in text[before.end() : pair.start()].removeprefix("\n"):
            before = pair
        else:
            last, before = before.groups() + pair.groups(), None
    return last


# As published, `\d` is any decimal digit of Unicode, and a number may have no digit.
_PAIR = re.compile(r"\((\d*), (\d*)\)")
_OPENING = _mark(r"\((\d*),")
_CLOSING = r"(?<!\d)(\d*)\),\((\d*),(\d*)\)"  # the first number takes in all digits before the parenthesis
_ANY_PAIR = (_mark(r"\("), _up_to(","), _up_to(")"))
_BLOCK = (_mark("<answer>"), _up_to("</answer>"))

PATTERNS: Final[tuple[Callable[[str], Numbers | None], ...]] = (
    partial(_last_on_a_line, (_mark("<answer>"), _OPENING, _mark(_CLOSING + "</answer>"))),
    partial(_last_on_a_line, (_mark("So the answer is"), _OPENING, _mark(_CLOSING))),
    partial(_last_on_a_line, (_OPENING, _mark(_CLOSING))),
    partial(_last_on_a_line, _ANY_PAIR * 2),
    partial(_last_on_a_line, (_mark(r"\[(\d*), (\d*), (\d*), (\d*)\]"),)),
    partial(_last_on_a_line, (_mark(r"\["), _up_to(", "), _up_to(", "), _up_to(", "), _up_to("]"))),
    partial(_last_on_a_line, (_mark(r"\((\d*), (\d*), (\d*), (\d*)\)"),)),
    _last_two_pairs,
    partial(_last_on_a_line, (_mark(r"\[\[(\d*),(\d*),(\d*),(\d*)\]\]"),)),
)
_NUM_PATTERNS: Final[dict[Version, int]] = {2: 8, 3: 9}


def read_published(text: str, version: Version) -> tuple[Box, int]:
    """Reads a box like the published evaluation.

    It follows the evaluation code published with the paper's versions 2 and 3. Numbers are not clamped, corners are not
    sorted, and pixels are read as if they were on the grid. If a pattern matches but its texts are not numbers, the box
    is zeros, and the pattern still counts.

    Args:
        text: an answer, with or without its tags.
        version: 2 for DeepPerception, 3 for KARL.

    Returns:
        The box, read on the 0-1000 grid, and the 1-based number of the matching pattern; zeros and 0 if none matches.

    Raises:
        ValueError: the version does not exist.

    >>> read_published("<think>(1,2),(3,4)</think><answer>(10,20),(30,40)</answer>", 2)
    ((10.0, 20.0, 30.0, 40.0), 1)
    >>> read_published("[0.1, 0.25, 0.5, 1.0]", 3)
    ((100.0, 250.0, 500.0, 1000.0), 6)
    >>> read_published("[10,20,30,40]", 2)
    ((0.0, 0.0, 0.0, 0.0), 0)
    """
    if version not in _NUM_PATTERNS:
        raise ValueError(f"version {version!r} is none of {', '.join(map(str, _NUM_PATTERNS))}")
    if version == 3:
        text = _json_block(_answer_block(text))
    for number, pattern in enumerate(PATTERNS[: _NUM_PATTERNS[version]], 1):
        match = pattern(text)
        if match is not None:
            return _box(match), number
    return (0.0, 0.0, 0.0, 0.0), 0


def _answer_block(text: str) -> str:
    """Returns the content of the first answer block on one line; the whole text if there is none."""
    for line in text.split("\n"):
        for (inside,) in _matches(_BLOCK, line):
            return inside
    return text


def _json_block(text: str) -> str:
    """Returns the content of the first fenced JSON block, over any number of lines; the whole text if there is none."""
    _, opened, rest = text.partition(f"{_FENCE}json")
    inside, closed, _ = rest.partition(_FENCE)
    return inside if opened and closed else text


def _box(numbers: Numbers) -> Box:
    first, *others = numbers
    try:
        # The published clean-up applies only to the first number: "[x12, 5, 80, 90]" is a box, "(x12, y5)" is not.
        x1, y1, x2, y2 = (float(number) for number in (first.replace("[", "").replace("x", ""), *others))
    except ValueError:
        return 0.0, 0.0, 0.0, 0.0
    unit = _UNIT if sum((x1, y1, x2, y2)) < _UNIT_SUM else 1
    return x1 * unit, y1 * unit, x2 * unit, y2 * unit
