"""Writes rationales for composites: shards in, shards with rationales out, shard by shard."""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.inference.request import Asker
    from kvg.pipeline.rationalize import Lessons
    from kvg.shards.reader import SamplePart

log = logging.getLogger(__name__)
WRITERS = ("cards", "teacher")
SET_ASIDE = "set_aside.jsonl"  # beside the shards: samples without a usable rationale, each with the reasons
_CODEC = {"class_path": "kvg.text.box_codec.RelativeCodec"}

_given: tuple[Path, int] | None = None  # set once in each process


@dataclass(frozen=True)
class RationaleSettings:
    """Section ``rationalize`` of a project file, and the file that ``--teacher`` names.

    Attributes:
        sets: of the project; None for all.
        writer: ``cards`` (the traits that the objects' notes tell) or ``teacher``.
        teacher: an asker, ``{class_path, init_args}``, such as ``kvg.inference.server.Server``.
        codec: how the teacher writes boxes.
        lesson: what its rationales have to be, see ``kvg.rationales.teacher.LessonSettings``.
        tries: an answer that cannot be used is asked for again until it has been asked for so often.
        min_facts: traits that the note of every object of a sample has at least; other samples are set aside. With 0
            the card writer only names the objects where one of them has no note. Of the card writer alone.
    """

    sets: Sequence[str] | None = None
    writer: str = "cards"
    teacher: Mapping[str, Any] | None = None
    codec: Mapping[str, Any] = field(default_factory=lambda: dict(_CODEC))
    lesson: Mapping[str, Any] = field(default_factory=dict)
    tries: int = 3
    min_facts: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        if self.writer not in WRITERS:
            raise ConfigError("rationalize.writer", f"'{self.writer}' is none of {', '.join(WRITERS)}")
        if self.writer == "teacher" and self.teacher is None:
            remedy = (
                "is missing; add `teacher: "
                "{class_path: kvg.inference.server.Server, init_args: {url: ..., model: ...}}`"
            )
            raise ConfigError("rationalize.teacher", remedy)
        if not isinstance(self.tries, int) or self.tries < 1:
            raise ConfigError("rationalize.tries", f"{self.tries!r} must be at least 1")
        if self.min_facts < 0:
            raise ConfigError("rationalize.min_facts", f"{self.min_facts} must be at least 0")
        if self.min_facts and self.writer != "cards":
            raise ConfigError("rationalize.min_facts", "is a setting of the writer cards; a teacher is not told facts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", nargs="?", help="project file: its `rationalize` section says who writes")
    parser.add_argument("--set", dest="names", action="append", help="only this set of the project; may be repeated")
    parser.add_argument("--in", dest="source", help="instead: folder of shards, or a published file")
    parser.add_argument("--out", help="with --in: folder for the new shards")
    parser.add_argument("--teacher", help="with --in: YAML with `teacher`, and perhaps `codec`, `lesson` and `tries`")
    parser.add_argument("--writer", choices=WRITERS, help="with --in: who writes (cards, or the teacher if given)")
    parser.add_argument("--min-facts", type=int, help="with --in: set samples aside with an object of fewer facts")
    parser.add_argument("--workers", type=int, default=1, help="processes of the card writer (default 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is already there")


def run(args: argparse.Namespace) -> int:
    """Writes the set, or the sets of a project.

    Raises:
        ConfigError: a setting cannot work.
        DataError: the input cannot be used, or no rationale could be written.
    """
    if bool(args.project) == bool(args.source):
        raise ConfigError("project", "give a project file, or --in and --out")
    if args.project:
        return _run_project(args)
    if not args.out:
        raise ConfigError("--out", "is needed with --in")
    from kvg.config.settings import in_file, read_yaml, settings_of
    from kvg.pipeline.project_check import check_rationalize

    told = read_yaml(args.teacher) if args.teacher else {}
    writer = args.writer or ("teacher" if args.teacher else "cards")
    given = {**told, "writer": writer, **({} if args.min_facts is None else {"min_facts": args.min_facts})}
    with in_file(args.teacher or ""):
        settings = settings_of(RationaleSettings, given, "rationalize")
        check_rationalize(settings)
    write_set(Path(args.source), Path(args.out), settings, args.workers, args.overwrite)
    return 0


def _run_project(args: argparse.Namespace) -> int:
    from kvg.catalogue.project import load_project
    from kvg.config.settings import in_file
    from kvg.pipeline.project_check import check_rationalize
    from kvg.pipeline.project_sets import COMPOSITES, RATIONALES, set_names

    project = load_project(args.project)
    settings = project.settings("rationalize", RationaleSettings)
    with in_file(project.path):
        check_rationalize(settings)
    for name in set_names(project, args.names, "rationalize"):
        source, out = project.out / COMPOSITES / name, project.out / RATIONALES / name
        if is_finished(source, out, settings) and not args.overwrite:
            print(f"{out} is there already")
        else:
            write_set(source, out, settings, args.workers, True)
    return 0


def is_finished(source: Path, out: Path, settings: RationaleSettings) -> bool:
    """Whether all rationales of a set are there, written as these settings say of the set as it is."""
    from kvg.shards.manifest import MANIFEST, load_manifest

    if not (out / MANIFEST).is_file():
        return False
    return bool(load_manifest(out).config.get("rationale") == _record(source, settings))


