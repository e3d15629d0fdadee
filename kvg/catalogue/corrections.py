"""Boxes that people corrected in another tool: ``corrected_boxes*.jsonl`` in a project's folder.

`kvg-data convert --to corrections` writes such a file. A line belongs to one picture of the catalogue::

    source, ref, sha256, entity   of the entry, see ``kvg.catalogue.entry``
    box_px                        x1, y1, x2, y2 in pixels of the upright picture, or of the cut; null: leave it out
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kvg.catalogue.entry import Entry
from kvg.errors import DataError
from kvg.records import excerpt, json_lines, list_of, number_of, object_of, parse_json
from kvg.shards.schema import check_box
from kvg.text.names import clean_name
from kvg.types import Box

log = logging.getLogger(__name__)
CORRECTIONS: Final = "corrected_boxes*.jsonl"
CORRECTED: Final = "corrected"  # ``Entry.box_from`` of such a box


@dataclass(frozen=True)
class Correction:
    """The corrected box of one picture; None if the picture is to be left out."""

    source: str
    ref: str
    sha256: str
    entity: str
    box_px: Box | None

    def line(self) -> str:
        """Returns the correction as a line of JSON in ASCII, since paths need not be valid text."""
        return json.dumps({**self.__dict__, "box_px": None if self.box_px is None else list(self.box_px)})


class Corrections:
    """All corrections of a project. If a picture has several, the one in the last file counts, by name.

    Args:
        folder: folder of the project.

    Raises:
        DataError: a line is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._lines: dict[tuple[str, str], Correction] = {}
        self._outdated: list[str] = []
        for path in sorted(folder.glob(CORRECTIONS)):
            for number, text in json_lines(path):
                where = f"{path} line {number}"
                line = _correction(where, object_of(where, "correction", parse_json(text, where)))
                self._lines[line.source, line.ref] = line

    def apply(self, entry: Entry) -> Entry | None:
        """Returns an entry with its corrected box; None if the picture is to be left out.

        Raises:
            DataError: the box does not lie inside the picture.
        """
        line = self._lines.get((entry.source, entry.ref))
        if line is None:
            return entry
        if (line.sha256, line.entity) != (entry.sha256, entry.entity):
            self._outdated.append(entry.ref)
            return entry
        if line.box_px is None:
            return None
        check_box(line.box_px, entry.width, entry.height, f"{CORRECTIONS}: {entry.ref}", "box_px")
        return replace(entry, box_px=line.box_px, box_from=CORRECTED)

    def warn(self) -> None:
        """Logs how many corrections were not used because their picture or entity has changed since."""
        if self._outdated:
            message = "%d corrected boxes belong to pictures or entities that have changed since, the first: %r"
            log.warning(message, len(self._outdated), self._outdated[0])


def _correction(where: str, record: Mapping[str, Any]) -> Correction:
    texts = [record.get(name) for name in ("source", "ref", "sha256", "entity")]
    for name, value in zip(("source", "ref", "sha256", "entity"), texts, strict=True):
        if not isinstance(value, str) or not value:
            raise DataError(where, name, f"{excerpt(value)} must be text that is not empty; convert the boxes again")
    source, ref, sha256, entity = map(str, texts)
    if record.get("box_px") is None:
        return Correction(source, ref, sha256, clean_name(entity), None)
    numbers = [number_of(value) for value in list_of(where, "box_px", record["box_px"])]
    if len(numbers) != 4 or None in numbers:
        raise DataError(where, "box_px", f"{excerpt(record['box_px'])} is not four numbers; correct it")
    x1, y1, x2, y2 = (value for value in numbers if value is not None)
    return Correction(source, ref, sha256, clean_name(entity), (x1, y1, x2, y2))
