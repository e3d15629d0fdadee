"""Opens every picture of a project's sources; writes what can be used, who may see it, and what cannot and why."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import DataError

if TYPE_CHECKING:
    from kvg.catalogue.entry import Entry, Rejection
    from kvg.catalogue.listing import Listed, Listing, PictureSource
    from kvg.catalogue.project import Project, ScanSettings
    from kvg.catalogue.suspicions import Boxed
    from kvg.work.pieces import Pieces

log = logging.getLogger(__name__)
REJECTED, SUMMARY = "rejected.jsonl", "scan.json"
PIECE = 64  # pictures

_given: tuple[dict[str, PictureSource], ScanSettings] | None = None  # set once in each process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", help="project file (YAML)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the result is the same")
    parser.add_argument("--if-changed", action="store_true", help="only where settings or listed pictures have changed")


def run(args: argparse.Namespace) -> int:
    """Scans.

    Raises:
        ConfigError: the project file is wrong.
        DataError: a source cannot be used, or nothing that it lists can.
    """
    from kvg.catalogue.entry import CATALOGUE, Rejection
    from kvg.catalogue.listing import Listing, Remark, Unusable
    from kvg.catalogue.project import load_project
    from kvg.catalogue.sharing import share_out
    from kvg.catalogue.suspicions import doubtful_forms, spellings

    project = load_project(args.project)
    sources = project.build_sources()
    listed = [(name, thing) for name, source in sources.items() for thing in source.listings()]
    identity = _identity(project, listed)
    if args.if_changed and _is_finished(project.out, identity):
        print(f"{project.out / CATALOGUE} is there already")
        return 0
    rejected = [Rejection(name, v.ref, v.field, v.reason) for name, v in listed if isinstance(v, Unusable)]
    remarks = [thing.text for _, thing in listed if isinstance(thing, Remark)]
    pictures = [(name, thing) for name, thing in listed if isinstance(thing, Listing)]
    entries, unusable, boxed, pieces = _examined(project, sources, pictures, args.workers)
    suspicions, by_chance = doubtful_forms(boxed)
    doubted = {(rejection.source, rejection.ref) for rejection in by_chance}
    entries = [entry for entry in entries if (entry.source, entry.ref) not in doubted]
    forbidden, of_forbidden = _forbidden(project.exclude)
    rejected += [*unusable, *by_chance]
    if not entries:
        raise DataError(str(args.project), "sources", _nothing_left(rejected, remarks, suspicions))
    kept, copies, of_copies = share_out(entries, project.splits, project.seed, forbidden)
    rejected += copies
    if not kept:
        raise DataError(str(args.project), "sources", _nothing_left(rejected, remarks, [*suspicions, *of_copies]))
    notes = {"remarks": remarks + of_forbidden, "suspicions": [*suspicions, *of_copies, *spellings(kept)]}
    _write(project.out, [entry.without_looks() for entry in kept], rejected, notes, identity)
    pieces.clear()  # a picture may be mended under its old name: the next scan looks at all of them again
    _say(f"{len(kept)} pictures of {len({e.entity for e in kept})} entities in {project.out / CATALOGUE}")
    if rejected:
        fields = ", ".join(f"{field} {num}" for field, num in sorted(Counter(r.field for r in rejected).items()))
        _say(f"{len(rejected)} left out ({fields}), each with its reason in {project.out / REJECTED}")
    for kind, lines in notes.items():
        for line in lines:
            _say(f"{kind[:-1]}: {line}")
    return 0


def _nothing_left(rejected: Sequence[Rejection], remarks: Sequence[str], suspicions: Sequence[str]) -> str:
    reasons = [f"{first.ref}: {first.field}: {first.reason}" for first in rejected[:1]] or list(remarks[:1])
    parts = [*(f"the first: {reason}" for reason in reasons), *suspicions[:1]]
    return "; ".join(["list no picture that can be used", *parts])


def _say(text: str) -> None:
    """Prints a line; names of files need not be valid text."""
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _identity(project: Project, listed: Sequence[tuple[str, Listed]]) -> str:
    """Checksum of the settings and of the names of all pictures, but not of their contents."""
    parts = (
        project.identity("seed", "sources", "scan", "splits", "exclude"),
        json.dumps([[n, str(v)] for n, v in listed]),
    )
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _is_finished(out: Path, identity: str) -> bool:
    from kvg.catalogue.entry import CATALOGUE
    from kvg.records import own_record

    return (out / CATALOGUE).is_file() and own_record(out / SUMMARY).get("identity") == identity


def _examined(
    project: Project, sources: dict[str, PictureSource], listed: Sequence[tuple[str, Listing]], workers: int
) -> tuple[list[Entry], list[Rejection], list[Boxed], Pieces]:
    """What can be used, what cannot, all pictures with a box that was told, and the work that it took."""
    from kvg.catalogue.entry import Rejection, entry_of
    from kvg.catalogue.suspicions import Boxed
    from kvg.work.pieces import Pieces

    pieces = [listed[at : at + PIECE] for at in range(0, len(listed), PIECE)]
    # What was listed is part of the work: a picture that has come or gone moves all others.
    identity = project.identity("sources", "scan") + json.dumps([[n, v.ref, str(v)] for n, v in listed])
    done = Pieces(project.out / "scan.pieces", identity)
    done.run(_look, pieces, workers, "opening pictures", _start, (sources, project.scan))
    entries: list[Entry] = []
    rejected: list[Rejection] = []
    boxed: list[Boxed] = []
    results = (result for piece in done.results(len(pieces)) for result in piece)
    for (_, listing), (values, fitting) in zip(listed, results, strict=True):
        record = Rejection(**values) if "reason" in values else entry_of(values)
        if isinstance(record, Rejection):
            rejected.append(record)
        else:
            entries.append(record)
        if fitting is not None:
            boxed.append(Boxed(record, listing.rules.form, fitting))
    return entries, rejected, boxed, done


def _start(sources: dict[str, PictureSource], settings: ScanSettings) -> None:
    global _given
    _given = sources, settings


def _look(piece: Sequence[tuple[str, Listing]]) -> list[tuple[dict[str, Any], Sequence[int] | None]]:
    from kvg.catalogue.entry import values_of
    from kvg.catalogue.examine import examine

    if _given is None:
        raise RuntimeError("the process was not started")
    sources, settings = _given
    found = (examine(n, sources[n], listing, settings.min_side, settings.max_pixels) for n, listing in piece)
    return [(values_of(examined.record), examined.fitting) for examined in found]


def _forbidden(places: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Fingerprints of the pictures that must not be trained on, by name; and what cannot be compared, in words."""
    from kvg.catalogue.hashing import perceptual_hash
    from kvg.pictures import read_picture

    found, remarks = {}, []
    for place in places:
        faults, num_hidden = list[DataError](), 0
        for name, data in _pictures_of(Path(place)):
            if data is None:
                num_hidden += 1
                continue
            try:
                if isinstance(data, DataError):
                    raise data
                found[name] = f"{perceptual_hash(read_picture(data, name)):040x}"
            except DataError as error:
                faults.append(error)
        if num_hidden:
            remarks.append(f"exclude: {num_hidden} hidden or system files of {place} are passed over")
        if faults:
            remarks.append(f"exclude: {len(faults)} pictures of {place} cannot be compared; the first: {faults[0]}")
    return found, remarks


