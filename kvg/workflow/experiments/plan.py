"""The measurements of questions: each arm with each seed on each test, and the steps that lead to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvg.errors import ConfigError
from kvg.workflow.experiments.question import EXAM, Question
from kvg.workflow.experiments.step_library import BASE, MODEL, Library, Made, StepMaker

_ANSWERS: Final = "{answers}"


@dataclass(frozen=True)
class Measurement:
    """One measurement of a question.

    Attributes:
        question: name of the question.
        arm: name of the arm.
        test: name of the test.
        seed: seed of the arm.
        kind: ``exam``, or the mode in which a set is answered.
        made: the step that measures.
        set: the step that makes the composites; None for ``exam``.
        model: the step that trains the model; None for the base model.
    """

    question: str
    arm: str
    test: str
    seed: int
    kind: str
    made: Made
    set: Made | None
    model: Made | None

    @property
    def name(self) -> str:
        """Returns its name on the command line, and of its file."""
        return f"{self.question}/{self.arm}.{self.test}.seed{self.seed}"

    @property
    def trainings(self) -> list[Made]:
        """Returns the trainings that its model has gone through."""
        return [one for one in (self.model.chain() if self.model else []) if one.step.command[:2] == ("kvg", "fit")]


def measurements(name: str, question: Question, library: Library, out: Path) -> list[Measurement]:
    """Returns all measurements of a question; all arms with the first seed come first.

    Args:
        name: name of the question.
        question: the question.
        library: templates of steps.
        out: folder for all steps.

    Raises:
        ConfigError: a step or a placeholder does not exist.
    """
    maker = StepMaker(library.with_steps(question.steps, name), out)
    return [
        _measurement(maker, name, question, arm, test, seed)
        for seed in question.seeds
        for arm in question.arms
        for test in question.tests_of(question.arms[arm])
    ]


def _measurement(
    maker: StepMaker, name: str, question: Question, arm_name: str, test_name: str, seed: int
) -> Measurement:
    arm, test = question.arms[arm_name], question.tests[test_name]
    kind, ask = arm.mode if test.set else EXAM, arm.ask
    use = {**arm.use, MODEL: arm.model}
    if test.set:
        use["test"] = test.set
    if _ANSWERS in ask:
        if kind == EXAM:
            raise ConfigError(f"arms.{arm_name}.ask", f"{_ANSWERS} has no meaning for an exam; leave it out")
        use["answers"] = kind
    measured = maker.made(kind, seed, use, ask)
    model = None if arm.model == BASE else maker.made(arm.model, seed, arm.use)
    made_set = maker.made(test.set, seed, arm.use) if test.set else None
    return Measurement(name, arm_name, test_name, seed, kind, measured, made_set, model)
