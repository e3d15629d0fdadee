"""Opens every picture of a project's sources; writes what can be used, who may see it, and what cannot and why."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import DataError

if TYPE_CHECKING:
    from kvg.catalogue.entry import Entry, Rejection
    from kvg.catalogue.listing import Listing, PictureSource
    from kvg.catalogue.project import Project, ScanSettings
    from kvg.pieces import Pieces

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
    from kvg.catalogue.entry import CATALOGUE
    from kvg.catalogue.project import load_project
    from kvg.catalogue.sharing import share_out

    project = load_project(args.project)
    sources = project.build_sources()
    listed = [(name, listing) for name, source in sources.items() for listing in source.listings()]
    identity = _identity(project, listed)
    if args.if_changed and _is_finished(project.out, identity):
        print(f"{project.out / CATALOGUE} is there already")
        return 0
    entries, rejected, pieces = _examined(project, sources, listed, args.workers)
    kept, copies = share_out(entries, project.splits, project.seed, _forbidden(project.exclude))
    rejected += copies
    if not kept:
        said = f"; the first: {rejected[0].ref}: {rejected[0].reason}" if rejected else ""
        raise DataError(str(args.project), "sources", f"list no picture that can be used{said}")
    _write(project.out, kept, rejected, identity)
    pieces.clear()  # a picture may be mended under its old name: the next scan looks at all of them again
    print(f"{len(kept)} pictures of {len({e.entity for e in kept})} entities in {project.out / CATALOGUE}")
    if rejected:
        fields = ", ".join(f"{field} {num}" for field, num in sorted(Counter(r.field for r in rejected).items()))
        print(f"{len(rejected)} left out ({fields}), each with its reason in {project.out / REJECTED}")
    return 0


def _identity(project: Project, listed: Sequence[tuple[str, Listing]]) -> str:
    """Checksum of the settings and of the names of all pictures, but not of their contents."""
    parts = (
        project.identity("seed", "sources", "scan", "splits", "exclude"),
        json.dumps([[n, str(v)] for n, v in listed]),
    )
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _is_finished(out: Path, identity: str) -> bool:
    from kvg.catalogue.entry import CATALOGUE

    try:
        known = json.loads((out / SUMMARY).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return (out / CATALOGUE).is_file() and known.get("identity") == identity


def _examined(
    project: Project, sources: dict[str, PictureSource], listed: Sequence[tuple[str, Listing]], workers: int
) -> tuple[list[Entry], list[Rejection], Pieces]:
    from kvg.catalogue.entry import Rejection, entry_of
    from kvg.pieces import Pieces

    pieces = [listed[at : at + PIECE] for at in range(0, len(listed), PIECE)]
    # What was listed is part of the work: a picture that has come or gone moves all others.
    identity = project.identity("sources", "scan") + json.dumps([[n, v.ref, str(v)] for n, v in listed])
    done = Pieces(project.out / "scan.pieces", identity)
    done.run(_look, pieces, workers, "opening pictures", _start, (sources, project.scan))
    entries: list[Entry] = []
    rejected: list[Rejection] = []
    for result in done.results(len(pieces)):
        for values in result:
            if "reason" in values:
                rejected.append(Rejection(**values))
            else:
                entries.append(entry_of(values))
    return entries, rejected, done


def _start(sources: dict[str, PictureSource], settings: ScanSettings) -> None:
    global _given
    _given = sources, settings


def _look(piece: Sequence[tuple[str, Listing]]) -> list[dict[str, Any]]:
    from kvg.catalogue.entry import values_of
    from kvg.catalogue.examine import examine

    if _given is None:
        raise RuntimeError("the process was not started")
    sources, settings = _given
    found = (examine(n, sources[n], listing, settings.min_side, settings.max_pixels) for n, listing in piece)
    return [values_of(record) for record in found]


def _forbidden(places: Sequence[str]) -> dict[str, str]:
    """Fingerprints of the pictures that must not be trained on, by name."""
    from kvg.catalogue.hashing import perceptual_hash
    from kvg.pictures import read_picture

    found = {}
    for place in places:
        for name, data in _pictures_of(Path(place)):
            found[name] = f"{perceptual_hash(read_picture(data, name)):040x}"
    return found


def _pictures_of(place: Path) -> Iterator[tuple[str, bytes]]:
    from kvg.catalogue.folders import PICTURE_SUFFIXES
    from kvg.catalogue.tables import Parquet

    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                yield str(path), path.read_bytes()
    elif place.suffix == ".parquet" and place.is_file():
        yield from ((f"{place}#{row}", data) for row, data in enumerate(Parquet.pictures(place)))
    else:
        raise DataError(str(place), "exclude", "is neither a folder nor a parquet file; correct the path")


def _write(out: Path, kept: Sequence[Entry], rejected: Sequence[Rejection], identity: str) -> None:
    from kvg.catalogue.entry import CATALOGUE, to_line
    from kvg.pieces import write_whole, writing

    counts = {
        name: dict(sorted(Counter(getattr(entry, name) or "-" for entry in kept).items()))
        for name in ("source", "category", "split", "use", "box_from", "licence")
    }
    summary = {
        "pictures": len(kept),
        "entities": len({entry.entity for entry in kept}),
        "rejected": dict(sorted(Counter(r.field for r in rejected).items())),
        **counts,
        "identity": identity,
    }
    with writing(out):
        for name, records in ((CATALOGUE, kept), (REJECTED, rejected)):
            write_whole(out / name, "".join(f"{to_line(record)}\n" for record in records))
        write_whole(out / SUMMARY, json.dumps(summary, indent=1) + "\n")
