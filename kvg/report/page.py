"""The self-contained page of a report: findings, tables, charts, failure signatures and cases."""

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
    """The content of the page.

    Attributes:
        title: headline.
        lead: the text below it.
        looks: styles of the runs, in order.
        findings: cards at the top.
        sections: figures.
        signatures: failure signatures.
        gallery: cases.
        facts: entries of the footer, by name.
        links: other pages for the menu, by title; addresses as seen from this page.
    """

    title: str
    lead: str
    looks: Mapping[str, RunStyle]
    findings: Sequence[Finding] = ()
    sections: Sequence[Section] = ()
    signatures: Sequence[Section] = ()
    gallery: Gallery = field(default_factory=lambda: Gallery([]))
    facts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def page(contents: Contents) -> str:
    """The whole page."""
    return render_page(
        "report.jinja",
        contents.title,
        ("style.css", "report.css"),
        ("report.js", "rollouts.js"),
        contents=contents,
        cards=gallery(contents.gallery, contents.looks),
        html_table=html_table,
    )
