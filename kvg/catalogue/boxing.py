"""Results of the box command, and the catalogue with the boxes of models and the verdicts of reviewers."""

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
from kvg.catalogue.corrections import Corrections
from kvg.catalogue.cutting import overlap
from kvg.catalogue.entry import CATALOGUE, Entry, open_entry, read_catalogue
from kvg.catalogue.listing import PictureSource
from kvg.catalogue.project import CatalogueProject
from kvg.errors import DataError
from kvg.pictures import as_rgb
from kvg.records import json_lines, object_of, parse_json
from kvg.text.names import clean_name
from kvg.types import Box

T = TypeVar("T")
log = logging.getLogger(__name__)
BOXES: Final = "boxes.jsonl"  # in a project's folder: one line a picture
TICKS: Final = "bad_boxes*.jsonl"  # files that review pages have saved
DISAGREEMENT, PICTURE = "disagreement", "picture"  # reasons beside those of an answer, see ``kvg.catalogue.box_rules``
DOUBT: Final = 0.25  # a box is doubtful if its ``rule_margin`` is below this


@dataclass(frozen=True)
class Finding:
    """The box that models give for one picture, or the reason why there is none.

    Attributes:
        source: source of the picture.
        ref: see ``Entry``.
        entity: entity in the question.
        sha256: checksum of the picture's file.
        box_px: box in pixels of the upright picture; None if no box is accepted.
        box_from: name of the model.
        iou: lowest IoU of the box with another answer; None if there is only one answer.
        rule: why there is no box: one of ``RULES``, ``disagreement``, ``picture`` or ``unanswered``; else ''.
        reason: the same in words.
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
        """Returns the finding as a line of JSON in ASCII."""
        return json.dumps(asdict(self))

    def is_of(self, entry: Entry) -> bool:
        """Returns whether the finding belongs to this entry: same file and same entity."""
        identity = (self.source, self.ref, self.sha256, clean_name(self.entity))
        return identity == (entry.source, entry.ref, entry.sha256, entry.entity)


def conclude(finding: Finding, opinions: Sequence[Box], settings: BoxSettings) -> Finding:
    """Accepts or rejects the box of a picture by the agreement of all answers.

    The accepted box is the first one, unchanged. It has passed the rules; a mean of boxes has not. And a weaker
    second model should confirm the box, not move it.

    Args:
        finding: finding without box and reason.
        opinions: the boxes of all answers, at least one.
        settings: the least agreement.
    """
    ious = [overlap(opinions[0], other) for other in opinions[1:]]
    lowest = min(ious, default=None)
    if lowest is not None and lowest < settings.agreement:
        reason = f"two boxes overlap by {lowest:.2f} only, less than agreement {settings.agreement:g}"
        return replace(finding, iou=lowest, rule=DISAGREEMENT, reason=reason)
    return replace(finding, iou=lowest, box_px=opinions[0])


def open_on_white(sources: Mapping[str, PictureSource], entry: Entry, max_pixels: int) -> Image.Image:
    """Opens the picture of an entry in RGB; transparent parts become white.

    Raises:
        DataError: see ``open_entry``.
    """
    return as_rgb(open_entry(sources, entry, max_pixels))


def read_findings(folder: Path) -> dict[tuple[str, str], Finding]:
    """Reads the results of ``kvg-data box``, by source and ref; empty if the command has not run.

    Raises:
        DataError: a line is damaged.
    """
    return {(row.source, row.ref): row for row in _lines(folder / BOXES, _finding, "run `kvg-data box` again")}


class Ticks:
    """The verdicts of reviewers, from all files that review pages have saved.

    A verdict belongs to the box that the page showed. Another box of the same picture has no verdict.

    Args:
        folder: folder of the project.

    Raises:
        DataError: a line is damaged.
    """

    def __init__(self, folder: Path) -> None:
        latest: dict[tuple[str, str, Box | None], tuple[float, bool]] = {}
        for path in sorted(folder.glob(TICKS)):
            for key, saved, bad in _lines(path, _tick, "save it from the page of review again"):
                if key not in latest or saved >= latest[key][0]:  # the latest verdict counts
                    latest[key] = saved, bad
        self._bad = {key for key, (_, bad) in latest.items() if bad}

    def __len__(self) -> int:
        return len(self._bad)

    def __contains__(self, entry: Entry) -> bool:
        """Returns whether a reviewer marked the box of an entry as bad."""
        return any((entry.source, entry.ref, box) in self._bad for box in (entry.box_px, None))


def with_boxes(project: CatalogueProject) -> Iterator[tuple[Entry, float | None]]:
    """Reads the catalogue, adds the boxes of models and replaces boxes that people corrected.

    Pictures that a correction leaves out are not listed.

    Yields:
        The entry, and the lowest IoU of the answers about its box; None if there is one answer.

    Raises:
        DataError: the catalogue is missing, or a line is damaged.
    """
    findings, changed, corrections = read_findings(project.out), list[str](), Corrections(project.out)
    for listed in read_catalogue(project.out / CATALOGUE):
        entry = corrections.apply(listed)
        if entry is None:
            continue
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
    corrections.warn()
    if changed:
        message = f"{len(changed)} pictures have changed since their boxes were made, the first: {changed[0]!r}"
        log.warning("%s: %s; run `kvg-data box` again", project.out / BOXES, message)


def boxed_entries(project: CatalogueProject) -> Iterator[Entry]:
    """Reads the catalogue for the steps after boxing: adds boxes of models, leaves out pictures with a box marked bad.

    Pictures without a box are included. A box is not used, with a warning, if its file or entity has changed since.

    Raises:
        DataError: the catalogue is missing, or a line is damaged.
    """
    ticks = Ticks(project.out)
    yield from (entry for entry, _ in with_boxes(project) if entry not in ticks)


def rule_margin(entry: Entry, settings: BoxSettings) -> float:
    """Returns the distance of a box from the limits of the rules: 1 is far, 0 is at a limit, below 0 is beyond it.

    It is the minimum of three values: the box's share of the picture on a log scale, from ``min_area`` (0) to the whole
    picture (1); its share on a linear scale, from ``max_area`` (0) to no area (1); its aspect on a log scale, from
    ``max_aspect`` (0) to a square (1). The second is 1 for cut-outs, since these are often cropped.
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
    """Returns whether the IoU is in the lower half of the accepted range, or the box is near a limit of the rules."""
    return (iou is not None and iou < (1 + settings.agreement) / 2) or rule_margin(entry, settings) < DOUBT


def by_doubt(boxed: Sequence[tuple[Entry, float | None]], settings: BoxSettings) -> list[tuple[Entry, float | None]]:
    """Sorts by lowest IoU, then by smallest distance from the rules; boxes with one answer come last."""

    def doubt(pair: tuple[Entry, float | None]) -> tuple[float, float, str, str]:
        entry, iou = pair
        return (2.0 if iou is None else iou, rule_margin(entry, settings), entry.source, entry.ref)

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
    """Parses the lines of a file; yields nothing if there is no file."""
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
