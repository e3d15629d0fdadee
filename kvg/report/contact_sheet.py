"""A self-contained HTML page of samples: pictures with numbered boxes, questions, rationales, provenance.

The boxes in a rationale are shown as chips in the colour of their box. Hovering over a chip highlights the box and vice
versa, with CSS only: the page has no script.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from kvg.report.render import render_page
from kvg.report.set_figures import COLUMNS
from kvg.shards.schema import full_provenance, image_extension
from kvg.text.box_refs import PLACEHOLDER
from kvg.types import Sample

# Dark enough for white numbers; neighbouring colours are distinguishable for most colour-blind readers.
COLOURS = ("#1f6fb4", "#c2540a", "#18794e", "#8b3fa8", "#a8871c", "#0f7c8a", "#b8326f", "#5b6470")
_PART = re.compile(r"\b(Plan|Look|Compare|Conclusion):")
_SMALL = 320  # pixels of the longer side; smaller pictures are enlarged without smoothing


@dataclass(frozen=True)
class Sheet:
    """The content of the page.

    Attributes:
        title: headline.
        lead: the sentence below it.
        rows: the table, see ``kvg.report.set_figures.COLUMNS``.
        facts: further lines, by name.
        samples: to show.
    """

    title: str
    lead: str
    rows: Sequence[Sequence[str]]
    facts: Mapping[str, str]
    samples: Sequence[Sample]


@dataclass(frozen=True)
class BoxView:
    """A numbered box on the picture of a card, in pixels of the picture."""

    number: int
    entity: str
    colour: str
    is_target: bool
    x: str
    y: str
    width: str
    height: str
    stroke: float
    plate_y: float
    plate_width: float
    plate_height: float
    text_x: float
    text_y: float
    font_size: float


@dataclass(frozen=True)
class CardView:
    """A sample as the page shows it.

    Attributes:
        sample: the sample.
        uri: its picture as a data URI.
        is_small: whether to enlarge the picture without smoothing.
        boxes: of all objects.
        tags: below the question, each with its CSS class.
        rationale: parts of the text, each with the box that follows it; empty for none.
        origin: key and provenance, by name.
    """

    sample: Sample
    uri: str
    is_small: bool
    boxes: Sequence[BoxView]
    tags: Sequence[tuple[str, str]]
    rationale: Sequence[tuple[Markup, BoxView | None]]
    origin: Sequence[tuple[str, str]]

    @property
    def in_drawing_order(self) -> list[BoxView]:
        """The boxes in drawing order: the target is last, so that no other box covers it."""
        return sorted(self.boxes, key=lambda box: box.is_target)


def contact_sheet(sheet: Sheet) -> str:
    """The whole page."""
    most = max((len(sample.objects) for sample in sheet.samples), default=0)
    return render_page(
        "contact_sheet.jinja",
        sheet.title,
        ("style.css", "contact_sheet.css"),
        style=_pairs(most),
        sheet=sheet,
        columns=COLUMNS,
        cards=[_card(sample) for sample in sheet.samples],
    )


def _pairs(most: int) -> str:
    """CSS rules that highlight a box and its chips together, by number."""
    rules = ""
    for n in range(1, most + 1):
        chip, box = f".chip[data-n='{n}']", f".box[data-n='{n}']"
        rules += f".case:has({chip}:is(:hover,:focus)) {box} rect.line{{fill-opacity:.32}}\n"
        rules += f".case:has({box}:hover) {chip}{{outline:2px solid var(--ink);outline-offset:1px}}\n"
    return rules


def _card(sample: Sample) -> CardView:
    kind = {"jpg": "jpeg", "png": "png"}[image_extension(sample.image)]
    boxes = [_box(number, sample) for number in range(len(sample.objects))]
    size = f"{sample.width}×{sample.height}"
    return CardView(
        sample=sample,
        uri=f"data:image/{kind};base64,{base64.b64encode(sample.image).decode()}",
        is_small=max(sample.width, sample.height) < _SMALL,
        boxes=boxes,
        tags=[(sample.category, ""), (sample.split, ""), (sample.knowledge, sample.knowledge), (size, "")],
        rationale=_rationale(sample, boxes),
        origin=[("key", sample.key), *((n, _plain(value)) for n, value in sorted(full_provenance(sample).items()))],
    )


def _box(number: int, sample: Sample) -> BoxView:
    x1, y1, x2, y2 = sample.objects[number].box_px
    unit = max(sample.width, sample.height) / 200  # a card is about 330 pixels wide
    is_target = number == sample.target
    plate_width, plate_height = unit * (16 if is_target else 8.5), unit * 10.5
    top = y1 - plate_height if y1 >= plate_height else y1  # above the box if there is space
    return BoxView(
        number=number + 1,
        entity=sample.objects[number].entity,
        colour=COLOURS[number % len(COLOURS)],
        is_target=is_target,
        x=f"{x1:g}",
        y=f"{y1:g}",
        width=f"{x2 - x1:g}",
        height=f"{y2 - y1:g}",
        stroke=unit * (1.9 if is_target else 1.0),
        plate_y=top,
        plate_width=plate_width,
        plate_height=plate_height,
        text_x=x1 + plate_width / 2,
        text_y=top + plate_height * 0.76,
        font_size=unit * 8,
    )


def _rationale(sample: Sample, boxes: Sequence[BoxView]) -> list[tuple[Markup, BoxView | None]]:
    """Parts of the rationale, each with the box of the placeholder that follows it, whose number is not repeated."""
    if not sample.rationale:
        return []
    parts: list[tuple[Markup, BoxView | None]] = []
    start = 0
    for match in PLACEHOLDER.finditer(sample.rationale):
        if int(match[1]) < len(boxes):
            box = boxes[int(match[1])]
            text = sample.rationale[start : match.start()]
            # Rationales count the objects, "Look: 1 <box:0>", and the chip shows the same number.
            parts.append((_marked(re.sub(rf"(?<!\w){box.number}\s*$", "", text)), box))
            start = match.end()
    return [*parts, (_marked(sample.rationale[start:]), None)]


def _marked(text: str) -> Markup:
    """The escaped text, with the names of the four parts emphasized."""
    return Markup(_PART.sub(r"<em>\1:</em>", str(escape(text))))


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
