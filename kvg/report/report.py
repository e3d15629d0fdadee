"""A report of one or several runs: computed once, then written as page, JSON, Markdown and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvg.evaluation.figures.exposure import EXPOSURES
from kvg.evaluation.records.prediction import Prediction
from kvg.formats.written_boxes import Reading
from kvg.report.curves import Curve
from kvg.report.gallery import pick, questions_of
from kvg.report.gallery_page import Gallery
from kvg.report.markdown import markdown
from kvg.report.naming import RunStyle, looks
from kvg.report.page import Contents, page
from kvg.report.pair_section import findings_of, pair_section
from kvg.report.pairs import Pair, PairResult, compare_pairs
from kvg.report.pictures import read_pictures
from kvg.report.results import ReportContext, RunResults, drawn_curves, entities_without_level, results_of
from kvg.report.rollout_section import RolloutView, rollout_section
from kvg.report.run_section import runs_section
from kvg.report.sections import (
    Section,
    accuracy_section,
    artifact_section,
    choice_section,
    curve_section,
)
from kvg.report.signature_sections import signature_sections

Cases = Mapping[str, Sequence[Prediction]]  # by run


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        title: headline.
        lead: the text below it.
        looks: styles of the runs.
        results: by run.
        pairs: differences.
        notes: remarks on the pairs.
        context: information besides the answers.
        sections: figures.
        signatures: failure signatures.
        gallery: cases.
        rollouts: of trainings.
        facts: settings and versions, by name.
        links: other pages, by title.
    """

    title: str
    lead: str
    looks: Mapping[str, RunStyle]
    results: Mapping[str, RunResults]
    pairs: Sequence[PairResult]
    notes: Sequence[str]
    context: ReportContext
    sections: Sequence[Section]
    signatures: Sequence[Section]
    gallery: Gallery
    rollouts: RolloutView
    facts: Mapping[str, str]
    links: Mapping[str, str] = field(default_factory=dict)

    def html(self) -> str:
        """The page."""
        findings = findings_of(self.pairs, self.results, self.looks)
        parts = (findings, self.sections, self.signatures, self.gallery, self.facts, self.links)
        return page(Contents(self.title, self.lead, self.looks, *parts))

    def markdown(self) -> str:
        """The same tables in Markdown."""
        return markdown(self.title, self.lead, [*self.sections, *self.signatures], self.facts)

    def record(self, settings: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
        """The same figures as JSON data.

        Args:
            settings: of the report.
            versions: of the software.
        """
        return {
            "runs": dict(self.results),
            "pairs": list(self.pairs),
            "notes": list(self.notes),
            "curves": {run: _finite(drawn_curves(own)) for run, own in self.context.curves.items()},
            "rollouts": {run: own["figures"] for run, own in self.rollouts.runs.items()},
            "settings": dict(settings),
            "versions": dict(versions),
        }


def _finite(curves: Mapping[str, Curve]) -> dict[str, list[tuple[int, float | None]]]:
    """Replaces NaN and infinity by None, because JSON cannot hold them."""
    return {tag: [(step, v if math.isfinite(v) else None) for step, v in curve] for tag, curve in curves.items()}


def make_report(
    runs: Cases,
    pairs: Sequence[Pair],
    gallery: Gallery,
    context: ReportContext,
    facts: Mapping[str, str],
    seed: int,
    title: str = "",
    pairs_given: bool = False,
    rollouts: RolloutView | None = None,
) -> Report:
    """Computes the figures and makes the sections.

    Args:
        runs: cases by the name of their run.
        pairs: runs to compare.
        gallery: cases to show, see ``chosen_gallery``.
        context: information besides the answers.
        facts: settings and versions, by name.
        seed: of all intervals and permutations.
        title: headline; made from the names of the runs if empty.
        pairs_given: see ``compare_pairs``.
        rollouts: of trainings; None for none.

    Raises:
        DataError: two compared runs have different ground truth for a case, or share no case.
    """
    rollouts = rollouts or RolloutView()
    look = looks([*runs, *context.curves])
    results = results_of(runs, context, seed) if runs else {}
    compared, notes = compare_pairs(runs, pairs, seed, pairs_given) if runs else ([], [])
    own = {name: look[name] for name in runs}
    sections = (
        accuracy_section(results, own),
        pair_section(compared, notes, own),
        choice_section(results, own),
        artifact_section(results, own),
        curve_section(context.curves, look),
        rollout_section(rollouts, look),
        runs_section(results, own, bool(context.curves)) if runs else None,
    )
    signs = {run: own["signatures"] for run, own in results.items() if own["signatures"]}
    return Report(
        title=title or (_title(own) if own else f"Training of {', '.join(one.title for one in look.values())}"),
        lead=_lead(runs, context),
        looks=own or look,
        results=results,
        pairs=compared,
        notes=notes,
        context=context,
        sections=[section for section in sections if section],
        signatures=signature_sections(signs, look),
        gallery=gallery,
        rollouts=rollouts,
        facts=facts,
    )


def chosen_gallery(
    runs: Cases, sets: Sequence[tuple[str, str]], num: int, seed: int, reading: Reading | None = None
) -> Gallery:
    """Chooses cases and reads their pictures.

    Args:
        runs: cases by the name of their run.
        sets: name and path of each; without sets the cases are shown without pictures.
        num: largest number of cases.
        seed: of the random choice.
        reading: declared format of the sets' boxes.

    Raises:
        DataError: a set cannot be opened, or no set holds any of the pictures.
    """
    questions = questions_of(runs)
    chosen = pick(questions, num, seed)
    notes = []
    if any(case.artifact for cases in runs.values() for case in cases):
        notes.append("Corrupted pictures are not shown.")
    if not sets or not chosen:
        return Gallery(chosen, None, len(questions), notes)
    matches = read_pictures(sets, [question.case for question in chosen], reading)
    if matches.num_missing:
        notes.append(f"The pictures of {matches.num_missing} cases are in none of the given sets.")
    if matches.num_other:
        notes.append(f"For {matches.num_other} cases the sets hold a different picture than the run used.")
    return Gallery(chosen, matches.by_case, len(questions), notes)


def _title(runs: Mapping[str, RunStyle]) -> str:
    names = [look.title for look in runs.values()]
    if len(names) == 1:
        return f"Evaluation of {names[0]}"
    return f"{', '.join(names[:-1])} and {names[-1]} compared" if len(names) <= 4 else f"{len(names)} runs compared"


def _lead(runs: Cases, context: ReportContext) -> str:
    cases = [case for some in runs.values() for case in some]
    parts = []
    if any(not case.is_choice for case in cases):
        parts.append(
            "Task: given a picture and the name of an entity, predict its box. An answer is correct if its box has an "
            "IoU of at least 0.5 with a true box; an unparsed answer counts as wrong."
        )
    if any(case.split for case in cases):
        parts.append("Training used the seen categories only.")
    if context.levels:
        missing = entities_without_level(runs, context.levels)
        parts.append(
            "Known entities are those that the base model recognised in the probe, according to the knowledge files."
        )
        if missing:
            parts.append(f"{len(missing)} entities are not in these files; they are neither known nor unknown.")
    elif any(case.knowledge for case in cases):
        parts.append("Known entities are those whose text cards the base model was trained on.")
    if context.exposure:
        novel = EXPOSURES[-1].capitalize()
        parts.append(f"“{novel}” entities occur in no training picture and in no training text.")
    return " ".join(parts)
