"""Changes of a model's own rationale, and how its answers follow them.

A model has answered a test set. For each case one part of its rationale is changed, or what follows is cut off; the
result is the given start of a new answer, which the model continues. An answer that follows from the rationale moves
with it: to the object that the change points at.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from kvg.errors import ConfigError, DataError
from kvg.evaluation.diagnostics.pointing import answered_object, object_at
from kvg.evaluation.records.forced_starts import ForcedStart, ForcedStarts
from kvg.evaluation.records.prediction import Prediction, read_predictions
from kvg.evaluation.records.scoring import IOU_GATE, PARSERS, STRICT, best_iou
from kvg.records import excerpt
from kvg.text.box_codec import box_spans
from kvg.text.completion import parse_completion
from kvg.text.thoughts import COMPARE, CONCLUSION, LOOK, PLAN
from kvg.types import Box, traits_of

CLOSE: Final = "</think><answer>"
_PARTS: Final = (LOOK, COMPARE, CONCLUSION)
Start = tuple[str, int | None]  # start of the answer after <think>, and index of the object that it points at


class Moves(TypedDict):
    """How answers have moved, as numbers of cases.

    ``left_out`` are cases to which the change cannot be applied. Of the ``n`` others, ``moved`` have another box than
    before: ``to_other`` at the object that the change points at, ``elsewhere`` at a third object, ``nowhere`` at none.
    """

    kind: str
    n: int
    left_out: int
    moved: int
    to_other: int
    elsewhere: int
    nowhere: int
    right_before: int
    right_after: int


@dataclass(frozen=True)
class Changed:
    """The outcome of a change in one case.

    Attributes:
        applied: whether the rationale could be changed.
        moved: whether the box is another one than before; None if it was not applied.
        to_other: whether the answer is the object that the change points at; None without one.
    """

    applied: bool
    moved: bool | None
    to_other: bool | None


def forced_starts(kind: str, run: str, seed: int = 0) -> ForcedStarts:
    """Makes the starts of a run's answers.

    Args:
        kind: a key of ``KINDS``.
        run: folder or file of the predictions whose rationales are changed.
        seed: decides which object a change points at.

    Raises:
        ConfigError: the kind is unknown.
        DataError: the predictions cannot be read, or no rationale can be changed.
    """
    if kind not in KINDS:
        raise ConfigError("data.intervene", f"'{kind}' is none of {', '.join(KINDS)}")
    cases = read_predictions(run)
    starts = {}
    for case in cases:
        text, other = KINDS[kind](case, random.Random(f"{seed}/{case.id}"))
        starts[case.key, case.artifact, case.strength] = ForcedStart(text and f"<think>{text}", other, case.box)
    if not any(start.text for start in starts.values()):
        raise DataError(run, "answer", f"no rationale has the parts that {kind} changes; give a run of mode think")
    answers = json.dumps([seed, [[case.id, case.answer] for case in cases]])
    return ForcedStarts(kind, hashlib.sha256(answers.encode()).hexdigest()[:16], starts)


def intervention_of(case: Prediction) -> Changed | None:
    """Returns the outcome in a case; None if it was not changed in its run.

    Raises:
        DataError: the field ``intervention`` is not one that ``kvg predict`` writes.
    """
    made = case.raw.get("intervention")
    if made is None:
        return None
    try:
        applied, other, before = bool(made["start"]), made["other"], made["before"]
        old: Box | None = None if before is None else (before[0], before[1], before[2], before[3])
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(case.id, "intervention", f"{excerpt(made)} is damaged; run kvg predict again") from error
    if not applied:
        return Changed(False, None, None)
    same = old is None if case.box is None else old is not None and best_iou(case.box, [old]) >= IOU_GATE
    return Changed(True, not same, None if other is None else answered_object(case) == other)


def moves(cases: Sequence[Prediction]) -> Moves | None:
    """Counts how answers have moved; None if no case was changed."""
    pairs = [(case, made) for case in cases if (made := intervention_of(case))]
    if not pairs:
        return None
    applied = [(case, made) for case, made in pairs if made.applied]
    moved = [(case, made) for case, made in applied if made.moved]
    places = [(bool(made.to_other), answered_object(case)) for case, made in moved]
    return Moves(
        kind=pairs[0][0].raw["intervention"]["kind"],
        n=len(applied),
        left_out=len(pairs) - len(applied),
        moved=len(moved),
        to_other=sum(other for other, _ in places),
        elsewhere=sum(not other and place is not None for other, place in places),
        nowhere=sum(not other and place is None for other, place in places),
        right_before=sum(_right_before(case) for case, _ in applied),
        right_after=sum(case.correct for case, _ in applied),
    )


def in_one_line(made: Moves) -> str:
    """Returns the counts in words."""
    n = max(1, made["n"])
    places = (
        (made["to_other"], "to the object of the change"),
        (made["elsewhere"], "to a third one"),
        (made["nowhere"], "to none"),
    )
    parts = [f"{number / n:.1%} {words}" for number, words in places]
    right = f"right before {made['right_before'] / n:.1%}, after {made['right_after'] / n:.1%}"
    left_out = f"; {made['left_out']} rationales could not be changed" if made["left_out"] else ""
    return (
        f"{made['kind']}: {made['moved'] / n:.1%} of {made['n']} answers moved ({', '.join(parts)}); {right}{left_out}"
    )


def _right_before(case: Prediction) -> bool:
    before = case.raw["intervention"]["before"]
    return before is not None and best_iou((before[0], before[1], before[2], before[3]), case.targets) >= IOU_GATE


def _thought(case: Prediction) -> str:
    return parse_completion(case.answer).rationale


def _others(case: Prediction) -> list[int]:
    """Returns the objects that were not answered; if none was, those that are not the target."""
    answered = answered_object(case)
    kept = case.target if answered is None else answered
    return [n for n in range(len(case.objects)) if n != kept]


def _with_plan(case: Prediction, traits: Sequence[str]) -> str:
    """Returns the plan of a case with other traits; '' without a plan."""
    plan = PLAN.match(_thought(case))
    return f"{plan['head']}{', '.join(traits)}." if plan and traits else ""


def _other_card(case: Prediction, rng: random.Random) -> Start:
    others = _others(case)
    if not others:
        return "", None
    other = rng.choice(others)
    return _with_plan(case, traits_of(case.objects[other].note)), other


def _one_trait(case: Prediction, rng: random.Random) -> Start:
    plan = PLAN.match(_thought(case))
    own = traits_of(plan["traits"]) if plan else ()
    differing: list[tuple[int, float, int, list[int]]] = []  # number of slots, a random order, object, slots
    for other in _others(case):
        traits = traits_of(case.objects[other].note)
        slots = [n for n, (a, b) in enumerate(zip(own, traits, strict=False)) if a != b]
        if slots and len(own) == len(traits):
            differing.append((len(slots), rng.random(), other, slots))
    if not differing:
        return "", None
    _, _, other, slots = min(differing)
    slot = rng.choice(slots)
    changed = [*own[:slot], traits_of(case.objects[other].note)[slot], *own[slot + 1 :]]
    return _with_plan(case, changed), other


def _other_box(case: Prediction, rng: random.Random) -> Start:
    """The verdict of the comparison is "yes" at another box that the rationale has quoted."""
    text = _thought(case)
    look, mark, compare = text.partition(_PARTS[1])
    first = box_spans(compare)[:1]
    if not mark or not first:
        return "", None
    answered, quoted = _others(case), dict[int, str]()
    for start, end in box_spans(look):
        box, _ = PARSERS[STRICT](look[start:end], case.raw, case.id)
        place = object_at(box, case.objects)
        if place in answered and place is not None:
            quoted.setdefault(place, look[start:end])
    if not quoted:
        return "", None
    other = rng.choice(sorted(quoted))
    begin, end = first[0]
    closing, verdict, _ = compare[end:].partition(" yes")  # the mark behind a box, where the family writes one
    return (f"{look}{mark}{compare[:begin]}{quoted[other]}{closing}{verdict}" if verdict else ""), other


def _cut(part: int) -> Callable[[Prediction, random.Random], Start]:
    """Makes the change that keeps the first parts of the rationale and then asks for the answer."""

    def cut(case: Prediction, rng: random.Random) -> Start:
        text = _thought(case)
        if any(mark not in text for mark in _PARTS[:part]):
            return "", None
        if part < len(_PARTS):
            text = text.partition(_PARTS[part])[0] if _PARTS[part] in text else ""
        return (f"{text}{CLOSE}" if text else ""), None

    return cut


KINDS: Final[dict[str, Callable[[Prediction, random.Random], Start]]] = {
    "own_plan": lambda case, rng: ((plan[0] if (plan := PLAN.match(_thought(case))) else ""), None),
    "true_card": lambda case, rng: (
        (_with_plan(case, traits_of(case.objects[case.target].note)), case.target) if case.objects else ("", None)
    ),
    "other_card": _other_card,
    "one_trait": _one_trait,
    "other_box": _other_box,
    "cut_plan": _cut(0),
    "cut_look": _cut(1),
    "cut_compare": _cut(2),
    "cut_conclusion": _cut(3),
    "none": lambda case, rng: (CLOSE, None),
}
