"""The file of a question: what was registered before its runs, its arms, and the claims that are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kvg.config.settings import in_file, read_yaml, settings_of
from kvg.errors import ConfigError
from kvg.workflow.experiments.step_library import Template

FOLDER: Final = "configs/sweeps"
EXAM = "exam"  # kind of a measurement without a set
_RULES: Final = ("above", "below", "within")


@dataclass(frozen=True)
class Arm:
    """One arm of a question.

    Attributes:
        model: step of the library or of the file that trains the model; ``base`` for the base model.
        mode: step of the library that answers a set: ``think`` or ``direct``.
        ask: words that are added to it. ``{answers}`` is the folder of the model's plain answers.
        use: replaced steps, see ``Template.use``.
        tests: names of the question's tests; None for all.
        x: position on the axis of the figure; None for none.
        what: description in a few words.
    """

    model: str
    mode: str = "think"
    ask: str = ""
    use: Mapping[str, str] = field(default_factory=dict)
    tests: Sequence[str] | None = None
    x: float | None = None
    what: str = ""


@dataclass(frozen=True)
class Test:
    """What is measured.

    Attributes:
        set: step that makes the composites; '' for ``exam``, which makes its own scenes.
        x: position on the axis of the figure; None for none.
        line: name of the line in the figure.
        what: description in a few words.
    """

    set: str = ""
    x: float | None = None
    line: str = ""
    what: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim, and the contrast that decides it: ``after`` minus ``before`` on some ``cases``.

    Attributes:
        claim: the claim in words, of the paper or of this question.
        after: name of an arm, or the arm of each group of cases.
        before: another arm; None for the mean of ``after`` itself.
        cases: group of cases, see ``kvg.workflow.experiments.contrast``.
        minus: group whose difference is subtracted, for an interaction; None for none.
        test: name of the test; the first one by default.
        before_test: test of ``before``, if it is another one.
        value: column of the results.
        holds: ``{above: points}``, ``{below: points}`` or ``{within: points}``: when the claim holds.
        beyond: what a lab of drawings cannot say about it.
    """

    claim: str
    after: str | Mapping[str, str]
    before: str | None = None
    cases: str = "all"
    minus: str | None = None
    test: str | None = None
    before_test: str | None = None
    value: str = "right"
    holds: Mapping[str, float] = field(default_factory=lambda: {"above": 0.0})
    beyond: str = ""

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: there is not one rule, or it is unknown.
        """
        if len(self.holds) != 1 or next(iter(self.holds)) not in _RULES:
            raise ConfigError("claims.holds", f"{dict(self.holds)} must be one of {', '.join(_RULES)}: points")

    @property
    def arms(self) -> tuple[str, ...]:
        """Returns the names of its arms."""
        after = (self.after,) if isinstance(self.after, str) else tuple(self.after.values())
        return (*after, *((self.before,) if self.before else ()))


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        question: the question.
        measure: what is measured.
        refuted: what would refute the claims.
        power: the smallest effect that can be seen, as computed before the runs.
        arms: by name, the baseline first.
        claims: in the order of their weight.
        tests: by name.
        seeds: seeds of all trainings.
        groups: groups of cases of the table and the figure.
        values: columns of the table.
        curves: tags of logged curves that are kept.
        steps: further steps.
        chosen_by: on what choices between the arms are made.
        axis: title of the figure's horizontal axis; '' for a figure without one.
        reading: what a person has read from the results; '' before the runs.
    """

    question: str
    measure: str
    refuted: str
    power: str
    arms: Mapping[str, Arm]
    claims: Sequence[Any]
    tests: Mapping[str, Test] = field(default_factory=lambda: {"test": Test("test")})
    seeds: Sequence[int] = (0, 1, 2)
    groups: Sequence[str] = ("all", "seen, known", "seen, unknown", "unseen, known", "unseen, unknown")
    values: Sequence[str] = ("right",)
    curves: Sequence[str] = ("val/iou_acc",)
    steps: Mapping[str, Template] = field(default_factory=dict)
    chosen_by: str = "nothing is chosen: all arms were registered"
    axis: str = ""
    reading: str = ""

    def __post_init__(self) -> None:
        """Checks that names fit together.

        Raises:
            ConfigError: an arm or a test is missing, or a claim names an unknown one.
        """
        if not self.arms or not self.tests or not self.seeds:
            raise ConfigError("arms, tests, seeds", "must not be empty; name at least one")
        for name, arm in self.arms.items():
            for test in arm.tests or ():
                self._check(f"arms.{name}.tests", test, self.tests)
        for number, claim in enumerate(self.parsed_claims()):
            for arm_name in claim.arms:
                self._check(f"claims[{number}]", arm_name, self.arms)
            for test_name in (claim.test, claim.before_test):
                if test_name is not None:
                    self._check(f"claims[{number}].test", test_name, self.tests)

    def parsed_claims(self) -> list[Claim]:
        """Returns the claims.

        Raises:
            ConfigError: a setting of a claim is wrong.
        """
        return [settings_of(Claim, value, f"claims[{number}]") for number, value in enumerate(self.claims)]

    def tests_of(self, arm: Arm) -> list[str]:
        """Returns the names of an arm's tests."""
        return list(self.tests if arm.tests is None else arm.tests)

    @staticmethod
    def _check(where: str, name: str, known: Mapping[str, Any]) -> None:
        if name not in known:
            raise ConfigError(where, f"'{name}' is none of {', '.join(known)}; correct it")


def load_question(path: str | Path) -> Question:
    """Reads the file of a question.

    Raises:
        ConfigError: it cannot be read, or a setting is wrong.
    """
    with in_file(path):
        return settings_of(Question, read_yaml(path))


def question_files(folder: str | Path) -> list[Path]:
    """Returns the files of questions in a folder; other YAML files, such as a single sweep, are passed over."""
    return [path for path in sorted(Path(folder).glob("*.yaml")) if "question" in read_yaml(path)]
