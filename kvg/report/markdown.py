"""The report in Markdown: the tables and verdicts of the page, without charts and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvg.report.sections import Section
from kvg.report.tables import markdown_table, markdown_text


def markdown(title: str, lead: str, sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """The whole text.

    Args:
        title: headline.
        lead: the text below it.
        sections: figures and failure signatures.
        facts: at the end, by name.
    """
    parts = [f"# {markdown_text(title)}\n", f"{markdown_text(lead)}\n"]
    for section in sections:
        parts.append(f"## {markdown_text(section.title)}\n")
        if section.note:
            parts.append(f"{markdown_text(section.note)}\n")
        if section.verdicts:
            lines = (f"- **{markdown_text(v.run.title)}**: {markdown_text(v.text)}" for v in section.verdicts)
            parts.append("\n".join(lines) + "\n")
        parts += [markdown_table(table) for table in section.tables]
    parts.append(" · ".join(f"{markdown_text(name)} {markdown_text(value)}" for name, value in facts.items()) + "\n")
    return "\n".join(parts)
