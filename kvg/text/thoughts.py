"""The parts of a rationale in the form of the lab's cards: the traits of the plan, and what is said of each box."""

from __future__ import annotations

import re
from typing import Final

PLAN: Final = re.compile(r"(?P<head>Plan: the .+? is )(?P<traits>[^.]+)\.")
LOOK, COMPARE, CONCLUSION = " Look: ", " Compare: ", " Conclusion: "


def plan_traits(rationale: str) -> tuple[str, ...]:
    """Returns the traits that a plan names; empty without a plan.

    >>> plan_traits("Plan: the Hoopoe is orange, black stripes, crest, medium. Look: 1 ...")
    ('orange', 'black stripes', 'crest', 'medium')
    """
    match = PLAN.search(rationale)
    return tuple(match["traits"].split(", ")) if match else ()


def looked_at(rationale: str) -> tuple[int, int]:
    """Returns start and end of the visual analysis; of an empty span without one.

    >>> text = "Plan: a. Look: 1 red. Compare: 1 yes."
    >>> text[slice(*looked_at(text))]
    '1 red.'
    """
    start = rationale.find(LOOK)
    if start < 0:
        return 0, 0
    end = rationale.find(COMPARE, start)
    return start + len(LOOK), len(rationale) if end < 0 else end


def described(text: str, end: int) -> tuple[str, ...]:
    """Returns the traits behind a box, up to the end of the clause.

    Args:
        text: text with the box.
        end: index behind it.

    >>> described("1 (1,2),(3,4)<|box_end|> red, plain, fins; 2 ...", 13)
    ('red', 'plain', 'fins')
    """
    words = re.split(r"[;.]", text[end:], maxsplit=1)[0].removeprefix("<|box_end|>").strip()
    return tuple(words.split(", ")) if words else ()
