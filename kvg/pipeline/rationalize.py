"""Writes rationales for composites: shards in, shards with rationales out, shard by shard."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvg.config.settings import instantiate, named_class, settings_of
from kvg.errors import ConfigError, DataError
from kvg.formats.stores import checksums_of, open_store
from kvg.pipeline.checks import CLIENT_METHODS, check_codec
from kvg.pipeline.rationale_shards import Teacher, WriteFromCards
from kvg.rationales.facts import named
from kvg.rationales.teacher import RationaleRules
from kvg.shards.job import ShardJob
from kvg.shards.reader import ShardFolder
from kvg.work.files import atomic_write, disk_errors

log = logging.getLogger(__name__)
WRITERS = ("cards", "teacher")
SET_ASIDE = "set_aside.jsonl"  # beside the shards: samples without a usable rationale, each with the reasons
ANSWERS = "asked"  # folder of the teacher's answers, beside the shards
_CODEC = {"class_path": "kvg.text.box_codec.RelativeCodec"}


@dataclass(frozen=True)
class RationaleSettings:
    """Section ``rationalize`` of a project file, and the file that ``--teacher`` names.

    Attributes:
        sets: of the project; None for all.
        writer: ``cards`` (from the traits of the objects) or ``teacher`` (by a big model).
        teacher: a client, ``{class_path, init_args}``, such as ``kvg.inference.server.Server``.
        codec: how the teacher writes boxes.
        rules: what its rationales have to be, see ``kvg.rationales.teacher.RationaleRules``.
        max_attempts: an answer that cannot be used is asked for again until it has been asked for so often.
        min_facts: traits that every object of a sample has at least; other samples are set aside. With 0 the card
            writer only names the objects where one of them has no traits. Of the card writer alone.
    """

    sets: Sequence[str] | None = None
    writer: str = "cards"
    teacher: Mapping[str, Any] | None = None
    codec: Mapping[str, Any] = field(default_factory=lambda: dict(_CODEC))
    rules: Mapping[str, Any] = field(default_factory=dict)
    max_attempts: int = 3
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
        if not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ConfigError("rationalize.max_attempts", f"{self.max_attempts!r} must be at least 1")
        if self.min_facts < 0:
            raise ConfigError("rationalize.min_facts", f"{self.min_facts} must be at least 0")
        if self.min_facts and self.writer != "cards":
            raise ConfigError("rationalize.min_facts", "is a setting of the writer cards; a teacher is not told facts")

    def check_classes(self) -> None:
        """Checks the classes that are named, and their arguments.

        Raises:
            ConfigError: a class or setting does not exist or does not fit.
        """
        settings_of(RationaleRules, self.rules, "rationalize.rules")
        check_codec(self.codec, "rationalize.codec")
        if self.teacher is not None:
            named_class(self.teacher, "rationalize.teacher", CLIENT_METHODS)

    def record(self, source: Path) -> dict[str, Any]:
        """What the result depends on: these settings, and the checksums of the input."""
        names = ["writer"] if self.writer == "cards" else ["writer", "teacher", "codec", "rules", "max_attempts"]
        if self.min_facts:
            names.append("min_facts")
        return {**{name: getattr(self, name) for name in names}, "made_of": checksums_of(source)}


@dataclass(frozen=True)
class RationaleResult:
    """A set with rationales.

    Attributes:
        out: its folder.
        num_samples: samples in it.
        lost: samples that were set aside, each ``{key, entity, reasons}``.
        num_bad: samples and ends of files of the input that could not be read.
        usage: of the teacher, in words; '' without one.
    """

    out: Path
    num_samples: int
    lost: Sequence[Mapping[str, Any]]
    num_bad: int
    usage: str = ""

    def summary(self) -> str:
        """Numbers in words, a line or several."""
        bad = f"; {self.num_bad} bad samples or cut files passed over" if self.num_bad else ""
        lines = [f"{self.num_samples} rationales in {self.out}{bad}"]
        if self.lost:
            kinds = Counter(str(entry["reasons"][-1]).partition(":")[0] for entry in self.lost)
            counted = ", ".join(f"{kind} {num}" for kind, num in kinds.most_common())
            lines.append(f"{len(self.lost)} set aside ({counted}), each with its reasons in {self.out / SET_ASIDE}")
        return "\n".join([*lines, self.usage] if self.usage else lines)


def rationalize(
    source: str | Path, out: str | Path, settings: RationaleSettings, workers: int = 1, overwrite: bool = False
) -> RationaleResult:
    """Writes the rationales of one set; an interrupted one is resumed.

    Args:
        source: folder of shards, or a published file.
        out: folder for the new shards, one for each of the source.
        settings: who writes, and by which rules.
        workers: processes of the card writer; a teacher is asked by this one.
        overwrite: whether a complete set is replaced.

    Raises:
        ConfigError: a setting cannot work, or a set is there.
        DataError: the input cannot be used, no rationale could be written, or the teacher has gone.
    """
    source, out = Path(source), Path(out)
    # Settings first: a wrong one must not cost the opening of a large file.
    teacher = build_teacher(settings) if settings.writer == "teacher" else None
    record = settings.record(source)
    job = _job(out, record)
    job.open(overwrite)
    store = open_store(source)
    parts = store.parts()
    if teacher is None:
        write = WriteFromCards(out, settings.min_facts)
        job.run(write, list(enumerate(parts)), workers, f"writing {out}")
    else:
        teacher.write(parts, job, out / ANSWERS)
    results = list(job.results(len(parts)))
    lost = [entry for result in results for entry in result["lost"]]
    with disk_errors(out):
        if lost:
            atomic_write(out / SET_ASIDE, "".join(json.dumps(entry) + "\n" for entry in lost))
        else:
            (out / SET_ASIDE).unlink(missing_ok=True)
    before = store.manifest if isinstance(store, ShardFolder) else None
    config = {**(before.config if before else {}), "rationale": record}
    num_samples = job.finish(len(parts), before.seed if before else None, config)
    if not num_samples:
        first = f" ({lost[0]['reasons'][-1]})" if lost else ""
        raise DataError(str(source), "rationale", f"none could be written{first}; see the messages above")
    if teacher is None:
        _warn_of_names_alone(out, num_samples, results)
    usage = "" if teacher is None else teacher.client.summary()
    return RationaleResult(out, num_samples, lost, sum(result["num_bad"] for result in results), usage)


def rationalize_job(source: Path, out: Path, settings: RationaleSettings) -> ShardJob:
    """The work of one set.

    Raises:
        DataError: the input cannot be used.
    """
    return _job(out, settings.record(source))


def _job(out: Path, record: Mapping[str, Any]) -> ShardJob:
    return ShardJob(out, "rationalize", json.dumps(record, sort_keys=True))


def build_teacher(settings: RationaleSettings) -> Teacher:
    """Builds the client that the settings name.

    Raises:
        ConfigError: a class or setting does not exist or does not fit.
    """
    rules = settings_of(RationaleRules, settings.rules, "rationalize.rules")
    codec = instantiate(settings.codec, "rationalize.codec")
    client = instantiate(settings.teacher, "rationalize.teacher", CLIENT_METHODS)
    return Teacher(client, codec, rules, settings.max_attempts)


def _warn_of_names_alone(out: Path, num: int, results: Sequence[Mapping[str, Any]]) -> None:
    """Warns of rationales of objects without traits, and names the entities whose facts are missing."""
    without = sum(result["num_undescribed"] for result in results)
    if without:
        entities = sum((Counter[str](result["undescribed"]) for result in results), Counter[str]())
        most = named([f"{name} {times}" for name, times in entities.most_common()])
        log.warning(
            "%s: %d of %d rationales only name the objects, since %d entities have no facts (%s); add them to "
            "compose.facts and compose again, or leave such samples out by min_facts: 1",
            *(out, without, num, len(entities), most),
        )
