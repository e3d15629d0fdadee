"""Scans the pictures of a project: opens all, assigns splits, and writes the catalogue and the rejections."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvg.catalogue.entry import CATALOGUE, Entry, Rejection, entry_of, to_line, values_of
from kvg.catalogue.examine import examine
from kvg.catalogue.excluded import excluded_hashes
from kvg.catalogue.listing import Listed, Listing, PictureSource, Remark, Unusable
from kvg.catalogue.project import ScanSettings
from kvg.catalogue.sharing import assign_splits
from kvg.catalogue.suspicions import Boxed, doubtful_forms, spellings
from kvg.errors import DataError
from kvg.pipeline.settings.project import Project
from kvg.work.files import atomic_write, disk_errors
from kvg.work.job import Job

REJECTED, SUMMARY = "rejected.jsonl", "scan.json"
PICTURES_PER_UNIT = 64

Listings = Sequence[tuple[str, Listing]]  # name of the source, and one of its pictures


@dataclass(frozen=True)
class ScanResult:
    """The catalogue of a project.

    Attributes:
        out: folder of the project.
        kept: pictures that can be used.
        rejected: pictures that cannot, each with its reason.
        notes: ``remarks`` and ``suspicions``, in words.
    """

    out: Path
    kept: Sequence[Entry]
    rejected: Sequence[Rejection]
    notes: Mapping[str, Sequence[str]]

    @property
    def num_without_box(self) -> int:
        """Pictures whose box is not known; no composite can use them yet."""
        return sum(entry.box_px is None for entry in self.kept)

    @property
    def never_trained(self) -> Mapping[str, int]:
        """Entities of seen categories by ``val`` and ``test`` that have pictures for it, and none for training."""
        trained = {entry.entity for entry in self.kept if entry.use == "train"}
        others = {(entry.use, entry.entity) for entry in self.kept if entry.split == "seen"}
        return Counter(use for use, entity in others if use in ("val", "test") and entity not in trained)


def scan(project: Project, workers: int = 1, only_if_changed: bool = False) -> ScanResult | None:
    """Scans the sources of a project and writes ``catalogue.jsonl``, ``rejected.jsonl`` and ``scan.json``.

    Args:
        project: see ``kvg.pipeline.settings.project.load_project``.
        workers: processes; the result is the same.
        only_if_changed: do nothing where settings and listed pictures are those of the last scan.

    Returns:
        The result; None if nothing was done.

    Raises:
        DataError: a source cannot be used, or none of its pictures.
    """
    sources = project.build_sources()
    listed = [(name, item) for name, source in sources.items() for item in source.listings()]
    pictures = [(name, item) for name, item in listed if isinstance(item, Listing)]
    job = _job(project, listed, pictures)
    if only_if_changed and job.is_complete(project.out / CATALOGUE):
        return None
    entries, unusable, boxed = _examine_all(job, ExaminePictures(sources, project.scan), pictures, workers)
    suspicions, by_chance = doubtful_forms(boxed)
    doubted = {(rejection.source, rejection.ref) for rejection in by_chance}
    entries = [entry for entry in entries if (entry.source, entry.ref) not in doubted]
    excluded, remarks_of_excluded = excluded_hashes(project.exclude)
    rejected = [Rejection(name, v.ref, v.field, v.reason) for name, v in listed if isinstance(v, Unusable)]
    rejected += [*unusable, *by_chance]
    remarks = [item.text for _, item in listed if isinstance(item, Remark)]
    if not entries:
        raise DataError(str(project.path), "sources", _nothing_left(rejected, remarks, suspicions))
    kept, copies, suspicions_of_copies = assign_splits(entries, project.splits, project.seed, excluded)
    rejected += copies
    suspicions = [*suspicions, *suspicions_of_copies]
    if not kept:
        raise DataError(str(project.path), "sources", _nothing_left(rejected, remarks, suspicions))
    notes = {"remarks": remarks + remarks_of_excluded, "suspicions": [*suspicions, *spellings(kept)]}
    result = ScanResult(project.out, [entry.without_scan_fields() for entry in kept], rejected, notes)
    _write(result, job)
    return result


def _job(project: Project, listed: Sequence[tuple[str, Listed]], pictures: Listings) -> Job:
    """Returns the job of a scan. It depends on settings and names, not on contents of pictures."""
    names = json.dumps([[name, str(item)] for name, item in listed])
    # Units depend on all listed pictures: a new or removed picture changes the units of all others.
    marks = json.dumps([[name, item.ref, str(item)] for name, item in pictures])
    return Job(
        project.out,
        SUMMARY,
        project.identity("seed", "sources", "scan", "splits", "exclude") + names,
        project.identity("sources", "scan") + marks,
    )


@dataclass(frozen=True)
class ExaminePictures:
    """Opens the pictures of a unit.

    Attributes:
        sources: sources by name.
        settings: how pictures are opened.
    """

    sources: Mapping[str, PictureSource]
    settings: ScanSettings

    def __call__(self, unit: Listings) -> list[tuple[dict[str, Any], Sequence[int] | None]]:
        """Returns the record of each picture, and the fitting forms of its box; see ``kvg.catalogue.examine``."""
        examined = (examine(name, self.sources[name], listing, self.settings) for name, listing in unit)
        return [(values_of(picture.record), picture.fitting) for picture in examined]


def _examine_all(
    job: Job, work: ExaminePictures, pictures: Listings, workers: int
) -> tuple[list[Entry], list[Rejection], list[Boxed]]:
    """Returns the usable pictures, the rejected ones, and all pictures with a listed box."""
    units = [pictures[at : at + PICTURES_PER_UNIT] for at in range(0, len(pictures), PICTURES_PER_UNIT)]
    job.run(work, units, workers, "opening pictures")
    entries: list[Entry] = []
    rejected: list[Rejection] = []
    boxed: list[Boxed] = []
    results = (result for unit in job.results(len(units)) for result in unit)
    for (_, listing), (values, fitting) in zip(pictures, results, strict=True):
        record = Rejection(**values) if "reason" in values else entry_of(values)
        if isinstance(record, Rejection):
            rejected.append(record)
        else:
            entries.append(record)
        if fitting is not None:
            boxed.append(Boxed(record, listing.rules.form, fitting))
    return entries, rejected, boxed


def _nothing_left(rejected: Sequence[Rejection], remarks: Sequence[str], suspicions: Sequence[str]) -> str:
    reasons = [f"{first.ref}: {first.field}: {first.reason}" for first in rejected[:1]] or list(remarks[:1])
    parts = [*(f"the first: {reason}" for reason in reasons), *suspicions[:1]]
    return "; ".join(["list no picture that can be used", *parts])


def _write(result: ScanResult, job: Job) -> None:
    counts = {
        name: dict(sorted(Counter(getattr(entry, name) or "-" for entry in result.kept).items()))
        for name in ("source", "category", "split", "use", "box_from", "licence")
    }
    job.reopen()
    with disk_errors(result.out):
        for name, records in ((CATALOGUE, result.kept), (REJECTED, result.rejected)):
            atomic_write(result.out / name, "".join(f"{to_line(record)}\n" for record in records))
    summary = {
        "pictures": len(result.kept),
        "entities": len({entry.entity for entry in result.kept}),
        "rejected": dict(sorted(Counter(r.field for r in result.rejected).items())),
        **counts,
        **result.notes,
    }
    job.complete(summary)  # also removes the units, since a picture may be repaired under its old name
