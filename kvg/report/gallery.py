"""Selects the cases to show: a random sample, balanced over categories and verdicts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvg.evaluation.records.prediction import Prediction


@dataclass(frozen=True)
class QuestionView:
    """One question and the answer of each run that has it."""

    answers: Mapping[str, Prediction]

    @property
    def case(self) -> Prediction:
        """The first run's prediction, for fields that are equal in all runs."""
        return next(iter(self.answers.values()))

    @property
    def verdicts(self) -> tuple[bool, ...]:
        """Whether each run's answer is correct."""
        return tuple(case.correct for case in self.answers.values())


def questions_of(runs: Mapping[str, Sequence[Prediction]]) -> list[QuestionView]:
    """The questions of all runs, in the order of the first run that has each; corrupted pictures are skipped."""
    # If every run has a single set, the name of the set is ignored, as in comparisons.
    nameless = all(len({case.set for case in cases}) == 1 for cases in runs.values())
    by_question: dict[str, dict[str, Prediction]] = {}
    for run, cases in runs.items():
        for case in cases:
            if not case.artifact:
                by_question.setdefault(case.key if nameless else case.id, {})[run] = case
    return [QuestionView(answers) for answers in by_question.values()]


def pick(questions: Sequence[QuestionView], num: int, seed: int) -> list[QuestionView]:
    """Chooses random questions, each from the category with the fewest so far, and then the rarest verdict in it.

    Args:
        questions: to choose from.
        num: largest number of questions.
        seed: of the random choice.

    Returns:
        The chosen questions in the given order.
    """
    order = random.Random(seed).sample(range(len(questions)), len(questions))
    pools: dict[tuple[str, tuple[bool, ...], str], list[int]] = {}
    for index in order:
        case = questions[index].case
        pools.setdefault((case.category, questions[index].verdicts, f"{case.split}/{case.knowledge}"), []).append(index)
    categories, pairs, verdicts, groups = Counter[str](), Counter[object](), Counter[object](), Counter[str]()
    chosen: list[int] = []
    while pools and len(chosen) < num:
        best = min(
            pools,
            key=lambda p: (categories[p[0]], pairs[p[0], p[1]], verdicts[p[1]], groups[p[2]], pools[p][0]),
        )
        category, verdict, group = best
        chosen.append(pools[best].pop())
        if not pools[best]:
            del pools[best]
        categories[category] += 1
        pairs[category, verdict] += 1
        verdicts[verdict] += 1
        groups[group] += 1
    return [questions[index] for index in sorted(chosen)]
