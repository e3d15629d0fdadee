"""Writes rationales for composites: reads shards, and writes shards with rationales."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvg.config.settings import instantiate
from kvg.errors import DataError
from kvg.formats.stores import checksums_of, open_store
from kvg.inference.request import Client
from kvg.pipeline.rationale_shards import Teacher, WriteFromCards
from kvg.pipeline.settings.rationalize import RationaleSettings
from kvg.pipeline.variant_shards import WriteOwnAnswers, WriteVariant
from kvg.rationales.facts import named
from kvg.rationales.variants import RIGHT
from kvg.shards.job import ShardJob
from kvg.shards.reader import SamplePart, ShardFolder
from kvg.work.files import atomic_write, disk_errors

log = logging.getLogger(__name__)

SET_ASIDE = "set_aside.jsonl"  # samples without a usable rationale, each with the reasons; beside the shards
ANSWERS = "asked"  # folder of the teacher's answers, beside the shards


@dataclass(frozen=True)
class RationaleResult:
    """A set with rationales.

    Attributes:
        out: its folder.
        num_samples: number of samples in it.
        lost: samples that were set aside, each ``{key, entity, reasons}``.
        num_bad: number of bad samples and cut files of the input.
        usage: summary of the teacher's client, in words; '' without a teacher.
    """

    out: Path
    num_samples: int
    lost: Sequence[Mapping[str, Any]]
    num_bad: int
    usage: str = ""

    def summary(self) -> str:
        """Returns the numbers in words, in one or more lines."""
        bad = f"; {self.num_bad} bad samples or cut files skipped" if self.num_bad else ""
        lines = [f"{self.num_samples} rationales in {self.out}{bad}"]
        if self.lost:
            kinds = Counter(str(entry["reasons"][-1]).partition(":")[0] for entry in self.lost)
            counted = ", ".join(f"{kind} {num}" for kind, num in kinds.most_common())
            lines.append(f"{len(self.lost)} set aside ({counted}), each with its reasons in {self.out / SET_ASIDE}")
        return "\n".join([*lines, self.usage] if self.usage else lines)


def rationalize(
    source: str | Path, out: str | Path, settings: RationaleSettings, workers: int = 1, overwrite: bool = False
) -> RationaleResult:
    """Writes the rationales of one set, or resumes an interrupted one.

    Args:
        source: folder of shards, or a published file.
        out: folder for the new shards, one for each of the source.
        settings: writer and rules.
        workers: number of processes of the card writer; requests to a teacher are sent by this process.
        overwrite: whether a complete set is replaced.

    Raises:
        ConfigError: a setting is outside its range, or a set exists.
        DataError: the input cannot be used, no rationale could be written, or the teacher no longer answers.
    """
    source, out = Path(source), Path(out)
    # The teacher is built first, so that a wrong setting fails before a large file is opened.
    teacher = build_teacher(settings) if settings.writer == "teacher" else None
    record = {**settings.record(), "made_of": checksums_of(source)}
    job = _job(out, record)
    job.open(overwrite)
    store = open_store(source)
    parts = store.parts()
    if teacher is None:
        job.run(_writer(out, settings), list(enumerate(parts)), workers, f"writing {out}")
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


def _writer(out: Path, settings: RationaleSettings) -> Callable[[tuple[int, SamplePart]], dict[str, Any]]:
    """Returns the writer of a unit without a teacher."""
    if settings.answers is not None:
        return WriteOwnAnswers(out, Path(settings.answers))
    if settings.variant != RIGHT:
        return WriteVariant(out, settings.variant, settings.seed)
    return WriteFromCards(out, settings.min_facts)


def rationalize_job(source: Path, out: Path, settings: RationaleSettings) -> ShardJob:
    """Returns the job of one set.

    Raises:
        DataError: the input cannot be used.
    """
    return _job(out, {**settings.record(), "made_of": checksums_of(source)})


def _job(out: Path, record: Mapping[str, Any]) -> ShardJob:
    return ShardJob(out, "rationalize", json.dumps(record, sort_keys=True))


def build_teacher(settings: RationaleSettings) -> Teacher:
    """Builds the teacher of the settings.

    Raises:
        ConfigError: a class does not exist, or a setting does not fit it.
    """
    codec = instantiate(settings.codec, "rationalize.codec")
    client = instantiate(settings.teacher, "rationalize.teacher", Client)
    return Teacher(client, codec, settings.rules, settings.max_attempts)


def _warn_of_names_alone(out: Path, num: int, results: Sequence[Mapping[str, Any]]) -> None:
    """Warns about rationales that only name objects, and names the entities without facts."""
    without = sum(result["num_undescribed"] for result in results)
    if without:
        entities = sum((Counter[str](result["undescribed"]) for result in results), Counter[str]())
        most = named([f"{name} {times}" for name, times in entities.most_common()])
        log.warning(
            "%s: %d of %d rationales only name the objects, since %d entities have no facts (%s); add them to "
            "compose.facts and compose again, or leave such samples out by min_facts: 1",
            *(out, without, num, len(entities), most),
        )
