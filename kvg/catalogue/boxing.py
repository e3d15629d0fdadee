"""What came of asking for boxes, and the catalogue as its models and its reviewer have left it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from PIL import Image

from kvg.catalogue.box_rules import BoxSettings
from kvg.catalogue.cutting import overlap
from kvg.catalogue.entry import CATALOGUE, Entry, open_entry, read_catalogue
from kvg.catalogue.listing import PictureSource
from kvg.catalogue.project import Project
from kvg.errors import DataError
from kvg.pictures import as_rgb
from kvg.records import json_lines, object_of, parse_json
from kvg.text.names import clean_name
from kvg.types import Box

T = TypeVar("T")
log = logging.getLogger(__name__)
BOXES: Final = "boxes.jsonl"  # in a project's folder: a line for each picture that was asked about
TICKS: Final = "bad_boxes*.jsonl"  # and what pages of review have saved
DISAGREEMENT, PICTURE = "disagreement", "picture"  # reasons beside those of an answer, see ``kvg.catalogue.box_rules``
DOUBT: Final = 0.25  # room below which a box is doubtful, see ``room``


@dataclass(frozen=True)
class Finding:
    """What came of asking about a picture.

    Attributes:
        source: of the picture.
        ref: see ``Entry``.
        entity: that was asked for.
        sha256: of the file that was asked about.
        box_px: in pixels of the upright picture; None where no box counts.
        box_from: the model.
        iou: least overlap with another opinion; None where there is none.
        rule: why there is no box, one of ``RULES``, ``disagreement``, ``picture``, ``unanswered``; '' where there is.
        reason: and in full.
    """

    source: str
    ref: str
    entity: str
    sha256: str
    box_px: Box | None = None
    box_from: str = ""
    iou: float | None = None
    rule: str = ""
    reason: str = ""

    def line(self) -> str:
        """JSON in ASCII."""
        return json.dumps(asdict(self))

    def is_of(self, entry: Entry) -> bool:
        """Whether it still tells of this picture and this entity."""
        identity = (self.source, self.ref, self.sha256, clean_name(self.entity))
        return identity == (entry.source, entry.ref, entry.sha256, entry.entity)


def concluded(finding: Finding, opinions: Sequence[Box], settings: BoxSettings) -> Finding:
    """What all opinions on a picture come to.

    The first one's box is kept as it is: it is an answer that has passed the rules, which a mean is not, and a weaker
    second model should judge it, not move it.

    Args:
        finding: with neither box nor reason.
        opinions: at least one.
        settings: see there.
    """
    ious = [overlap(opinions[0], other) for other in opinions[1:]]
    lowest = min(ious, default=None)
    if lowest is not None and lowest < settings.agreement:
        reason = f"two boxes overlap by {lowest:.2f} only, less than agreement {settings.agreement:g}"
        return replace(finding, iou=lowest, rule=DISAGREEMENT, reason=reason)
    return replace(finding, iou=lowest, box_px=opinions[0])


def open_on_white(sources: Mapping[str, PictureSource], entry: Entry, max_pixels: int) -> Image.Image:
    """The picture of an entry, in RGB; what shines through is white.

    Raises:
        DataError: see ``open_entry``.
    """
    return as_rgb(open_entry(sources, entry, max_pixels))


def read_findings(folder: Path) -> dict[tuple[str, str], Finding]:
    """What ``kvg-data box`` has written, by source and ref; empty where it has not run.

    Raises:
        DataError: a line is damaged.
    """
    return {(row.source, row.ref): row for row in _lines(folder / BOXES, _finding, "run `kvg-data box` again")}


class Ticks:
    """What reviewers have said, read from all files that their pages have saved.

    A tick belongs to the box that was looked at: another box of the same picture has not been judged.

    Args:
        folder: of the project.

    Raises:
        DataError: a line is damaged.
    """

    def __init__(self, folder: Path) -> None:
        latest: dict[tuple[str, str, Box | None], tuple[float, bool]] = {}
        for path in sorted(folder.glob(TICKS)):
            for key, saved, bad in _lines(path, _tick, "save it from the page of review again"):
                if key not in latest or saved >= latest[key][0]:  # the latest word counts
                    latest[key] = saved, bad
        self._bad = {key for key, (_, bad) in latest.items() if bad}

    def __len__(self) -> int:
        return len(self._bad)

    def __contains__(self, entry: Entry) -> bool:
        """Whether the box of an entry is bad."""
        return any((entry.source, entry.ref, box) in self._bad for box in (entry.box_px, None))


def with_boxes(project: Project) -> Iterator[tuple[Entry, float | None]]:
    """The catalogue with the boxes that models have found; none is left out.

    Yields:
        The entry, and the overlap of the opinions on its box, None where there is one opinion.

    Raises:
        DataError: the catalogue is missing, or a line is damaged.
    """
    findings, changed = read_findings(project.out), list[str]()
    for entry in read_catalogue(project.out / CATALOGUE):
        finding = findings.get((entry.source, entry.ref))
        if entry.box_px is not None or finding is None:
            yield entry, None
        elif not finding.is_of(entry):
            changed.append(entry.ref)
            yield entry, None
        elif finding.box_px is None:
            yield entry, finding.iou
        else:
            yield replace(entry, box_px=finding.box_px, box_from=finding.box_from), finding.iou
    if changed:
        message = f"{len(changed)} pictures have changed since they were asked about, the first: {changed[0]!r}"
        log.warning("%s: %s; run `kvg-data box` again", project.out / BOXES, message)


def boxed_entries(project: Project) -> Iterator[Entry]:
    """The catalogue for all that comes after boxes: with those of models, without the pictures ticked as bad.

    Pictures without a box are among them; one whose file or entity has changed since is, too, and a warning says so.

    Raises:
        DataError: the catalogue is missing, or a line is damaged.
    """
    ticks = Ticks(project.out)
    yield from (entry for entry, _ in with_boxes(project) if entry not in ticks)


def room(entry: Entry, settings: BoxSettings) -> float:
    """How far a box is from what the rules refuse: 1 far, 0 at a limit, less beyond it.

    The least of three: its share of the picture between ``min_area`` and the whole, by orders of magnitude; between
    nothing and ``max_area``, save for cut-outs, which are often cropped; and its aspect between ``max_aspect`` and a
    square, by orders of magnitude.
    """
    if entry.box_px is None:
        return 0.0
    across, down = entry.box_px[2] - entry.box_px[0], entry.box_px[3] - entry.box_px[1]
    share, aspect = across * down / (entry.width * entry.height), max(across, down) / min(across, down)
    return min(
        1 - math.log(share) / math.log(settings.min_area),
        1.0 if entry.box_from == "alpha" else 1 - share / settings.max_area,
        1 - math.log(aspect) / math.log(settings.max_aspect),
    )


def is_doubtful(entry: Entry, iou: float | None, settings: BoxSettings) -> bool:
    """Whether opinions agree no more than half as well as they could, or the box is near what the rules refuse."""
    return (iou is not None and iou < (1 + settings.agreement) / 2) or room(entry, settings) < DOUBT


def by_doubt(boxed: Sequence[tuple[Entry, float | None]], settings: BoxSettings) -> list[tuple[Entry, float | None]]:
    """The most doubtful first: the lowest agreement, then the least room; a box without a second opinion comes last."""

    def doubt(pair: tuple[Entry, float | None]) -> tuple[float, float, str, str]:
        entry, iou = pair
        return (2.0 if iou is None else iou, room(entry, settings), entry.source, entry.ref)

    return sorted(boxed, key=doubt)


def _finding(values: dict[str, Any]) -> Finding:
    for name in ("source", "ref", "entity", "sha256", "box_from", "rule", "reason"):
        if not isinstance(values.get(name, ""), str):
            raise TypeError(f"{name} is no text")
    iou = values.get("iou")
    return Finding(**{**values, "box_px": _box(values["box_px"]), "iou": None if iou is None else float(iou)})


def _tick(values: dict[str, Any]) -> tuple[tuple[str, str, Box | None], float, bool]:
    key = str(values["source"]), str(values["ref"]), _box(values.get("box_px"))
    return key, float(values.get("saved", 0)), bool(values.get("bad", True))


def _box(raw: Any) -> Box | None:
    if raw is None:
        return None
    x1, y1, x2, y2 = (float(value) for value in raw)
    return x1, y1, x2, y2


def _lines(path: Path, parse: Callable[[dict[str, Any]], T], remedy: str) -> Iterator[T]:
    """What the lines of a file hold; nothing where there is no file."""
    if not path.is_file():
        return
    try:
        lines = list(json_lines(path))
    except DataError as error:
        raise DataError(error.where, error.field, f"{error.remedy}; {remedy}") from error
    for number, line in lines:
        where = f"{path} line {number}"
        try:
            value = parse(dict(object_of(where, "box", parse_json(line, where))))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, DataError) as error:
            raise DataError(where, "box", f"cannot be read ({error}); {remedy}") from error
        yield value
