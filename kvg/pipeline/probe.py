"""Measures how well a model knows each entity, by multiple-choice questions about single-entity pictures.

The knowledge-aware reward (paper v3, section 4.3 and appendix B.2) needs this probe:
``kvg.rewards.knowledge.KnowledgeReward`` reads ``knowledge.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kvg.catalogue.entry import CATALOGUE, read_catalogue
from kvg.catalogue.prepared import PreparedPictures
from kvg.catalogue.questions import Question, choice_questions, names_by_category
from kvg.config.settings import instantiate
from kvg.errors import DataError
from kvg.inference.local import LocalClient
from kvg.inference.request import Client, Request
from kvg.pipeline.settings.probe import ProbeSettings
from kvg.pipeline.settings.project import Project
from kvg.report.mastery import CONFIDENCE, EntityScore, guessing, level_rows, mastery_page
from kvg.text.choices import parse_choice
from kvg.work.files import atomic_write, disk_errors
from kvg.work.job import Job

KNOWLEDGE, RECORD, PAGE = "knowledge.json", "probe.json", "probe.html"


@dataclass(frozen=True)
class ProbeResult:
    """How well a model knows the entities of a project.

    Attributes:
        out: folder of the project.
        scores: score of each entity.
        alone: entities that are the only one of their category, for which there are no distractors.
        lost: reasons why questions were left out.
        usage: summary of the client, in words.
    """

    out: Path
    scores: Sequence[EntityScore]
    alone: Sequence[str]
    lost: Sequence[str]
    usage: str

    def accuracies(self) -> dict[str, float]:
        """Returns the share of correct answers by name; a name in several categories is counted together."""
        pooled: dict[str, list[int]] = {}
        for score in self.scores:
            own = pooled.setdefault(score.entity, [0, 0])
            own[0], own[1] = own[0] + score.right, own[1] + score.num
        return {name: right / num for name, (right, num) in sorted(pooled.items())}

    def record(self) -> dict[str, Any]:
        """Returns the content of ``probe.json`` without the settings."""
        scores = self.scores
        return {
            "entities": len(scores),
            "questions": sum(score.num for score in scores),
            "right": sum(score.right for score in scores),
            "unparsed": sum(score.unparsed for score in scores),
            "unanswered": sum(score.unanswered for score in scores),
            "guessing": [dict(zip(("share", "entities", "level"), row, strict=True)) for row in guessing(scores)],
            "above_guessing": sum(score.chance <= 1 - CONFIDENCE for score in scores),
            "levels": level_rows(scores),
            "scores": [score.record() for score in scores],
        }


class ChoiceRequests:
    """Questions as requests, which can be iterated several times.

    Args:
        questions: all questions.
        pictures: reads their pictures.

    Attributes:
        lost: reasons why questions were left out because their picture cannot be read, by index.
    """

    def __init__(self, questions: Sequence[Question], pictures: PreparedPictures) -> None:
        self.questions, self.pictures = questions, pictures
        self.lost: dict[int, str] = {}

    def __len__(self) -> int:
        """Number of questions, with those whose picture cannot be read."""
        return len(self.questions)

    def __iter__(self) -> Iterator[Request]:
        """Yields a request for each question whose picture can be read."""
        for number, question in enumerate(self.questions):
            if number in self.lost:
                continue
            try:
                image = self.pictures.read(question.entry)
            except DataError as error:
                if error.field == "out":  # an error of the disk, not of the picture
                    raise
                self.lost[number] = str(error)
                continue
            yield Request(f"{number:06d} {question.entry.source}/{question.entry.ref}", question.text, image)

    def sent(self) -> Iterator[Question]:
        """Yields the questions that were sent, after the requests have been iterated."""
        return (question for number, question in enumerate(self.questions) if number not in self.lost)


def probe(project: Project) -> ProbeResult | None:
    """Runs or resumes the probe; writes ``knowledge.json``, ``probe.html`` and ``probe.json``.

    Returns:
        The result; None if it exists already.

    Raises:
        ConfigError: the project file is wrong.
        DataError: the project has not been scanned, there is no question, or the model no longer answers.
    """
    settings, out = project.settings("probe", ProbeSettings), project.out
    client: Client = instantiate(settings.client, "probe.client", Client)
    job = _job(project, settings, client)
    if job.is_complete(out / KNOWLEDGE, out / PAGE):
        return None
    questions, alone = _questions(project, settings)
    sources, max_pixels = project.build_sources(), project.scan.max_pixels
    pictures = PreparedPictures(job.units / "pictures", sources, settings.max_side, max_pixels)
    requests = ChoiceRequests(questions, pictures)
    outcomes = client.ask(requests, lambda _, text: text, job.units / "answers")
    first = next(outcomes, None)  # from here on ``requests.lost`` is complete
    if first is None:
        reason = next(iter(requests.lost.values()), "")
        raise DataError(str(out), "probe", f"no picture can be read; the first: {reason}")
    scores = _scores(requests.sent(), chain([first], outcomes))
    result = ProbeResult(out, scores, alone, list(requests.lost.values()), client.summary())
    job.reopen()
    with disk_errors(out):
        atomic_write(out / KNOWLEDGE, json.dumps(result.accuracies(), indent=1, ensure_ascii=False) + "\n")
        atomic_write(out / PAGE, mastery_page(scores, "What the model knows"))
    job.complete({"settings": asdict(settings), **result.record()})
    return result


def _job(project: Project, settings: ProbeSettings, client: Client) -> Job:
    """Returns the job. A model on a server is identified only by its settings."""
    catalogue = project.out / CATALOGUE
    if not catalogue.is_file():
        raise DataError(str(catalogue), "catalogue", "is missing; run `kvg-data scan` first")
    checksum = hashlib.sha256(catalogue.read_bytes()).hexdigest()
    model = client.identity() if isinstance(client, LocalClient) else ""
    parts = [checksum, project.seed, asdict(settings), model]
    return Job(project.out, RECORD, json.dumps(parts, sort_keys=True, default=str))


def _questions(project: Project, settings: ProbeSettings) -> tuple[list[Question], list[str]]:
    """Returns the questions, and the entities without distractors."""
    entries = list(read_catalogue(project.out / CATALOGUE))
    names, uses = names_by_category(entries), set(settings.uses)
    own = [entry for entry in entries if entry.use in uses]
    questions = list(choice_questions(own, names, project.seed, settings.pictures, settings.questions))
    if not questions:
        reason = f"no category has two entities with pictures for {', '.join(settings.uses)}"
        raise DataError(str(project.out / CATALOGUE), "probe", f"{reason}; add pictures, or choose other uses")
    return questions, sorted({entry.entity for entry in own if len(names[entry.category]) < 2})


def _scores(questions: Iterator[Question], outcomes: Iterator[Any]) -> list[EntityScore]:
    """Returns the score of each entity."""
    scores: dict[tuple[str, str], EntityScore] = {}
    pictures: set[tuple[str, str]] = set()
    for outcome in outcomes:
        question = next(questions)
        entry = question.entry
        guess = 1 / len(question.options)
        score = scores.setdefault((entry.category, entry.entity), EntityScore(entry.category, entry.entity, guess))
        choices = [parse_choice(text, question.options) for text in outcome.values]
        score.num += 1
        score.pictures += (entry.source, entry.ref) not in pictures
        pictures.add((entry.source, entry.ref))
        score.right += choices == [question.answer]
        score.unparsed += choices == [None]
        score.unanswered += not choices
    return list(scores.values())


def print_levels(scores: Sequence[EntityScore]) -> None:
    """Prints the knowledge levels beside the published shares, and the level that guessing gives."""
    table = Table(box=None)
    for title in ("level", "accuracy from", "entities", "share", "published"):
        table.add_column(title, justify="left" if title == "level" else "right")
    for row in level_rows(scores):
        shares = (f"{row['share']:.1%}", f"{row['published']:.2%}")
        table.add_row(row["level"], f"{row['from']:.2f}", str(row["entities"]), *shares)
    console = Console()
    console.print(table)
    for guess, num, level in guessing(scores):
        of = "" if num == len(scores) else f", for {num} of the entities"
        console.print(f"guessing gets {guess:.0%} right{of}: {level}", highlight=False)
    above = sum(score.chance <= 1 - CONFIDENCE for score in scores)
    console.print(f"{above} of {len(scores)} entities are above guessing ({CONFIDENCE:.0%})", highlight=False)
