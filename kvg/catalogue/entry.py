"""Entries and rejections of the catalogue, and the JSON lines that hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from kvg.catalogue.listing import PictureSource
from kvg.errors import DataError
from kvg.pictures import read_picture
from kvg.records import json_lines, object_of, parse_json
from kvg.text.names import clean_name
from kvg.types import Box

CATALOGUE = "catalogue.jsonl"  # in a project's folder


@dataclass(frozen=True)
class Entry:
    """A picture that can be used.

    Attributes:
        source: name of its source in the project.
        ref: see ``kvg.catalogue.listing.Listing``.
        entity: name of the object on the picture.
        category: category of the entity.
        width: width of the upright picture, or of the cut if there is one, in pixels.
        height: height of the same, in pixels.
        sha256: checksum of the file, in hexadecimal.
        fingerprint: ``perceptual_hash`` of the picture, forty hexadecimal digits.
        box_px: box of the entity in pixels of the upright picture or of the cut; None if no box is known.
        box_from: origin of the box: ``alpha``, ``given``, ``picture`` (a close-up: the whole picture) or the name of a
            model; '' if there is no box.
        part: part of the published set.
        licence: licence of the picture.
        split: ``seen`` or ``unseen``.
        use: ``train``, ``val`` or ``test``; '' before splits are assigned.
        cut_px: the region of the file's upright picture that is used, in whole pixels; None for the whole picture.
        box_fingerprint: ``perceptual_hash`` of the content of the box. Like the next three, it is set only while splits
            are assigned, and '' otherwise.
        file_fingerprint: ``perceptual_hash`` of the whole picture if the entry is a cut.
        colour_grid: ``colour_grid`` of the picture.
        box_colour_grid: ``colour_grid`` of the content of the box.
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
    cut_px: Box | None = None
    box_fingerprint: str = ""
    file_fingerprint: str = ""
    colour_grid: str = ""
    box_colour_grid: str = ""

    def without_scan_fields(self) -> Entry:
        """Returns the entry without the fields that only the scan needs, as it is written to the catalogue."""
        return replace(self, box_fingerprint="", file_fingerprint="", colour_grid="", box_colour_grid="")


@dataclass(frozen=True)
class Rejection:
    """A picture that is not used.

    Attributes:
        source: name of its source in the project.
        ref: reference of the picture in its source.
        field: field that is wrong.
        reason: what is wrong with the field.
    """

    source: str
    ref: str
    field: str
    reason: str


def values_of(record: Entry | Rejection) -> dict[str, Any]:
    """Returns the fields of a record as JSON values; empty fields of an entry are left out."""
    empty = () if isinstance(record, Rejection) else (None, "")
    return {name: value for name, value in asdict(record).items() if value not in empty}


def to_line(record: Entry | Rejection) -> str:
    """Returns a record as JSON in ASCII, since file names need not be valid text."""
    return json.dumps(values_of(record))


def entry_of(values: Mapping[str, Any]) -> Entry:
    """Builds an entry from the result of ``values_of``; ``clean_name`` is applied to its names.

    Raises:
        TypeError: a field is missing, unknown or mistyped.
        ValueError: a box is not four numbers.
    """
    boxes = {name: _box(values.get(name)) for name in ("box_px", "cut_px")}
    entry = Entry(**{**values, **boxes, **{name: clean_name(values[name]) for name in ("entity", "category")}})
    for name in ("source", "ref", "sha256", "fingerprint", "part", "licence", "split", "use", "box_from"):
        if not isinstance(getattr(entry, name), str):
            raise TypeError(f"{name} is no text")
    if not all(isinstance(side, int) and side > 0 for side in (entry.width, entry.height)):
        raise TypeError("width and height are no sizes")
    return entry


def read_catalogue(path: Path) -> Iterator[Entry]:
    """Yields the entries of a finished catalogue.

    Raises:
        DataError: the file is missing, or a line is damaged.
    """
    if not path.is_file():
        raise DataError(str(path), "catalogue", "is missing; run `kvg-data scan` first")
    for number, line in json_lines(path):
        where = f"{path} line {number}"
        try:
            yield entry_of(object_of(where, "entry", parse_json(line, where)))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(where, "entry", f"cannot be read ({error}); scan again") from error


def open_entry(sources: Mapping[str, PictureSource], entry: Entry, max_pixels: int) -> Image.Image:
    """Opens the picture of an entry: upright, cut to ``cut_px`` if that is set, RGB or RGBA.

    Raises:
        DataError: the picture cannot be read, or its file has changed since the scan.
    """
    if entry.source not in sources:
        raise DataError(entry.ref, "source", f"'{entry.source}' is no source of the project any more; scan again")
    data = sources[entry.source].read(entry.ref)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise DataError(f"{entry.source}: {entry.ref}", "image", "has changed since the scan; scan again")
    image = read_picture(data, entry.ref, max_pixels)
    return image if entry.cut_px is None else cut_out(image, entry.cut_px)


def cut_out(image: Image.Image, region: Box) -> Image.Image:
    """Returns a region of a picture; the region is x1, y1, x2, y2 in whole pixels."""
    x1, y1, x2, y2 = (int(value) for value in region)
    return image.crop((x1, y1, x2, y2))


def _box(raw: Any) -> Box | None:
    if raw is None:
        return None
    x1, y1, x2, y2 = (float(value) for value in raw)
    return x1, y1, x2, y2
