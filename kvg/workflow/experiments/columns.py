"""One character for each case: what an answer was, and which case it answers. Strings of them are small and exact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kvg.benchmark import CATEGORIES
from kvg.evaluation.diagnostics.intervention import intervention_of
from kvg.evaluation.diagnostics.pointing import answered_object
from kvg.evaluation.diagnostics.reasoning import reasoning
from kvg.evaluation.diagnostics.recall import recall
from kvg.evaluation.records.corruptions import KINDS
from kvg.evaluation.records.prediction import Prediction

NONE: Final = "-"  # has no value, or cannot be judged
_CODES: Final = {"seen": "s", "unseen": "u", "known": "k", "unknown": "u", "novel": "n"}
_DIGITS: Final = "0123456789"
Column = Callable[[Prediction], str]


def answer_columns(cases: Sequence[Prediction]) -> dict[str, str]:
    """Returns what the answers were, one string ``[N]`` each; without those that have no value in any case.

    ``right`` is the verdict. ``object`` is the index of the answered object. ``traits`` and ``other_traits`` are the
    numbers of traits in the plan that the entity has, and that the next object on the picture has. ``recalled`` says
    whether all of them are right, ``kept`` whether the answer is the concluded box. ``applied``, ``moved`` and
    ``to_other`` are those of ``kvg.evaluation.diagnostics.intervention``.

    Args:
        cases: the predictions, in the order of the file.
    """
    made = {name: "".join(column(case) for case in cases) for name, column in _ANSWERS.items()}
    return {name: text for name, text in made.items() if set(text) != {NONE}}


def case_columns(cases: Sequence[Prediction]) -> dict[str, Any]:
    """Returns which cases were answered: a digest of their identifiers, and one string ``[N]`` for each grouping.

    ``lookalikes`` counts the other objects that differ from the target in one trait.
    """
    names = json.dumps([[case.key, case.artifact, case.strength, case.image, case.targets] for case in cases])
    pictures = {key: number for number, key in enumerate(dict.fromkeys(case.key for case in cases))}
    made: dict[str, Any] = {name: "".join(column(case) for case in cases) for name, column in _CASES.items()}
    kept = {name: text for name, text in made.items() if set(text) != {NONE}}
    shared = len(pictures) < len(cases)
    return {
        "digest": hashlib.sha256(names.encode()).hexdigest()[:16],
        "num": len(cases),
        "columns": kept,
        **({"pictures": [pictures[case.key] for case in cases]} if shared else {}),
    }


def members(group: str, columns: Mapping[str, str], num: int) -> list[int]:
    """Returns the indices of the cases of a group.

    Args:
        group: ``all``, or words joined by commas: a split, a knowledge level, a category, or ``COLUMN=CHARACTER``.
        columns: result of ``case_columns``.
        num: number of cases.

    Raises:
        ValueError: a word is unknown, or the cases have no such column.

    >>> members("unseen, known", {"split": "suus", "knowledge": "kkuu"}, 4)
    [1]
    """
    chosen = list(range(num))
    for word in [] if group == "all" else [part.strip() for part in group.split(",")]:
        name, _, code = word.partition("=")
        if not code:
            name, code = _column_of(word)
        if name not in columns:
            raise ValueError(f"'{word}' of the group '{group}' is not known of these cases")
        chosen = [n for n in chosen if columns[name][n] == code]
    return chosen


def _column_of(word: str) -> tuple[str, str]:
    if word in CATEGORIES:
        return "category", _DIGITS[CATEGORIES.index(word)]
    if word in ("seen", "unseen"):
        return "split", _CODES[word]
    if word in _CODES:
        return "knowledge", _CODES[word]
    raise ValueError(f"'{word}' is no group; write a split, a knowledge level, a category, or COLUMN=CHARACTER")


def _digit(number: int | None) -> str:
    return NONE if number is None or number >= len(_DIGITS) else _DIGITS[number]


def _flag(value: bool | None) -> str:
    return NONE if value is None else _DIGITS[value]


def _plan_traits(case: Prediction, step: int) -> str:
    plan = recall(case)
    if plan is None:
        return NONE
    card = case.objects[(case.target + step) % len(case.objects)].note
    return _digit(sum(a == b for a, b in zip(plan.answered.split(", "), card.split(", "), strict=False)))


def _recalled(case: Prediction) -> str:
    plan = recall(case)
    return NONE if plan is None else _flag(plan.right)


def _kept(case: Prediction) -> str:
    read = reasoning(case)
    return NONE if read is None else _flag(read.kept)


def _changed(name: str) -> Column:
    def column(case: Prediction) -> str:
        made = intervention_of(case)
        return NONE if made is None else _flag(getattr(made, name))

    return column


def _lookalikes(case: Prediction) -> str:
    notes = [item.note.split(", ") for item in case.objects]
    if not case.objects or not all(item.note for item in case.objects):
        return NONE
    wanted = notes[case.target]
    return _digit(sum(sum(a != b for a, b in zip(wanted, own, strict=False)) == 1 for own in notes))


_ANSWERS: Final[Mapping[str, Column]] = {
    "right": lambda case: _flag(case.correct),
    "object": lambda case: _digit(answered_object(case)),
    "recalled": _recalled,
    "traits": lambda case: _plan_traits(case, 0),
    "other_traits": lambda case: _plan_traits(case, 1) if len(case.objects) > 1 else NONE,
    "kept": _kept,
    "applied": _changed("applied"),
    "moved": _changed("moved"),
    "to_other": _changed("to_other"),
}
_CASES: Final[Mapping[str, Column]] = {
    "split": lambda case: _CODES.get(case.split, NONE),
    "knowledge": lambda case: _CODES.get(case.knowledge, NONE),
    "category": lambda case: _DIGITS[CATEGORIES.index(case.category)] if case.category in CATEGORIES else NONE,
    "objects": lambda case: _digit(len(case.objects)),
    "lookalikes": _lookalikes,
    "artifact": lambda case: _digit(list(KINDS).index(case.artifact)) if case.artifact else NONE,
    "strength": lambda case: _digit(case.strength) if case.artifact else NONE,
}
