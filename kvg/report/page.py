"""The page of a report: findings, tables, charts, failure signatures and cases. It needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kvg.report.gallery_page import Gallery, gallery
from kvg.report.naming import RunStyle
from kvg.report.pair_section import Finding
from kvg.report.render import render_page
from kvg.report.sections import Section
from kvg.report.tables import html_table


@dataclass(frozen=True)
class Contents:
    """All that the page shows.

    Attributes:
        title: headline.
        lead: the sentence under it.
        looks: of the runs, in their order.
        findings: cards of the head.
        sections: figures.
        signatures: failure signatures.
        gallery: cases.
        facts: what stands in the page's foot, by name.
    """

    title: str
    lead: str
    looks: Mapping[str, RunStyle]
    findings: Sequence[Finding] = ()
    sections: Sequence[Section] = ()
    signatures: Sequence[Section] = ()
    gallery: Gallery = field(default_factory=lambda: Gallery([]))
    facts: Mapping[str, str] = field(default_factory=dict)


def page(contents: Contents) -> str:
    """The whole page."""
    return render_page(
        "report.jinja",
        contents.title,
        ("style.css", "report.css"),
        "report.js",
        contents=contents,
        cards=gallery(contents.gallery, contents.looks),
        html_table=html_table,
    )
