"""Asks a grounding model where the entities are on pictures without a box; writes boxes, and pages to review them."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image

    from kvg.catalogue.box_rules import BoxSettings
    from kvg.catalogue.boxing import Finding
    from kvg.catalogue.entry import Entry
    from kvg.catalogue.listing import PictureSource
    from kvg.catalogue.project import Project
    from kvg.inference.request import Asker, Request
    from kvg.text.box_codec import BoxCodec
    from kvg.types import Box

T = TypeVar("T")
SUMMARY = "box.json"
FIRST, SECOND = "box.asked", "box.asked.second"  # folders of answers; they stay, so that rules can be changed freely
QUALITY = 95  # of the JPEG that is sent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", help="project file (YAML) that has been scanned")
    parser.add_argument("--review-only", action="store_true", help="ask nothing; make the pages of review anew")


def run(args: argparse.Namespace) -> int:
    """Finds boxes and makes the pages.

    Raises:
        ConfigError: the project file is wrong.
        DataError: the project has not been scanned, or the model answers no more.
    """
    from kvg.catalogue.box_rules import BoxSettings
    from kvg.catalogue.project import load_project

    project = load_project(args.project)
    settings = project.settings("box", BoxSettings)
    sources = project.build_sources()
    if not args.review_only:
        _find(project, settings, sources)
    _review(project, settings, sources)
    return 0


def _find(project: Project, settings: BoxSettings, sources: Mapping[str, PictureSource]) -> None:
    from kvg.catalogue.box_rules import UNANSWERED
    from kvg.catalogue.boxing import BOXES, PICTURE, read_findings
    from kvg.catalogue.entry import CATALOGUE, read_catalogue
    from kvg.work.pieces import write_whole, writing

    entries = read_catalogue(project.out / CATALOGUE)
    boxless = {(entry.source, entry.ref): entry for entry in entries if entry.box_px is None}
    out, identity = project.out, _identity(settings)
    known = read_findings(out) if _is_made_with(out, identity) else {}
    done = {
        key: found
        for key, found in known.items()
        if found.rule not in (PICTURE, UNANSWERED) and key in boxless and found.is_of(boxless[key])
    }
    asked = [entry for key, entry in boxless.items() if key not in done]
    if asked:
        done.update(((found.source, found.ref), found) for found in _ask_all(asked, project, settings, sources))
    findings = [done[key] for key in boxless]
    refused = dict(sorted(Counter(found.rule for found in findings if found.rule).items()))
    told = {"asked": len(findings), "boxed": len(findings) - sum(refused.values()), "refused": refused}
    with writing(out):
        (out / SUMMARY).unlink(missing_ok=True)  # it must never stand beside boxes that were found otherwise
        write_whole(out / BOXES, "".join(f"{found.line()}\n" for found in findings))
        write_whole(out / SUMMARY, json.dumps({**told, "identity": identity}, indent=1) + "\n")
    if not boxless:
        print("every picture has a box: there is nothing to ask about")
        return
    print(f"{told['asked']} pictures asked about, {told['boxed']} boxed in {out / BOXES}")
    if refused:
        rules = ", ".join(f"{rule} {num}" for rule, num in refused.items())
        print(f"{sum(refused.values())} without a box ({rules}), each with its reason there")


def _ask_all(
    asked: Sequence[Entry], project: Project, settings: BoxSettings, sources: Mapping[str, PictureSource]
) -> Iterator[Finding]:
    """One finding for each picture, in order."""
    from kvg.catalogue.box_rules import model_name
    from kvg.catalogue.boxing import Finding, concluded

    if settings.asker is None:
        said = f"is missing, and {len(asked)} pictures have no box; add `asker: {{class_path: ..., init_args: ...}}`"
        raise ConfigError("box.asker", said)
    first = _asker(settings.asker, settings.codec, settings.question, settings.samples, "asker", "codec")
    second = None
    if settings.second is not None:
        codec, text = settings.second_codec or settings.codec, settings.second_question or settings.question
        second = _asker(settings.second, codec, text, 1, "second", "second_codec")
    opinions = first.opinions(asked, project, settings, sources, project.out / FIRST)
    good = [entry for entry, opinion in zip(asked, opinions, strict=True) if not opinion.rule]
    others: Mapping[int, Opinion] = {}
    if second and good:
        found = second.opinions(good, project, settings, sources, project.out / SECOND)
        others = {id(entry): opinion for entry, opinion in zip(good, found, strict=True)}
    for entry, opinion in zip(asked, opinions, strict=True):
        finding = Finding(entry.source, entry.ref, entry.entity, entry.sha256, box_from=model_name(settings.asker))
        other = others.get(id(entry), Opinion())
        if opinion.rule or other.rule:
            whose = "" if opinion.rule else "second model: "
            rule, reason = opinion.rule or other.rule, opinion.reason or other.reason
            yield replace(finding, rule=rule, reason=f"{whose}{reason}")
        else:
            yield concluded(finding, (*opinion.boxes, *other.boxes), settings)


@dataclass(frozen=True)
class Opinion:
    """What a model says of a picture: boxes, or the rule and the reason why there are none."""

    boxes: tuple[Box, ...] = ()
    rule: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Grounder:
    """A model with its box convention and the question that it is asked."""

    asker: Asker
    codec: BoxCodec
    text: str
    samples: int

    def opinions(
        self,
        entries: Sequence[Entry],
        project: Project,
        settings: BoxSettings,
        sources: Mapping[str, PictureSource],
        work: Path,
    ) -> list[Opinion]:
        """One opinion a picture, in order.

        Raises:
            DataError: the model answers no more.
        """
        from kvg.catalogue.box_rules import named_fault, read_box, sent_size
        from kvg.catalogue.boxing import PICTURE

        questions = Questions(entries, sources, settings.max_pixels, project.scan.max_pixels, self.text, self.samples)
        sizes = {key_of(e): sent_size(e.width, e.height, settings.max_pixels) for e in entries}

        def judge(request: Request, answer: str) -> Box:
            return read_box(answer, sizes[request.key], self.codec, settings)

        said: dict[str, Opinion] = {}
        for outcome in _with_bar(self.asker.ask(questions, judge, work, settings.tries), len(entries)):
            fault = ("", "") if outcome.complete else named_fault(outcome.faults)
            said[outcome.request.key] = Opinion(outcome.values, *fault)
        print(self.asker.summary())
        for key, reason in questions.unread.items():
            said[key] = Opinion((), PICTURE, reason)
        return [said[key_of(entry)] for entry in entries]


@dataclass
class Questions:
    """Requests about pictures, made anew each time they are gone through, so that few are in memory.

    Attributes:
        entries: the pictures.
        sources: that read them.
        max_pixels: of what is sent.
        max_opened: pixels of the largest picture that is opened.
        text: of the question, with blanks.
        samples: answers that are wanted.
        unread: why pictures cannot be asked about, by key; filled while they are gone through.
    """

    entries: Sequence[Entry]
    sources: Mapping[str, PictureSource]
    max_pixels: int
    max_opened: int
    text: str
    samples: int
    unread: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Request]:
        """In the order of the pictures, without those that cannot be read."""
        from kvg.catalogue.box_rules import wording
        from kvg.catalogue.boxing import open_on_white
        from kvg.inference.request import Request

        for entry in self.entries:
            try:
                image = open_on_white(self.sources, entry, self.max_opened)
            except DataError as error:
                self.unread[key_of(entry)] = str(error)
                continue
            text = plain(wording(self.text, entry))
            yield Request(key_of(entry), text, encoded(image, self.max_pixels), self.samples)


def _with_bar(outcomes: Iterator[T], total: int) -> Iterator[T]:
    """The same, with a bar from the first one on: a model of this machine shows its own before."""
    from kvg.work.progress import shown

    for first in outcomes:
        yield from shown(chain([first], outcomes), "boxes", total)


def encoded(image: Image.Image, max_pixels: int) -> bytes:
    """A picture as it is sent: in a size that the model leaves as it is."""
    from PIL import Image

    from kvg.catalogue.box_rules import sent_size

    size = sent_size(*image.size, max_pixels)
    sent = image.resize((size.resized_width, size.resized_height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    file = io.BytesIO()
    sent.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def key_of(entry: Entry) -> str:
    """Names a picture in messages; the checksum keeps "a/b" of source "c" apart from "b" of source "c/a"."""
    return plain(f"{entry.source}/{entry.ref} {entry.sha256[:12]}")


def plain(text: str) -> str:
    """Text that can be sent: names of files may hold bytes that are none."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _asker(asker: Any, codec: Any, text: str, samples: int, name: str, codec_name: str) -> Grounder:
    """Builds the cheap part first, so that a mistake there costs no loading."""
    from kvg.config.settings import instantiate
    from kvg.text.box_codec import BoxCodec

    convention = instantiate(codec, f"box.{codec_name}")
    if not isinstance(convention, BoxCodec):
        raise ConfigError(f"box.{codec_name}", "is no box convention; take one of kvg.text.box_codec")
    built = instantiate(asker, f"box.{name}")
    if not callable(getattr(built, "ask", None)):
        raise ConfigError(f"box.{name}", "is nothing that can be asked; take kvg.inference.server.Server, for instance")
    return Grounder(built, convention, text, samples)


