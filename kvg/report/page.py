"""One HTML page that needs no other file: findings, tables, charts, failure signatures and cases.

The page loads nothing and runs one script, its own: its security policy names that script by checksum, so that the
browser would refuse any other, whatever a model has answered.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from kvg.report.gallery_page import Gallery, gallery
from kvg.report.naming import Look
from kvg.report.sections import Section, Verdict
from kvg.report.tables import html_table

_PARTS = ("style.css", "report.css", "report.js")


@dataclass(frozen=True)
class Contents:
    """All that the page shows.

    Attributes:
        title: headline.
        lead: the sentence under it.
        looks: of the runs, in their order.
        findings: cards, HTML.
        sections: figures.
        signatures: failure signatures.
        gallery: cases.
        facts: what stands in the page's foot, by name.
    """

    title: str
    lead: str
    looks: Mapping[str, Look]
    findings: str = ""
    sections: Sequence[Section] = ()
    signatures: Sequence[Section] = ()
    gallery: Gallery = field(default_factory=lambda: Gallery([]))
    facts: Mapping[str, str] = field(default_factory=dict)


def page(contents: Contents) -> str:
    """The whole page."""
    style, own, script = ((resources.files("kvg.report") / name).read_text("utf-8") for name in _PARTS)
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{checksum}'"
    title, cards = html.escape(contents.title), gallery(contents.gallery, contents.looks)
    parts = [
        f"<header><h1>{title}</h1><p class=soft>{html.escape(contents.lead)}</p>{_key(contents.looks)}</header>",
        contents.findings,
        _contents(contents, bool(cards)),
        *(_section(section, 2) for section in contents.sections),
        _signatures(contents.signatures),
        cards,
        _foot(contents.facts),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}{own}</style></head><body>{''.join(parts)}"
        f"<script>{script}</script></body></html>\n"
    )


def _key(looks: Mapping[str, Look]) -> str:
    if len(looks) < 2:
        return ""
    runs = "".join(
        f"<span><i style='background:{look.colour}'></i>{html.escape(look.title)}</span>" for look in looks.values()
    )
    return f"<p class='key runs'>{runs}</p>"


def _contents(contents: Contents, has_cases: bool) -> str:
    links = [(section.anchor, section.title) for section in contents.sections if section.anchor]
    links += [("signatures", "Failure signatures")] if contents.signatures else []
    links += [("cases", "Cases")] if has_cases else []
    return "<nav>" + "".join(f'<a href="#{anchor}">{html.escape(title)}</a>' for anchor, title in links) + "</nav>"


def _section(section: Section, level: int) -> str:
    note = f"<p class=note>{html.escape(section.note)}</p>" if section.note else ""
    anchor = f' id="{section.anchor}"' if section.anchor else ""
    tables = "".join(html_table(table) for table in section.tables)
    return (
        f"<section{anchor}><h{level}>{html.escape(section.title)}</h{level}>{note}{_verdicts(section.verdicts)}"
        f"{section.charts}{tables}</section>"
    )


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    rows = "".join(
        f'<li class="{verdict.kind or "open"}"><span class=run><i style="background:{verdict.run.colour}"></i>'
        f"{html.escape(verdict.run.title)}</span><span>{html.escape(_sentence(verdict.text))}</span></li>"
        for verdict in verdicts
    )
    return f"<ul class=signs>{rows}</ul>"


def _sentence(text: str) -> str:
    """With a capital letter.

    >>> _sentence("no sign: IoU is high")
    'No sign: IoU is high'
    """
    return text[:1].upper() + text[1:]


def _signatures(sections: Sequence[Section]) -> str:
    if not sections:
        return ""
    inside = "".join(f"<div class=signature>{_section(section, 3)}</div>" for section in sections)
    note = (
        "What goes wrong behind a score, measured. A sign is told where an interval or a test leaves little to luck; "
        "the figures stand below."
    )
    return f"<section id=signatures><h2>Failure signatures</h2><p class=note>{note}</p>{inside}</section>"


def _foot(facts: Mapping[str, str]) -> str:
    return f"<footer>{' · '.join(f'{html.escape(k)} {html.escape(v)}' for k, v in facts.items())}</footer>"
