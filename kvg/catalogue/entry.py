"""A picture that can be used, a picture that cannot and why, and the files that hold them line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.types import Box

CATALOGUE = "catalogue.jsonl"  # in a project's folder


@dataclass(frozen=True)
class Entry:
    """A picture that was opened and found usable.

    Attributes:
        source: name of its source in the project.
        ref: see ``kvg.catalogue.listing.Listing``.
        entity: what is on it.
        category: of the entity.
        width: upright, in pixels.
        height: upright, in pixels.
        sha256: of the file, in hexadecimal.
        fingerprint: its ``perceptual_hash``, forty hexadecimal digits.
        box_px: of the entity in pixels of the upright picture; None where none is known yet.
        box_from: ``alpha``, ``given``, the name of the model that found it, or '' where there is no box.
        part: of the published set.
        licence: of the picture.
        split: ``seen`` or ``unseen``.
        use: ``train``, ``val`` or ``test``; '' before pictures are shared out.
    """

    source: str
    ref: str
    entity: str
    category: str
    width: int
    height: int
    sha256: str
    fingerprint: str
    box_px: Box | None = None
    box_from: str = ""
    part: str = ""
    licence: str = ""
    split: str = "seen"
    use: str = ""


@dataclass(frozen=True)
class Rejection:
    """A picture that is not used.

    Attributes:
        source: name of its source in the project.
        ref: as the source names it.
        field: what is at fault.
        reason: and how.
    """

    source: str
    ref: str
    field: str
    reason: str


def values_of(record: Entry | Rejection) -> dict[str, Any]:
    """What is told of a picture; fields that are empty are left out."""
    return {name: value for name, value in asdict(record).items() if value not in (None, "")}


def to_line(record: Entry | Rejection) -> str:
    """JSON in ASCII: names of files need not be valid text."""
    return json.dumps(values_of(record))


def entry_of(values: dict[str, Any]) -> Entry:
    """An entry of what ``values_of`` gave."""
    box = values.get("box_px")
    return Entry(**{**values, "box_px": None if box is None else tuple(box)})


def read_catalogue(path: Path) -> Iterator[Entry]:
    """The entries of a finished catalogue.

    Raises:
        DataError: it is missing, or a line is damaged.
    """
    if not path.is_file():
        raise DataError(str(path), "catalogue", "is missing; run `kvg-data scan` first")
    with path.open(encoding="ascii") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield entry_of(json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path} line {number}", "entry", f"cannot be read ({error}); scan again") from error
