"""One HTML page of samples that needs no other file: pictures with numbered boxes, questions, rationales, origins.

The boxes of a rationale are chips in the colour of their box. Pointing at a chip lights the box up and the other way
round, by style alone: the page runs no script.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from kvg.report.set_figures import COLUMNS
from kvg.shards.schema import full_provenance, image_extension
from kvg.types import Sample

# Dark enough for white numbers, and told apart by most colour-blind people where they are neighbours.
COLOURS = ("#1f6fb4", "#c2540a", "#18794e", "#8b3fa8", "#a8871c", "#0f7c8a", "#b8326f", "#5b6470")
_PLACEHOLDER = re.compile(r"&lt;box:(\d+)&gt;")
_PART = re.compile(r"\b(Plan|Look|Compare|Conclusion):")
_SMALL = 320  # pixels of the longer side; below, a picture is shown with its pixels


@dataclass(frozen=True)
class Sheet:
    """All that the page shows.

    Attributes:
        title: headline.
        lead: the sentence under it.
        rows: the table, see ``kvg.report.set_figures.COLUMNS``.
        facts: further lines, by name.
        samples: to be shown.
    """

    title: str
    lead: str
    rows: Sequence[Sequence[str]]
    facts: Mapping[str, str]
    samples: Sequence[Sample]


def contact_sheet(sheet: Sheet) -> str:
    """The whole page."""
    style = "".join(
        (resources.files("kvg.report") / name).read_text("utf-8") for name in ("style.css", "contact_sheet.css")
    )
    most = max((len(sample.objects) for sample in sheet.samples), default=0)
    title = html.escape(sheet.title)
    facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in sheet.facts.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}{_pairs(most)}</style></head><body>"
        f"<header><h1>{title}</h1><p class=soft>{html.escape(sheet.lead)}</p></header>"
        f"{_table(sheet.rows)}<dl class=facts>{facts}</dl>"
        f"<main class=gallery>{''.join(_card(sample) for sample in sheet.samples)}</main></body></html>\n"
    )


def _pairs(most: int) -> str:
    """Rules that light up a box and its chips together, by number."""
    rules = ""
    for n in range(1, most + 1):
        chip, box = f".chip[data-n='{n}']", f".box[data-n='{n}']"
        rules += f".case:has({chip}:is(:hover,:focus)) {box} rect.line{{fill-opacity:.32}}\n"
        rules += f".case:has({box}:hover) {chip}{{outline:2px solid var(--ink);outline-offset:1px}}\n"
    return rules


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = ""
    for row in rows:
        kind = " class=sum" if row[0] == "all" and not row[1] else ""
        body += f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
    return (
        "<div class='framed wide'><table class='dense figures'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _card(sample: Sample) -> str:
    tags = [sample.category, sample.split, sample.knowledge, f"{sample.width}×{sample.height}"]
    kinds = ("", "", sample.knowledge, "")
    shown = "".join(
        f"<span class='{kind}'>{html.escape(tag)}</span>" for tag, kind in zip(tags, kinds, strict=True) if tag
    )
    names = ""
    for n, thing in enumerate(sample.objects):
        kind = " class=asked" if n == sample.target else ""
        names += f"<li{kind}>{_chip(n, sample)} {html.escape(thing.entity or 'not named')}</li>"
    asked = f"<span class=soft>Find and give the bounding box of</span> <b>{html.escape(sample.entity)}</b>"
    return (
        f"<figure class=case>{_picture(sample)}<figcaption>"
        f"<p class=ask>{asked}</p><div class=tags>{shown}</div><ol class=names>{names}</ol>"
        f"{_rationale(sample)}{_origin(sample)}</figcaption></figure>"
    )


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _chip(number: int, sample: Sample) -> str:
    kind = "chip asked" if number == sample.target else "chip"
    return f"<span class='{kind}' data-n='{number + 1}' tabindex=0 style='--c:{_colour(number)}'>{number + 1}</span>"


def _picture(sample: Sample) -> str:
    kind = {"jpg": "jpeg", "png": "png"}[image_extension(sample.image)]
    data = base64.b64encode(sample.image).decode()
    small = " class=small" if max(sample.width, sample.height) < _SMALL else ""
    # The box asked for comes last, so that none lies over it.
    order = sorted(range(len(sample.objects)), key=lambda n: n == sample.target)
    return (
        f'<svg viewBox="0 0 {sample.width} {sample.height}" role="img" aria-label="{html.escape(sample.entity)}">'
        f'<image{small} width="{sample.width}" height="{sample.height}" href="data:image/{kind};base64,{data}"/>'
        f"{''.join(_box(n, sample) for n in order)}</svg>"
    )


def _box(number: int, sample: Sample) -> str:
    x1, y1, x2, y2 = sample.objects[number].box_px
    unit = max(sample.width, sample.height) / 200  # a card is about 330 pixels wide
    asked = number == sample.target
    width = unit * (1.9 if asked else 1.0)
    shape = f'x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}"'
    plate_width, plate_height = unit * (16 if asked else 8.5), unit * 10.5
    top = y1 - plate_height if y1 >= plate_height else y1  # over the box, where there is room for it
    label = f"{number + 1} ★" if asked else str(number + 1)
    name = html.escape(f"{number + 1} {sample.objects[number].entity}")
    return (
        f"<g class='box{' asked' if asked else ''}' data-n='{number + 1}' style='--c:{_colour(number)}'>"
        f"<title>{name}</title>"
        f'<rect class="halo" {shape} fill="none" stroke-width="{width * 2:.2f}"/>'
        f'<rect class="line" {shape} stroke-width="{width:.2f}"/>'
        f'<rect class="plate" x="{x1:g}" y="{top:.2f}" width="{plate_width:.2f}" height="{plate_height:.2f}"/>'
        f'<text x="{x1 + plate_width / 2:.2f}" y="{top + plate_height * 0.76:.2f}" font-size="{unit * 8:.2f}" '
        f'text-anchor="middle">{label}</text></g>'
    )


def _rationale(sample: Sample) -> str:
    if not sample.rationale:
        return "<p class='said none'>no rationale</p>"

    def chip(match: re.Match[str]) -> str:
        number = int(match[1])
        return _chip(number, sample) if number < len(sample.objects) else match[0]

    text = _PART.sub(r"<em>\1:</em>", html.escape(sample.rationale))
    return f"<p class=said>{_PLACEHOLDER.sub(chip, text)}</p>"


def _origin(sample: Sample) -> str:
    told = {"key": sample.key, **dict(sorted(full_provenance(sample).items()))}
    rows = "".join(
        f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(_plain(value))}</td></tr>"
        for name, value in told.items()
    )
    return f"<details><summary>{html.escape(sample.key)}</summary><table>{rows}</table></details>"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