def _pictures_of(place: Path) -> Iterator[tuple[str, bytes | DataError | None]]:
    """Names and files of pictures, or why there is none; None for what is hidden."""
    from kvg.catalogue.tables import Parquet
    from kvg.catalogue.walking import walk

    if place.is_dir():
        walked = walk(place)
        yield from ((str(path), None) for path in walked.hidden)
        yield from ((str(path), DataError(str(path), "folder", "cannot be opened")) for path in walked.closed)
        for path in walked.pictures():
            try:
                yield str(path), path.read_bytes()
            except OSError as error:
                yield str(path), DataError(str(path), "image", f"cannot be opened ({error.strerror})")
    elif place.suffix == ".parquet" and place.is_file():
        yield from Parquet.pictures(place)
    else:
        raise DataError(str(place), "exclude", "is neither a folder nor a parquet file; correct the path")


def _write(
    out: Path,
    kept: Sequence[Entry],
    rejected: Sequence[Rejection],
    notes: Mapping[str, Sequence[str]],
    identity: str,
) -> None:
    from kvg.catalogue.entry import CATALOGUE, to_line
    from kvg.work.pieces import write_whole, writing

    counts = {
        name: dict(sorted(Counter(getattr(entry, name) or "-" for entry in kept).items()))
        for name in ("source", "category", "split", "use", "box_from", "licence")
    }
    summary = {
        "pictures": len(kept),
        "entities": len({entry.entity for entry in kept}),
        "rejected": dict(sorted(Counter(r.field for r in rejected).items())),
        **counts,
        **notes,
        "identity": identity,
    }
    with writing(out):
        for name, records in ((CATALOGUE, kept), (REJECTED, rejected)):
            write_whole(out / name, "".join(f"{to_line(record)}\n" for record in records))
        write_whole(out / SUMMARY, json.dumps(summary, indent=1) + "\n")
