"""Asks a model what is on single-entity pictures, four names to choose from: how well it knows each entity.

This is the probe behind the knowledge-aware reward (v3, section 4.3 and appendix B.2): ``knowledge.json`` is what
``kvg.rewards.knowledge.KnowledgeReward`` reads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.catalogue.prepared import PreparedPictures
    from kvg.catalogue.project import Project
    from kvg.catalogue.questions import Question
    from kvg.inference.request import Asker, Request
    from kvg.report.mastery import EntityScore

log = logging.getLogger(__name__)
KNOWLEDGE, RECORD, PAGE = "knowledge.json", "probe.json", "probe.html"
WORK = "probe.pieces"  # pictures and answers, until all is done
_SHOWN = 20  # lost pictures that are named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", help="project file (YAML) that has been scanned, with a section `probe`")


@dataclass(frozen=True)
class ProbeSettings:
    """How the model is asked.

    Attributes:
        asker: who answers, ``{class_path, init_args}``.
        uses: pictures that it is asked about: ``train``, ``val``, ``test``.
        pictures: of an entity at most.
        questions: about an entity; where there are fewer pictures they are gone round.
        max_side: in pixels; larger pictures are shrunk.
    """

    asker: Mapping[str, Any] = field(default_factory=dict)
    uses: Sequence[str] = ("train",)
    pictures: int = 50
    questions: int = 50
    max_side: int = 640

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        if not isinstance(self.asker, Mapping) or not self.asker.get("class_path"):
            raise ConfigError("probe.asker", "is missing; add `asker: {class_path: ..., init_args: ...}`")
        if isinstance(self.uses, str) or not self.uses or set(self.uses) - {"train", "val", "test"}:
            raise ConfigError("probe.uses", f"{self.uses} are not some of train, val, test")
        for name, low in (("pictures", 1), ("questions", 1), ("max_side", 28)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ConfigError(f"probe.{name}", f"{value!r} must be a whole number of at least {low}")


class PictureQuestions:
    """Questions as requests, which can be gone through again and again.

    Args:
        questions: all.
        pictures: that they are about.

    Attributes:
        lost: reasons of those whose picture cannot be read, by their places; they are not asked.
    """

    def __init__(self, questions: Sequence[Question], pictures: PreparedPictures) -> None:
        self.questions, self.pictures = questions, pictures
        self.lost: dict[int, str] = {}

    def __iter__(self) -> Iterator[Request]:
        """A request a question."""
        from kvg.inference.request import Request

        for number, question in enumerate(self.questions):
            if number in self.lost:
                continue
            try:
                image = self.pictures.read(question.entry)
            except DataError as error:
                if error.field == "out":  # the disk, not the picture
                    raise
                self.lost[number] = str(error)
                continue
            yield Request(f"{number:06d} {question.entry.source}/{question.entry.ref}", question.text, image)

    def asked(self) -> Iterator[Question]:
        """The questions that were put, once the requests have been gone through."""
        return (question for number, question in enumerate(self.questions) if number not in self.lost)


def run(args: argparse.Namespace) -> int:
    """Asks, and writes how well each entity is known.

    Raises:
        ConfigError: the project file is wrong.
        DataError: the project has not been scanned, nothing can be asked, or the model answers no more.
    """
    from kvg.catalogue.project import load_project
    from kvg.config.settings import instantiate

    project = load_project(args.project)
    settings = project.settings("probe", ProbeSettings)
    asker: Asker = instantiate(settings.asker, "probe.asker", ("ask", "summary"))
    made_of = _made_of(project, settings, asker)
    if _is_done(project.out, made_of):
        print(f"{project.out / RECORD} is as it would be made; nothing to do")
        return 0
    questions = _questions(project, settings)
    scores, lost = _asked(project, settings, asker, questions)
    _write(project.out, scores, made_of, settings)
    shutil.rmtree(project.out / WORK, ignore_errors=True)
    print_levels(scores)
    for reason in list(dict.fromkeys(lost))[:_SHOWN]:
        log.warning("not asked: %s", reason)
    print(f"{len(scores)} entities in {project.out / KNOWLEDGE}, and to look at in {project.out / PAGE}")
    if lost:
        print(f"{len(lost)} questions were not asked, as their pictures cannot be read")
    if unsaid := sum(score.unparsed + score.unanswered for score in scores):
        print(f"{unsaid} of {sum(score.num for score in scores)} answers named no option and count as wrong")
    print(asker.summary())
    return 0


def _questions(project: Project, settings: ProbeSettings) -> list[Question]:
    from kvg.catalogue.entry import CATALOGUE, read_catalogue
    from kvg.catalogue.questions import choice_questions, names_by_category

    entries = list(read_catalogue(project.out / CATALOGUE))
    names, uses = names_by_category(entries), set(settings.uses)
    own = [entry for entry in entries if entry.use in uses]
    questions = list(choice_questions(own, names, project.seed, settings.pictures, settings.questions))
    if not questions:
        reason = f"no category has two entities with pictures for {', '.join(settings.uses)}"
        raise DataError(str(project.out / CATALOGUE), "probe", f"{reason}; add pictures, or choose other uses")
    alone = sorted({entry.entity for entry in own if len(names[entry.category]) < 2})
    if alone:
        print(f"{len(alone)} entities are alone in their category and cannot be asked for: {', '.join(alone[:5])}")
    return questions


def _asked(
    project: Project, settings: ProbeSettings, asker: Asker, questions: Sequence[Question]
) -> tuple[list[EntityScore], list[str]]:
    """Scores by entity, and why questions were not put."""
    from kvg.catalogue.prepared import PreparedPictures
    from kvg.catalogue.questions import parse_choice
    from kvg.report.mastery import EntityScore

    work = project.out / WORK
    sources, max_pixels = project.build_sources(), project.scan.max_pixels
    requests = PictureQuestions(questions, PreparedPictures(work / "pictures", sources, settings.max_side, max_pixels))
    scores: dict[tuple[str, str], EntityScore] = {}
    seen: set[tuple[str, str]] = set()
    outcomes = asker.ask(requests, lambda _, text: text, work / "answers")
    first = next(outcomes, None)  # now it is known which pictures are lost
    if first is None:
        raise DataError(
            str(project.out), "probe", f"no picture can be read; the first: {next(iter(requests.lost.values()), '')}"
        )
    asked = requests.asked()
    for outcome in chain([first], outcomes):
        question = next(asked)
        entry = question.entry
        guess = 1 / len(question.options)
        score = scores.setdefault((entry.category, entry.entity), EntityScore(entry.category, entry.entity, guess))
        chosen = [parse_choice(text, question.options) for text in outcome.values]
        score.num += 1
        score.pictures += (entry.source, entry.ref) not in seen
        seen.add((entry.source, entry.ref))
        score.right += chosen == [question.answer]
        score.unparsed += chosen == [None]
        score.unanswered += not chosen
    return list(scores.values()), list(requests.lost.values())


def _made_of(project: Project, settings: ProbeSettings, asker: Asker) -> str:
    """A checksum of all that the result depends on; of a server's model nothing can be known but its settings."""
    from kvg.catalogue.entry import CATALOGUE
    from kvg.inference.local import LocalModel

    catalogue = project.out / CATALOGUE
    if not catalogue.is_file():
        raise DataError(str(catalogue), "catalogue", "is missing; run `kvg-data scan` first")
    digest = hashlib.sha256(catalogue.read_bytes())
    model = asker.identity() if isinstance(asker, LocalModel) else ""
    digest.update(json.dumps([project.seed, asdict(settings), model], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _is_done(out: Path, made_of: str) -> bool:
    from kvg.records import own_record

    return own_record(out / RECORD).get("made_of") == made_of and (out / KNOWLEDGE).is_file() and (out / PAGE).is_file()


def _write(out: Path, scores: Sequence[EntityScore], made_of: str, settings: ProbeSettings) -> None:
    """Writes the record last: it says that the rest is there."""
    from kvg.report.mastery import CONFIDENCE, guessing, level_rows, mastery_page
    from kvg.work.pieces import write_whole, writing

    pooled: dict[str, list[int]] = {}
    for score in scores:  # one name may stand in several categories
        own = pooled.setdefault(score.entity, [0, 0])
        own[0], own[1] = own[0] + score.right, own[1] + score.num
    record = {
        "made_of": made_of,
        "settings": asdict(settings),
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
    with writing(out):
        (out / RECORD).unlink(missing_ok=True)
        known = {name: right / num for name, (right, num) in sorted(pooled.items())}
        write_whole(out / KNOWLEDGE, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
        write_whole(out / PAGE, mastery_page(scores, "What the model knows"))
        write_whole(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n")


def print_levels(scores: Sequence[EntityScore]) -> None:
    """Prints the levels beside the published shares, and what guessing would look like."""
    from rich.console import Console
    from rich.table import Table

    from kvg.report.mastery import CONFIDENCE, guessing, level_rows

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