def _identity(settings: BoxSettings) -> str:
    """Checksum of what decides which boxes are found."""
    told = {name: value for name, value in asdict(settings).items() if name != "review"}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode("ascii")).hexdigest()


def _is_made_with(out: Path, identity: str) -> bool:
    from kvg.records import own_record

    return own_record(out / SUMMARY).get("identity") == identity


def _review(project: Project, settings: BoxSettings, sources: Mapping[str, PictureSource]) -> None:
    from kvg.catalogue.box_rules import OWN
    from kvg.catalogue.boxing import Ticks, by_doubt, is_doubtful, open_on_white, with_boxes
    from kvg.catalogue.review_page import Shown, write_pages

    boxed = [pair for pair in with_boxes(project) if pair[0].box_px is not None]
    found = [pair for pair in boxed if pair[0].box_from not in OWN]
    chosen, ticks = boxed if settings.review == "all" or not found else found, Ticks(project.out)
    ordered = by_doubt(chosen, settings)
    shown = [Shown(entry, iou, is_doubtful(entry, iou, settings), entry in ticks) for entry, iou in ordered]
    pages, lost = write_pages(project.out, shown, lambda entry: open_on_white(sources, entry, project.scan.max_pixels))
    which = "of models" if chosen is found else "of all kinds"
    ticked = sum(item.bad for item in shown)
    print(f"{len(shown)} boxes {which} to review, {ticked} of them ticked as bad: open {pages[0]}")
    if len(pages) > 1:
        print(f"and {len(pages) - 1} more pages, to {pages[-1]}")
    if lost:
        print(f"{lost} pictures cannot be opened any more; scan again")
