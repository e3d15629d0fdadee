"""The page of all questions: what was registered, what is known so far, and what has not been run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvg.report.interval_chart import Interval, curves, dots
from kvg.work.files import atomic_write, disk_errors
from kvg.workflow.experiments.contrast import Contrast, Rows, claim_contrast, mean_of
from kvg.workflow.experiments.question import Arm, Claim, Question
from kvg.workflow.experiments.result import Result
from kvg.workflow.experiments.run import Experiments

PAGE: Final = "README.md"
_NOT_RUN: Final = "not yet run"
_HEAD: Final = """# Experiments

Each question was registered before its runs: arms, measure, what would refute it, and the smallest effect that can be
seen. Everything here is made from the results beside this page by `kvg-data experiments --page`; `make experiments`
runs what is missing, and can be stopped at any time. Intervals are 95%, over seeds and cases; with one seed they hold
for that seed only, and the verdict is preliminary. See [statistics](../explanation/statistics.md) and
[the lab](../explanation/lab.md).
"""


@dataclass(frozen=True)
class _Known:
    """What is known of one question.

    Attributes:
        name: of the question.
        question: the question.
        rows: results by test, arm and seed; equal measurements of several seeds are one row.
        num_left: number of measurements without a result.
        num: number of all measurements.
        changed: whether a result was made with other contents of the configs.
    """

    name: str
    question: Question
    rows: Mapping[str, Mapping[str, Rows]]
    num_left: int
    num: int
    changed: bool


def write_page(experiments: Experiments, folder: Path) -> Path:
    """Writes the page and its figures; returns its path.

    Raises:
        DataError: the cases of a result are missing, or the disk cannot be written.
    """
    known = [_known(name, question, experiments) for name, question in experiments.questions.items()]
    lines = [_HEAD, *_first_table(known, experiments)]
    figures: dict[str, str] = {}
    for one in known:
        lines += _section(one, experiments, figures)
    lines += ["## Time", "", *_time(experiments)]
    with disk_errors(folder):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for old in (folder / "figures").glob("*.svg"):
            if old.name not in figures:
                old.unlink()
        for name, svg in figures.items():
            atomic_write(folder / "figures" / name, svg)
        atomic_write(folder / PAGE, "\n".join(lines).rstrip() + "\n")
    return folder / PAGE


def _known(name: str, question: Question, experiments: Experiments) -> _Known:
    rows: dict[str, dict[str, dict[int, Result]]] = {
        test: {arm: {} for arm in question.arms} for test in question.tests
    }
    own = [one for one in experiments.measurements if one.question == name]
    changed = False
    for one in own:
        result = experiments.results.get(one)
        if result is None:
            continue
        changed |= result.settings != one.made.settings
        there = rows[one.test][one.arm]
        if all(other.identity != result.identity for other in there.values()):
            there[one.seed] = result
    num_left = sum(experiments.results.get(one) is None for one in own)
    return _Known(name, question, rows, num_left, len(own), changed)


def _first_table(known: list[_Known], experiments: Experiments) -> Iterator[str]:
    """Claims with a result as a table, the others as a list."""
    yield "| question | claim | verdict in the lab | strength of the evidence | what a lab of drawings cannot say |"
    yield "|--|--|--|--|--|"
    waiting: list[str] = []
    for one in known:
        for claim in one.question.parsed_claims():
            made, link = _contrast(one, claim, experiments), f"[{one.name}](#{one.name})"
            if made is None:
                waiting.append(f"- {link}: {claim.claim}")
                continue
            verdict, strength = _verdict(one, claim, made), _strength(claim, made)
            yield f"| {link} | {claim.claim} | {verdict} | {strength} | {claim.beyond or '–'} |"
    yield ""
    if waiting:
        yield from ("Registered, and not yet run:", "", *waiting, "")


def _contrast(one: _Known, claim: Claim, experiments: Experiments) -> Contrast | None:
    first = next(iter(one.question.tests))
    test = claim.test or first
    return claim_contrast(claim, one.rows[test], one.rows[claim.before_test or test], experiments.results)


def _verdict(one: _Known, claim: Claim, made: Contrast | None) -> str:
    if made is None:
        return _NOT_RUN
    seeds = len(one.question.seeds)
    verdict = made.verdict(claim.holds)
    return f"**{verdict}**" if made.seeds >= seeds else f"{verdict} (preliminary: {made.seeds} of {seeds} seeds)"


def _strength(claim: Claim, made: Contrast) -> str:
    differs = claim.before is not None or claim.minus is not None
    parts = [_points(made, differs), f"{made.seeds} seeds" if made.seeds > 1 else "1 seed", f"{made.cases} cases"]
    if made.p is not None:
        parts.insert(1, "p < 0.001" if made.p < 0.001 else f"p = {made.p:.3f}")
    if made.detectable is not None:
        parts.append(f"smallest detectable {100 * made.detectable:.1f}")
    return ", ".join(parts)


def _points(made: Contrast, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value, low, high = (format(100 * number, f"{sign}.1f") for number in (made.value, made.low, made.high))
    return f"{value} ({low} to {high})"


def _section(one: _Known, experiments: Experiments, figures: dict[str, str]) -> Iterator[str]:
    question = one.question
    yield from (f"## {one.name}", "", f"**{question.question}**", "")
    yield "Registered before the runs:"
    yield ""
    yield "| | |"
    yield "|--|--|"
    for name, arm in question.arms.items():
        yield f"| arm `{name}` | {arm.what or arm.model} |"
    for name, test in question.tests.items():
        yield f"| test `{name}` | {test.what or test.set or 'exam'} |"
    yield f"| measure | {question.measure} |"
    yield f"| seeds | {', '.join(map(str, question.seeds))} |"
    yield f"| would refute it | {question.refuted} |"
    yield f"| power | {question.power} |"
    yield f"| choices | {question.chosen_by} |"
    yield ""
    yield f"`kvg-data experiments configs/sweeps/{one.name}.yaml`"
    yield ""
    if one.num_left == one.num:
        yield from (f"Result: {_NOT_RUN}.", "")
        return
    if question.reading:
        yield from (question.reading, "")
    for claim in question.parsed_claims():
        made = _contrast(one, claim, experiments)
        words = _NOT_RUN if made is None else f"{_verdict(one, claim, made)}: {_strength(claim, made)}"
        yield f"- {claim.claim}: {words}."
    yield ""
    if one.num_left:
        yield from (
            f"{one.num - one.num_left} of {one.num} measurements have been made; the others are not yet run.",
            "",
        )
    if one.changed:
        yield from ("Some results were made with other contents of the configs; remove them to run them again.", "")
    for number, svg in enumerate(_figures(one, experiments)):
        name = f"{one.name}{number or ''}.svg"
        figures[name] = svg
        yield from (f"![{question.question}](figures/{name})", "")
    for value in question.values:
        yield from _table(one, value, experiments)


def _table(one: _Known, value: str, experiments: Experiments) -> Iterator[str]:
    """Yields the means of a column in percent: a row for each arm and test."""
    if any(test.set for test in one.question.tests.values()):
        yield from _columns(one, value, one.question.groups, experiments)
    elif value == one.question.values[0]:  # an exam has figures instead of cases
        yield "Figures of the exam, in percent:"
        yield ""
        yield "| arm | seeds | " + " | ".join(one.question.values) + " |"
        yield "|--|--:|" + "--:|" * len(one.question.values)
        for label, rows in _labelled(one):
            if rows:
                cells = [_cell(_mean(rows, experiments, "all", name)) for name in one.question.values]
                yield f"| {label} | {len(rows)} | " + " | ".join(cells) + " |"
        yield from _missing(one)


def _columns(one: _Known, value: str, groups: Sequence[str], experiments: Experiments) -> Iterator[str]:
    yield f"Column `{value}`, in percent:"
    yield ""
    yield "| arm | seeds | " + " | ".join(groups) + " |"
    yield "|--|--:|" + "--:|" * len(groups)
    for label, rows in _labelled(one):
        if rows:
            cells = [_cell(_mean(rows, experiments, group, value)) for group in groups]
            yield f"| {label} | {len(rows)} | " + " | ".join(cells) + " |"
    yield from _missing(one)


def _missing(one: _Known) -> Iterator[str]:
    names = [label for label, rows in _labelled(one) if not rows]
    yield from ("", f"{_NOT_RUN.capitalize()}: {', '.join(names)}." if names else "", "")


def _cell(made: Contrast | None) -> str:
    return "–" if made is None else _points(made)


def _labelled(one: _Known) -> Iterator[tuple[str, Rows]]:
    for test in one.question.tests:
        for arm, settings in one.question.arms.items():
            if test in one.question.tests_of(settings):
                yield (arm if len(one.question.tests) == 1 else f"{arm}, {test}"), one.rows[test][arm]


def _mean(rows: Rows, experiments: Experiments, group: str, value: str) -> Contrast | None:
    try:
        return mean_of(rows, experiments.results, group, value) if rows else None
    except ValueError:  # the cases of this test have no such group
        return None


def _figures(one: _Known, experiments: Experiments) -> Iterator[str]:
    question, value = one.question, one.question.values[0]
    lines: dict[str, list[tuple[float, Interval]]] = {}
    for test_name, test in question.tests.items():
        for arm_name, arm in question.arms.items():
            place = test.x if test.x is not None else arm.x
            if place is None or test_name not in question.tests_of(arm):
                continue
            for group in question.groups:
                made = _mean(one.rows[test_name][arm_name], experiments, group, value)
                if made is not None:
                    lines.setdefault(_line(question, arm_name, arm, test.line, group), []).append(
                        (place, _interval(made))
                    )
    if lines:
        yield curves(lines, f"{value} in percent", question.axis)
        return
    rows: dict[str, dict[str, Interval]] = {}
    exams = not any(test.set for test in question.tests.values())
    for label, own in _labelled(one):
        if exams:
            made_by_group = {name: _mean(own, experiments, "all", name) for name in question.values}
        else:
            made_by_group = {group: _mean(own, experiments, group, value) for group in question.groups}
        if there := {group: _interval(made) for group, made in made_by_group.items() if made is not None}:
            rows[label] = there
    if rows:
        yield dots(rows, "figures in percent" if exams else f"{value} in percent")


def _line(question: Question, name: str, arm: Arm, line: str, group: str) -> str:
    parts = [name if arm.x is None and len(question.arms) > 1 else "", line, group if len(question.groups) > 1 else ""]
    return ", ".join(part for part in parts if part) or name


def _interval(made: Contrast) -> Interval:
    return 100 * made.value, 100 * made.low, 100 * made.high


def _time(experiments: Experiments) -> Iterator[str]:
    seconds: dict[str, float] = {}
    taken: set[str] = set()
    for one in experiments.measurements:
        if result := experiments.results.get(one):
            seconds |= result.seconds
            taken |= set(result.origin)
    num = len({one.made.identity for one in experiments.measurements})
    left = len(experiments.left())
    origin = f"; {len(taken)} steps were taken over from a finished demo" if taken else ""
    hours = sum(seconds.values()) / 3600
    yield f"{num - left} of {num} measurements have a result. Their steps took {hours:.1f} h in all{origin}."