def write_set(source: Path, out: Path, settings: RationaleSettings, workers: int, overwrite: bool) -> None:
    """Writes one set and says so.

    Args:
        source: folder of shards, or a published file.
        out: folder for the new shards, one for each of the source.
        settings: who writes, and what is asked of it.
        workers: processes of the card writer; a teacher is asked by this one.
        overwrite: whether a finished set is replaced.

    Raises:
        ConfigError: a setting cannot work, or a set is there.
        DataError: the input cannot be used, no rationale could be written, or the teacher has gone.
    """
    from kvg.formats.stores import open_store
    from kvg.shards.manifest import ShardEntry
    from kvg.shards.reader import ShardFolder
    from kvg.shards.writer import PATTERN, check_set, clear_set, write_manifest
    from kvg.work.pieces import Pieces, write_whole, writing

    # Settings first: a wrong one must not cost the opening of a large file.
    lessons = _build_lessons(settings) if settings.writer == "teacher" else None
    check_set(out, 1, overwrite)
    store = open_store(source)
    parts, record = store.parts(), _record(source, settings)
    done = Pieces(out / "rationalize.pieces", json.dumps(record, sort_keys=True))
    with writing(out):
        clear_set(out, keep=[PATTERN.format(number) for number in done.finished()])
    if lessons is None:
        done.run(_write_cards, list(enumerate(parts)), workers, f"writing {out}", _start, (out, settings.min_facts))
    else:
        lessons.write(parts, out, done, out / "asked")
    results = list(done.results(len(parts)))
    entries = [ShardEntry(**result["entry"]) for result in results if result["entry"]]
    lost = [entry for result in results for entry in result["lost"]]
    if not entries:
        said = f" ({lost[0]['reasons'][-1]})" if lost else ""
        done.clear()
        raise DataError(str(source), "rationale", f"none could be written{said}; see the messages above")
    before = store.manifest if isinstance(store, ShardFolder) else None
    config = {**(before.config if before else {}), "rationale": record}
    with writing(out):
        if lost:
            write_whole(out / SET_ASIDE, "".join(json.dumps(entry) + "\n" for entry in lost))
        else:
            (out / SET_ASIDE).unlink(missing_ok=True)
        write_manifest(out, entries, [r["counts"] for r in results], before.seed if before else None, config)
    done.clear()
    num = sum(entry.num_samples for entry in entries)
    _tell(out, num, lost, sum(r["num_bad"] for r in results))
    if settings.writer == "cards":
        _warn_of_names_alone(out, num, results)
    if lessons is not None:
        print(lessons.asker.summary())


def _tell(out: Path, num: int, lost: Sequence[Mapping[str, Any]], num_bad: int) -> None:
    bad = f"; {num_bad} bad samples or cut files passed over" if num_bad else ""
    print(f"{num} rationales in {out}{bad}")
    if lost:
        kinds = Counter(str(entry["reasons"][-1]).partition(":")[0] for entry in lost)
        counted = ", ".join(f"{kind} {num}" for kind, num in kinds.most_common())
        print(f"{len(lost)} set aside ({counted}), each with its reasons in {out / SET_ASIDE}")


def _warn_of_names_alone(out: Path, num: int, results: Sequence[Mapping[str, Any]]) -> None:
    """Says how many rationales have no facts to go by, and whose facts are missing."""
    from kvg.rationales.facts import named

    without = sum(result.get("num_undescribed", 0) for result in results)
    if without:
        entities = sum((Counter[str](result["undescribed"]) for result in results), Counter[str]())
        worst = named([f"{name} {times}" for name, times in entities.most_common()])
        log.warning(
            "%s: %d of %d rationales only name the objects, since %d entities have no facts (%s); add them to "
            "compose.facts and compose again, or leave such samples out by min_facts: 1",
            *(out, without, num, len(entities), worst),
        )


def _record(source: Path, settings: RationaleSettings) -> dict[str, Any]:
    """What the result depends on."""
    from kvg.formats.stores import checksums_of
    from kvg.pipeline.project_sets import plain

    named = ["writer"] if settings.writer == "cards" else ["writer", "teacher", "codec", "lesson", "tries"]
    if settings.min_facts:
        named.append("min_facts")
    return {**{name: plain(getattr(settings, name)) for name in named}, "made_of": checksums_of(source)}


def _start(out: Path, min_facts: int) -> None:
    global _given
    _given = out, min_facts


def _write_cards(piece: tuple[int, SamplePart]) -> dict[str, Any]:
    """Writes the rationales of one part as the shard of this number."""
    from kvg.pipeline.rationalize import write_shard
    from kvg.rationales.rationale import CardWriter

    if _given is None:
        raise RuntimeError("the process was not started")
    number, part = piece
    out, min_facts = _given
    return write_shard(out, number, part, CardWriter(min_facts))


def _build_lessons(settings: RationaleSettings) -> Lessons:
    from kvg.config.settings import instantiate, settings_of
    from kvg.pipeline.project_check import ASKER_METHODS
    from kvg.pipeline.rationalize import Lessons
    from kvg.rationales.teacher import LessonSettings

    rules = settings_of(LessonSettings, settings.lesson, "rationalize.lesson")
    codec = instantiate(settings.codec, "rationalize.codec")
    asker: Asker = instantiate(settings.teacher, "rationalize.teacher", ASKER_METHODS)
    return Lessons(asker, codec, rules, settings.tries)
