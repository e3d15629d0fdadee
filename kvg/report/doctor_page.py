"""The page of ``kvg doctor``: checks, conventions, and the answers on their pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kvg.evaluation.diagnostics.box_convention import ConventionFits, ReadingFit
from kvg.evaluation.figures.estimate import Estimate
from kvg.report.pictures import PagePicture, picture_of
from kvg.report.render import render_page
from kvg.types import Box, Sample

Status = Literal["ok", "note", "unknown", "fault", "skipped"]
MARKS: Final[Mapping[Status, str]] = {"ok": "✓", "note": "!", "unknown": "?", "fault": "✗", "skipped": "–"}
_LONGEST: Final = 1500  # characters of an answer that are shown
_MOST_READINGS: Final = 5  # readings in the table, beside the declared one


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        status: ``note`` may be meant so; ``unknown``: the answers do not show it.
        text: the result in words.
        details: examples.
    """

    name: str
    status: Status
    text: str
    details: Sequence[str] = ()

    @property
    def mark(self) -> str:
        """The status as a character."""
        return MARKS[self.status]

    def record(self) -> dict[str, Any]:
        """As JSON data."""
        return {"name": self.name, "status": self.status, "text": self.text, "details": list(self.details)}


@dataclass(frozen=True)
class DoctorCase:
    """An answer on its picture; boxes are in shares of width and height, 0-1.

    Attributes:
        sample: that asked.
        text: the answer.
        declared: its box as declared; None if it has none.
        declared_iou: IoU of that box with the target.
        best: its box under the best convention.
        best_iou: IoU of that box with the target.
    """

    sample: Sample
    text: str
    declared: Box | None
    declared_iou: float
    best: Box | None
    best_iou: float


@dataclass(frozen=True)
class DoctorContents:
    """The content of the page.

    Attributes:
        facts: entries below the headline, by name.
        checks: in order.
        fits: of all conventions.
        cases: answers.
    """

    facts: Mapping[str, str]
    checks: Sequence[Check]
    fits: ConventionFits
    cases: Sequence[DoctorCase]


@dataclass(frozen=True)
class CardView:
    """A case as the page shows it; boxes are ``x, y, width, height`` in pixels of the stored picture."""

    case: DoctorCase
    picture: PagePicture
    others: Sequence[Box]
    truth: Box
    declared: Box | None
    best: Box | None
    text: str


def doctor_page(contents: DoctorContents) -> str:
    """The whole page."""
    num = sum(check.status == "fault" for check in contents.checks)
    differs = contents.fits.is_known and not contents.fits.best.is_declared
    return render_page(
        "doctor.jinja",
        "Before the training",
        ("style.css", "doctor.css"),
        contents=contents,
        verdict=f"{num} fault{'s' if num != 1 else ''}" if num else "no fault",
        num_faults=num,
        readings=_listed(contents.fits),
        cards=[_card(case, differs) for case in contents.cases],
        differs=differs,
        spoken=_spoken,
        percent=_percent,
    )


def _listed(fits: ConventionFits) -> list[ReadingFit]:
    """The best readings and the declared one."""
    return [fit for number, fit in enumerate(fits.fits) if number < _MOST_READINGS or fit.is_declared]


def _card(case: DoctorCase, differs: bool) -> CardView:
    sample = case.sample
    mark = hashlib.sha256(sample.image).hexdigest()[:16]
    others = [_rect(item.box_px) for n, item in enumerate(sample.objects) if n != sample.target]
    return CardView(
        case=case,
        picture=picture_of(sample, mark),
        others=others,
        truth=_rect(sample.box_px),
        declared=_on_picture(case.declared, sample),
        best=_on_picture(case.best, sample) if differs else None,
        text=case.text if len(case.text) <= _LONGEST else f"{case.text[:_LONGEST]}…",
    )


def _on_picture(box: Box | None, sample: Sample) -> Box | None:
    if box is None:
        return None
    x1, y1, x2, y2 = box
    return _rect((x1 * sample.width, y1 * sample.height, x2 * sample.width, y2 * sample.height))


def _rect(box: Box) -> Box:
    x1, y1, x2, y2 = min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])
    return round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)


def _spoken(estimate: Estimate) -> str:
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate['value']:.0f}% ({100 * estimate['low']:.0f} to {100 * estimate['high']:.0f})"
