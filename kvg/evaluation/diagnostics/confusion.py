"""Kinds of errors: another object of the picture, no object, or an unparsed answer; and confused entities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from kvg.evaluation.diagnostics.pointing import answered_object
from kvg.evaluation.figures.accuracy import DIFFERENCE
from kvg.evaluation.figures.estimate import Estimate, in_words, mean_if_any, mean_over, points
from kvg.evaluation.records.prediction import Prediction
from kvg.lab.traits import load_cards, neighbours


class Errors(TypedDict):
    """Kinds of errors as shares of all errors; ``untold``: only the target's box is known, so the kind is unknown."""

    n: int
    other_object: Estimate | None
    no_object: Estimate | None
    unparsed: Estimate | None
    untold: Estimate | None


class Pair(TypedDict):
    """``answered`` was boxed instead of ``target`` ``num`` times, of ``together`` pictures that show both."""

    target: str
    answered: str
    num: int
    together: int
    share: float


class EntityConfusion(TypedDict):
    """An entity that was the target ``n`` times, and the entity most often answered instead."""

    entity: str
    n: int
    right: int
    most: str  # '' if there is none
    num: int


class LookAlikes(TypedDict):
    """Share of confusions with a look-alike among the lab pictures that show one, and its chance level."""

    n: int
    to_look_alike: Estimate
    chance: float
    difference: Estimate


class Confusion(TypedDict):
    """Errors and confusions of ``n`` cases."""

    n: int
    errors: Errors
    pairs: list[Pair]  # most frequent first
    entities: list[EntityConfusion]  # most often confused first
    look_alikes: LookAlikes | None
    verdict: str


def confusion(cases: Sequence[Prediction], seed: int) -> Confusion:
    """Measures errors and confusions.

    Args:
        cases: of one run, on clean pictures.
        seed: of the intervals.
    """
    pointed = {case.id: answered_object(case) for case in cases}
    errors = _errors(cases, pointed, seed)
    taken = [case for case in cases if not case.correct and pointed[case.id] is not None]
    pairs = _pairs(cases, taken, pointed)
    confusion = Confusion(
        n=len(cases),
        errors=errors,
        pairs=pairs,
        entities=_entities(cases, pairs),
        look_alikes=_look_alikes(taken, pointed, seed),
        verdict="",
    )
    return {**confusion, "verdict": _verdict(confusion)}


def _errors(cases: Sequence[Prediction], pointed: dict[str, int | None], seed: int) -> Errors:
    wrong = [case for case in cases if not case.correct]

    def kind(case: Prediction) -> str:
        if not case.answered:
            return "unparsed"
        if len(case.objects) < 2:
            return "untold"
        return "no_object" if pointed[case.id] is None else "other_object"

    kinds = {case.id: kind(case) for case in wrong}

    def share(name: str) -> Estimate | None:
        return mean_if_any(wrong, lambda case: kinds[case.id] == name, seed)

    return Errors(
        n=len(wrong),
        other_object=share("other_object"),
        no_object=share("no_object"),
        unparsed=share("unparsed"),
        untold=share("untold"),
    )


def _pairs(cases: Sequence[Prediction], taken: Sequence[Prediction], pointed: dict[str, int | None]) -> list[Pair]:
    together = Counter(
        (case.entity, name)
        for case in cases
        for name in {item.entity for n, item in enumerate(case.objects) if n != case.target}
    )
    answered = [(case.entity, case.objects[pointed[case.id] or 0].entity) for case in taken]
    counts = Counter(pair for pair in answered if pair[1])  # published files name only the target
    return [
        Pair(
            target=target,
            answered=other,
            num=num,
            together=together[target, other],
            share=num / together[target, other],
        )
        for (target, other), num in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _entities(cases: Sequence[Prediction], pairs: Sequence[Pair]) -> list[EntityConfusion]:
    targets = Counter(case.entity for case in cases)
    right = Counter(case.entity for case in cases if case.correct)
    most: dict[str, Pair] = {}
    for pair in pairs:
        most.setdefault(pair["target"], pair)
    rows = [
        EntityConfusion(
            entity=entity,
            n=num,
            right=right[entity],
            most=most[entity]["answered"] if entity in most else "",
            num=most[entity]["num"] if entity in most else 0,
        )
        for entity, num in targets.items()
    ]
    return sorted(rows, key=lambda row: (-row["num"], row["entity"]))


def _look_alikes(taken: Sequence[Prediction], pointed: dict[str, int | None], seed: int) -> LookAlikes | None:
    """Look-alikes are entities of the same category whose cards differ in one trait."""
    cards = {(card.category, card.name): card for card in load_cards()}
    alike: dict[str, list[int]] = {}
    for case in taken:
        card = cards.get((case.category, case.entity))
        names = {other.name for other in neighbours(card)} if card else set()
        alike[case.id] = [n for n, item in enumerate(case.objects) if n != case.target and item.entity in names]
    confused = [case for case in taken if alike[case.id]]
    if not confused:
        return None

    def is_alike(case: Prediction) -> float:
        return float(pointed[case.id] in alike[case.id])

    def by_chance(case: Prediction) -> float:
        return len(alike[case.id]) / (len(case.objects) - 1)

    return LookAlikes(
        n=len(confused),
        to_look_alike=mean_over(confused, is_alike, seed),
        chance=sum(map(by_chance, confused)) / len(confused),
        difference=mean_over(confused, lambda case: is_alike(case) - by_chance(case), seed, DIFFERENCE),
    )


def _verdict(confusion: Confusion) -> str:
    errors, alike = confusion["errors"], confusion["look_alikes"]
    if not errors["n"]:
        return "no sign: there are no errors"
    other, untold = errors["other_object"], errors["untold"]
    if other is None or untold is None or untold["value"] == 1.0:
        return "not measurable: the other objects' boxes are not known"
    words = f"{in_words(other)} of the errors are another object"
    if alike and alike["difference"]["low"] > 0:
        return f"sign: {words}; look-alikes are confused more often than by chance, {points(alike['difference'])}"
    if other["low"] > 0.5:
        return f"sign: {words}: the model selects the wrong object; localization is not the main error"
    return f"no sign: {words}"
