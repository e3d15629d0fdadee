"""All figures of a report, as in results.json; page, Markdown and terminal use the same figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypedDict

from kvg.errors import DataError
from kvg.evaluation.diagnostics.signatures import Signatures, signatures
from kvg.evaluation.figures.accuracy import (
    ArtifactCurve,
    ChoiceTable,
    Figure,
    artifact_curves,
    choice_table,
    figures,
)
from kvg.evaluation.figures.estimate import pictures_of
from kvg.evaluation.figures.exposure import Exposure
from kvg.evaluation.figures.levels import Levels, knowledge_of, without_level
from kvg.evaluation.records.prediction import Prediction, check_utf8
from kvg.evaluation.records.prediction_files import RECORD
from kvg.evaluation.records.scoring import STRICT
from kvg.records import read_json
from kvg.report.curves import Curve
from kvg.work.progress import with_progress

Curves = Mapping[str, Curve]  # by tag


class RunFacts(TypedDict):
    """Counts over the lines of a run; ``record`` is its predictions.json, None without one."""

    cases: int
    pictures: int
    unparsed: int  # answers without a readable box or option
    cut_off: int  # answers truncated at the length limit
    modes: dict[str, int]
    parsers: dict[str, int]
    patterns: dict[str, int]  # answers by the number of the matched pattern, if the lines give it
    record: dict[str, Any] | None


class RunResults(TypedDict):
    """One run."""

    facts: RunFacts
    figures: list[Figure]
    choice: ChoiceTable | None
    artifacts: list[ArtifactCurve]
    signatures: Signatures | None  # None without box questions on clean pictures


@dataclass(frozen=True)
class ReportContext:
    """Information besides the answers.

    Attributes:
        levels: of entities, see ``read_levels``.
        exposure: exposure of entities in training; None if no training set is given.
        curves: of trainings, by the name of a run.
        records: predictions.json of the runs that have one.
        trainings: folders of the trainings, by the name of a run.
    """

    levels: Levels = field(default_factory=dict)
    exposure: Exposure | None = None
    curves: Mapping[str, Curves] = field(default_factory=dict)
    records: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    trainings: Mapping[str, str] = field(default_factory=dict)


def results_of(runs: Mapping[str, Sequence[Prediction]], context: ReportContext, seed: int) -> dict[str, RunResults]:
    """Computes the figures of every run.

    Args:
        runs: cases by the name of their run.
        context: information besides the answers.
        seed: of all intervals and permutations.
    """
    results: dict[str, RunResults] = {}
    for name, cases in with_progress(runs.items(), "figures of runs", len(runs)):
        exposures = context.exposure.by_case(cases) if context.exposure else None
        plain = any(not case.is_choice and not case.artifact for case in cases)
        results[name] = RunResults(
            facts=run_facts(cases, context.records.get(name)),
            figures=figures(cases, seed, context.levels, exposures),
            choice=choice_table(cases, seed),
            artifacts=artifact_curves(cases, seed),
            signatures=signatures(cases, seed, context.levels, context.curves.get(name)) if plain else None,
        )
    return results


def run_facts(cases: Sequence[Prediction], record: dict[str, Any] | None = None) -> RunFacts:
    """Counts of a run.

    Args:
        cases: of the run.
        record: its predictions.json.
    """
    return RunFacts(
        cases=len(cases),
        pictures=len(set(pictures_of(cases))),
        unparsed=sum(not case.answered for case in cases),
        cut_off=sum(case.finish_reason == "length" for case in cases),
        modes=_counted(case.mode for case in cases if case.mode),
        parsers=_counted(case.parser or STRICT for case in cases if not case.is_choice),
        patterns=_counted(str(case.pattern) for case in cases if case.pattern is not None),
        record=record,
    )


def with_knowledge(cases: Sequence[Prediction], levels: Levels) -> list[Prediction]:
    """The cases with their knowledge level filled in, see ``kvg.evaluation.figures.levels.knowledge_of``."""
    return [replace(case, knowledge=knowledge_of(case, levels)) for case in cases] if levels else list(cases)


def read_record(run: str | Path) -> dict[str, Any] | None:
    """The predictions.json of a run; None if there is none, as for answers of other software.

    Raises:
        DataError: it cannot be read.
    """
    path = Path(run) / RECORD if Path(run).is_dir() else Path(run).with_name(RECORD)
    if not path.is_file():
        return None
    record = read_json(path)
    if not isinstance(record, dict):
        raise DataError(str(path), "json", "is not a JSON object; remove the file, or run `kvg predict` again")
    if not isinstance(record.get("bad") or [], list):
        raise DataError(str(path), "bad", "must be a list of reasons; remove the file, or run `kvg predict` again")
    check_utf8(record, str(path))
    return record


def entities_without_level(runs: Mapping[str, Sequence[Prediction]], levels: Levels) -> list[str]:
    """Entities of the cases that are in no knowledge file; empty if no file was given."""
    return without_level([case for cases in runs.values() for case in cases], levels) if levels else []


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


# Title, tag, whether the values are shares.
DRAWN_CURVES: Final[Sequence[tuple[str, str, bool]]] = (
    ("Loss of supervised training", "train/loss", False),
    ("Validation accuracy, all", "val/iou_acc", True),
    ("Validation accuracy, seen categories", "val/iou_acc/seen", True),
    ("Validation accuracy, unseen categories", "val/iou_acc/unseen", True),
    ("Validation accuracy, known entities", "val/iou_acc/known", True),
    ("Validation accuracy, unknown entities", "val/iou_acc/unknown", True),
    ("KL to the stage-1 model", "train/kl", False),
    ("Completion length in tokens", "train/completion_length", False),
    ("Entropy in nats per token", "train/entropy", False),
)
REWARD: Final = "train/reward/"


def drawn_curves(curves: Curves) -> dict[str, Curve]:
    """The curves to show; the loss of stage 2 is skipped, because it is near 0 by construction."""
    is_rewarded = f"{REWARD}total" in curves
    tags = [tag for _, tag, _ in DRAWN_CURVES if not (tag == "train/loss" and is_rewarded)]
    parts = sorted((tag for tag in curves if tag.startswith(REWARD)), key=lambda tag: (tag != f"{REWARD}total", tag))
    return {tag: curves[tag] for tag in (*tags, *parts) if curves.get(tag)}
