"""Finds boxes of pictures without one by a grounding model; writes the boxes, and pages to review them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kvg.catalogue.box_rules import OWN, UNANSWERED, BoxSettings, model_name
from kvg.catalogue.boxing import (
    BOXES,
    PICTURE,
    Finding,
    Ticks,
    by_doubt,
    conclude,
    is_doubtful,
    open_on_white,
    read_findings,
    with_boxes,
)
from kvg.catalogue.entry import CATALOGUE, Entry, read_catalogue
from kvg.errors import ConfigError
from kvg.pipeline.box_model import BoxAnswer, BoxModel, Pictures
from kvg.pipeline.settings.project import Project
from kvg.report.review_page import ReviewItem, write_pages
from kvg.work.files import atomic_write, disk_errors
from kvg.work.job import Job

SUMMARY = "box.json"
FIRST, SECOND = "box.asked", "box.asked.second"  # folders of answers; they are kept for later changes of the rules


@dataclass(frozen=True)
class BoxResult:
    """Boxes of the pictures that had none.

    Attributes:
        path: path of the file with all findings.
        findings: one finding for each picture.
        usage: summaries of the clients, in words.
    """

    path: Path
    findings: Sequence[Finding]
    usage: Sequence[str]

    def refused(self) -> dict[str, int]:
        """Returns the number of pictures without a box, by the rule that rejects it."""
        return dict(sorted(Counter(finding.rule for finding in self.findings if finding.rule).items()))

    def counts(self) -> dict[str, object]:
        """Returns the numbers for the record."""
        refused = self.refused()
        num = len(self.findings)
        return {"asked": num, "boxed": num - sum(refused.values()), "refused": refused}


@dataclass(frozen=True)
class ReviewPages:
    """HTML pages on which a reviewer marks bad boxes.

    Attributes:
        pages: paths of the pages.
        num_boxes: number of boxes on all pages.
        num_bad: number of boxes that are already marked.
        num_lost: number of pictures that can no longer be opened.
        all_kinds: whether the pages also show given boxes and boxes of cut-outs.
    """

    pages: Sequence[Path]
    num_boxes: int
    num_bad: int
    num_lost: int
    all_kinds: bool


def find_boxes(project: Project) -> BoxResult:
    """Writes ``boxes.jsonl`` and ``box.json``. Pictures that already have an answer are not sent again.

    Raises:
        ConfigError: a setting is outside its range.
        DataError: the project has not been scanned, or the model no longer answers.
    """
    settings, out = project.settings("box", BoxSettings), project.out
    entries = read_catalogue(out / CATALOGUE)
    boxless = {(entry.source, entry.ref): entry for entry in entries if entry.box_px is None}
    job = _job(out, settings)
    known = read_findings(out) if job.is_complete() else {}
    done = {
        key: finding
        for key, finding in known.items()
        if finding.rule not in (PICTURE, UNANSWERED) and key in boxless and finding.is_of(boxless[key])
    }
    left, usage = [entry for key, entry in boxless.items() if key not in done], list[str]()
    if left:
        findings = _ask(left, project, settings, usage)
        done.update(((finding.source, finding.ref), finding) for finding in findings)
    result = BoxResult(out / BOXES, [done[key] for key in boxless], usage)
    job.reopen()  # the record must never exist beside boxes of other settings
    with disk_errors(out):
        atomic_write(result.path, "".join(f"{finding.line()}\n" for finding in result.findings))
    job.complete(result.counts())
    return result


def _job(out: Path, settings: BoxSettings) -> Job:
    """Returns the job; its identity is the settings that affect the boxes."""
    values = {name: value for name, value in asdict(settings).items() if name != "review"}
    return Job(out, SUMMARY, json.dumps(values, sort_keys=True, default=str))


def _ask(entries: Sequence[Entry], project: Project, settings: BoxSettings, usage: list[str]) -> Iterator[Finding]:
    """Yields one finding for each picture, in order."""
    if settings.client is None:
        remedy = (
            f"is missing, and {len(entries)} pictures have no box; add `client: {{class_path: ..., init_args: ...}}`"
        )
        raise ConfigError("box.client", remedy)
    pictures = Pictures(project.build_sources(), settings, project.scan.max_pixels)
    first, second = BoxModel.of(settings), BoxModel.second_of(settings)
    answers = first.answers(entries, pictures, project.out / FIRST)
    usage.append(first.client.summary())
    good = [entry for entry, answer in zip(entries, answers, strict=True) if not answer.rule]
    others: Mapping[int, BoxAnswer] = {}
    if second and good:
        of_second = second.answers(good, pictures, project.out / SECOND)
        usage.append(second.client.summary())
        others = {id(entry): answer for entry, answer in zip(good, of_second, strict=True)}
    for entry, answer in zip(entries, answers, strict=True):
        finding = Finding(entry.source, entry.ref, entry.entity, entry.sha256, box_from=model_name(settings.client))
        other = others.get(id(entry), BoxAnswer())
        if answer.rule or other.rule:
            whose = "" if answer.rule else "second model: "
            rule, reason = answer.rule or other.rule, answer.reason or other.reason
            yield replace(finding, rule=rule, reason=f"{whose}{reason}")
        else:
            yield conclude(finding, (*answer.boxes, *other.boxes), settings)


def write_review(project: Project) -> ReviewPages:
    """Writes the review pages, the most doubtful boxes first.

    Raises:
        ConfigError: a setting is outside its range.
        DataError: the project has not been scanned.
    """
    settings, sources = project.settings("box", BoxSettings), project.build_sources()
    boxed = [pair for pair in with_boxes(project) if pair[0].box_px is not None]
    of_models = [pair for pair in boxed if pair[0].box_from not in OWN]
    all_kinds = settings.review == "all" or not of_models
    ticks = Ticks(project.out)
    ordered = by_doubt(boxed if all_kinds else of_models, settings)
    items = [ReviewItem(entry, iou, is_doubtful(entry, iou, settings), entry in ticks) for entry, iou in ordered]
    pages, num_lost = write_pages(
        project.out, items, lambda entry: open_on_white(sources, entry, project.scan.max_pixels)
    )
    return ReviewPages(pages, len(items), sum(item.bad for item in items), num_lost, all_kinds)
