"""Multiple-choice questions about single-entity pictures; they measure how well a model knows an entity.

See the paper, v3, appendix B.2.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kvg.catalogue.entry import Entry
from kvg.text.prompts import choice_prompt

NUM_OPTIONS = 4


@dataclass(frozen=True)
class Question:
    """A multiple-choice question about a picture.

    Attributes:
        entry: entry of the picture.
        turn: number of earlier questions about this picture.
        options: names of entities of its category; one of them is correct.
    """

    entry: Entry
    turn: int
    options: tuple[str, ...]

    @property
    def answer(self) -> int:
        """Returns the index of the correct option, from 0."""
        return self.options.index(self.entry.entity)

    @property
    def text(self) -> str:
        """Returns the text of the question."""
        return choice_prompt(self.entry.category, self.options)


def names_by_category(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Returns all entities of each category, sorted."""
    by_category: dict[str, set[str]] = {}
    for entry in entries:
        by_category.setdefault(entry.category, set()).add(entry.entity)
    return {category: sorted(names) for category, names in sorted(by_category.items())}


def choice_questions(
    entries: Sequence[Entry], names: Mapping[str, Sequence[str]], seed: int, pictures: int, questions: int
) -> Iterator[Question]:
    """Yields questions about entities, entity by entity.

    The questions about an entity cycle through its pictures: all of them, or ``pictures`` that the seed samples. Each
    further question about a picture has other distractors as long as there are any. In a category of fewer than four
    entities all of them are options; a category with a single entity is left out.

    Args:
        entries: the pictures.
        names: result of ``names_by_category``, from which the distractors come.
        seed: seed of pictures, distractors and the order of options.
        pictures: maximum number of pictures of an entity.
        questions: number of questions about each entity.
    """
    by_entity: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        by_entity.setdefault((entry.category, entry.entity), []).append(entry)
    for (category, entity), entity_pictures in sorted(by_entity.items()):
        others = [name for name in names[category] if name != entity]
        if not others:
            continue
        chosen = entity_pictures
        if len(entity_pictures) > pictures:
            chosen = random.Random(f"{seed}/probe/{category}/{entity}").sample(entity_pictures, pictures)
        for number in range(questions):
            turn, place = divmod(number, len(chosen))
            yield _question(chosen[place], entity, others, seed, turn)


def _question(entry: Entry, entity: str, others: Sequence[str], seed: int, turn: int) -> Question:
    return Question(entry, turn, sample_options(entity, others, f"{seed}/probe/{entry.source}/{entry.ref}", turn))


def sample_options(entity: str, others: Sequence[str], of_picture: str, turn: int = 0) -> tuple[str, ...]:
    """Returns an entity and its distractors in random order.

    Args:
        entity: the correct option.
        others: names to sample the distractors from; all of them are used if there are fewer than three.
        of_picture: seed of the shuffles.
        turn: number of earlier questions about this picture; it selects other distractors as long as there are any.

    >>> sorted(sample_options("Merlin", ["Hobby", "Osprey"], "0/bird.jpg"))
    ['Hobby', 'Merlin', 'Osprey']
    """
    mixed = list(others)
    random.Random(of_picture).shuffle(mixed)
    num = min(NUM_OPTIONS - 1, len(mixed))
    options = [entity, *(mixed[(turn * num + k) % len(mixed)] for k in range(num))]
    random.Random(f"{of_picture}/{turn}").shuffle(options)
    return tuple(options)


def chance_of(right: int, num: int, guess: float) -> float:
    """Returns the probability that guessing gives at least ``right`` correct answers (one-sided exact binomial test).

    Args:
        right: number of correct answers.
        num: number of questions.
        guess: probability that a guess is correct.

    >>> round(chance_of(2, 2, 0.25), 6)
    0.0625
    """

    def exactly(k: int) -> float:  # in logarithms, because the binomial coefficient overflows a float
        ways = math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1)
        return math.exp(ways + k * math.log(guess) + (num - k) * math.log1p(-guess))

    return math.fsum(exactly(k) for k in range(right, num + 1))
