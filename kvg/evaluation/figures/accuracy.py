"""Accuracies by group of cases, each with its confidence interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypedDict

from kvg.benchmark import KNOWLEDGE, LEVELS, SPLITS, category_order
from kvg.evaluation.figures.estimate import Estimate, mean_if_any, mean_of_means, mean_over, pictures_of
from kvg.evaluation.figures.exposure import EXPOSURES
from kvg.evaluation.figures.levels import Levels, knowledge_of
from kvg.evaluation.records.prediction import Prediction
from kvg.text.names import clean_name

DIFFERENCE: Final = (-1.0, 1.0)  # smallest and greatest difference of two verdicts


class Figure(TypedDict):
    """Figures of one group; shares are in 0-1.

    ``accuracy`` weights all cases equally; ``category_mean`` is the mean of the categories' accuracies, None with fewer
    than two categories. An unparsed answer counts as wrong. ``mean_tokens`` is None if no length is known.
    """

    by: str  # all, split, category, knowledge, split and knowledge, level, set, exposure
    name: str
    n: int
    pictures: int
    accuracy: Estimate
    category_mean: Estimate | None
    mean_iou: Estimate
    unparsed: Estimate
    mean_tokens: Estimate | None


class ChoiceFigure(TypedDict):
    """One set of multiple-choice questions. ``chance`` is the chance level."""

    name: str
    n: int
    accuracy: Estimate
    unparsed: Estimate
    chance: float


class ChoiceTable(TypedDict):
    """As the paper's table of fine-grained recognition (v2, table 2): one column per set, and the average."""

    sets: list[ChoiceFigure]
    average: Estimate | None  # mean of the sets; None with one set
    all: Estimate  # over all cases


class Strength(TypedDict):
    """One strength of a corruption, 0 = clean; ``change`` is the difference to clean pictures on the same questions."""

    strength: int
    accuracy: Estimate
    change: Estimate | None


class ArtifactCurve(TypedDict):
    """Accuracy over the strength of one corruption."""

    artifact: str
    points: list[Strength]


def is_plain(case: Prediction) -> bool:
    """Whether this is a box question on a clean picture, with a true box; most figures use only these."""
    return not case.is_choice and not case.artifact and case.has_truth


def figures(
    cases: Sequence[Prediction],
    seed: int,
    levels: Levels | None = None,
    exposures: Mapping[str, str] | None = None,
) -> list[Figure]:
    """One figure per group with at least one case; multiple-choice questions and corrupted pictures are skipped.

    Args:
        cases: of one run.
        seed: of the intervals.
        levels: of entities, see ``read_levels``; an entity without a level is in no level group.
        exposures: by ``Prediction.id``, see ``Exposure.by_case``.
    """
    plain = [case for case in cases if is_plain(case)]
    rows = []
    for by, name, members in _groups(plain, levels or {}, exposures or {}):
        if members:
            rows.append(_figure(by, name, members, seed))
    return rows


def choice_table(cases: Sequence[Prediction], seed: int) -> ChoiceTable | None:
    """Figures of the multiple-choice questions; None if there is none.

    Args:
        cases: of one run.
        seed: of the intervals.
    """
    choices = [case for case in cases if case.is_choice and not case.artifact]
    if not choices:
        return None
    rows = []
    for name in dict.fromkeys(case.set for case in choices):
        members = [case for case in choices if case.set == name]
        rows.append(
            ChoiceFigure(
                name=name,
                n=len(members),
                accuracy=mean_over(members, _right, seed),
                unparsed=mean_over(members, _unparsed, seed),
                chance=sum(1 / len(case.options) for case in members) / len(members),
            )
        )
    average = mean_of_means(choices, _right, lambda case: case.set, seed)
    return ChoiceTable(sets=rows, average=average, all=mean_over(choices, _right, seed))


def artifact_curves(cases: Sequence[Prediction], seed: int) -> list[ArtifactCurve]:
    """Accuracy over strength for each corruption.

    Args:
        cases: of one run, on clean and on corrupted pictures.
        seed: of the intervals.
    """
    cases = [case for case in cases if case.has_truth]
    clean = {(case.set, case.key): case for case in cases if not case.artifact}
    rows = []
    for artifact in sorted({case.artifact for case in cases if case.artifact}):
        corrupted = [case for case in cases if case.artifact == artifact]
        choices = dict.fromkeys((case.set, case.key) for case in corrupted)
        before = mean_if_any([clean[key] for key in choices if key in clean], _right, seed)
        curve = [Strength(strength=0, accuracy=before, change=None)] if before else []
        for strength in sorted({case.strength for case in corrupted}):
            curve.append(_strength([case for case in corrupted if case.strength == strength], clean, seed))
        rows.append(ArtifactCurve(artifact=artifact, points=curve))
    return rows


def _strength(cases: Sequence[Prediction], clean: Mapping[tuple[str, str], Prediction], seed: int) -> Strength:
    now = {(case.set, case.key): float(case.correct) for case in cases}
    # Clustered by the clean pictures: corrupted versions of one picture have different checksums.
    pairs = [clean[key] for key in now if key in clean]
    change = mean_if_any(pairs, lambda case: now[case.set, case.key] - float(case.correct), seed, DIFFERENCE)
    return Strength(strength=cases[0].strength, accuracy=mean_over(cases, _right, seed), change=change)


def _right(case: Prediction) -> float:
    return float(case.correct)


def _unparsed(case: Prediction) -> float:
    return float(not case.answered)


def _groups(
    cases: Sequence[Prediction], levels: Levels, exposures: Mapping[str, str]
) -> Iterator[tuple[str, str, list[Prediction]]]:
    knowledge = {case.id: knowledge_of(case, levels) for case in cases}
    yield "all", "all", list(cases)
    for split in SPLITS:
        yield "split", split, [case for case in cases if case.split == split]
    for category in sorted({case.category for case in cases if case.category}, key=category_order):
        yield "category", category, [case for case in cases if case.category == category]
    for known in KNOWLEDGE:
        yield "knowledge", known, [case for case in cases if knowledge[case.id] == known]
    for split in SPLITS:
        for known in KNOWLEDGE:
            members = [case for case in cases if case.split == split and knowledge[case.id] == known]
            yield "split and knowledge", f"{split}, {known}", members
    for level in LEVELS:
        yield "level", level, [case for case in cases if levels.get(clean_name(case.entity)) == level]
    sets = list(dict.fromkeys(case.set for case in cases))
    for name in sets if len(sets) > 1 else ():
        yield "set", name, [case for case in cases if case.set == name]
    for exposure in EXPOSURES:
        yield "exposure", exposure, [case for case in cases if exposures.get(case.id) == exposure]


def _figure(by: str, name: str, members: Sequence[Prediction], seed: int) -> Figure:
    measured = [case for case in members if case.num_tokens is not None]
    return Figure(
        by=by,
        name=name,
        n=len(members),
        pictures=len(set(pictures_of(members))),
        accuracy=mean_over(members, _right, seed),
        category_mean=mean_of_means(members, _right, lambda case: case.category, seed),
        mean_iou=mean_over(members, lambda case: case.iou, seed),
        unparsed=mean_over(members, _unparsed, seed),
        mean_tokens=mean_if_any(measured, lambda case: float(case.num_tokens or 0), seed, bounds=None),
    )
