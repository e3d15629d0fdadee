"""Tables for page, Markdown and terminal, all made from the same data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table as TerminalTable
from rich.text import Text

from kvg.evaluation.figures.estimate import Estimate
from kvg.report.render import render

NONE: Final = "–"


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
        text: the figure.
        small: lines below the figure, or text in brackets after it.
        kind: ``good``, ``bad``, or '' for neither.
        colour: CSS colour of a square before the text; '' for none.
    """

    text: str
    small: str = ""
    kind: str = ""
    colour: str = ""


Row = Sequence[Cell | str]


@dataclass(frozen=True)
class FigureTable:
    """A table.

    Attributes:
        heads: of the columns.
        rows: each with one cell per column, or with a single cell, which is a heading for the rows below.
        title: '' for none.
        note: explanation of the figures.
        texts: number of leading columns that hold text.
        folded: the page shows the table when its title is clicked.
    """

    heads: Sequence[Cell | str]
    rows: Sequence[Row]
    title: str = ""
    note: str = ""
    texts: int = 1
    folded: bool = False


def share(estimate: Estimate | None) -> Cell:
    """A share in percent with its interval.

    >>> share(Estimate(n=9, value=0.1234, low=0.1, high=0.25))
    Cell(text='12.3', small='10.0 to 25.0', kind='', colour='')
    """
    if estimate is None:
        return Cell(NONE)
    return Cell(percent(estimate["value"]), f"{percent(estimate['low'])} to {percent(estimate['high'])}")


def change(estimate: Estimate | None, decided: bool | None = None) -> Cell:
    """A difference of shares in points with its interval; green if significantly positive, red if negative.

    Args:
        estimate: None for none.
        decided: whether the difference is significant; by default, whether the interval excludes 0.

    >>> change(Estimate(n=9, value=-0.1234, low=-0.2, high=-0.05))
    Cell(text='-12.3', small='-20.0 to -5.0', kind='bad', colour='')
    """
    if estimate is None:
        return Cell(NONE)
    sure = (estimate["low"] > 0 or estimate["high"] < 0) if decided is None else decided
    kind = "" if not sure else "good" if estimate["value"] > 0 else "bad"
    value, low, high = (
        f"{_rounded(100 * one, 1):+.1f}" for one in (estimate["value"], estimate["low"], estimate["high"])
    )
    return Cell(value, f"{low} to {high}", kind)


def number(estimate: Estimate | None, digits: int = 2) -> Cell:
    """A mean with its interval, in its own unit."""
    if estimate is None:
        return Cell(NONE)
    numbers = (estimate["value"], estimate["low"], estimate["high"])
    value, low, high = (f"{_rounded(one, digits):.{digits}f}" for one in numbers)
    return Cell(value, f"{low} to {high}")


def percent(value: float) -> str:
    """A share as percent with one digit.

    >>> percent(0.1234)
    '12.3'
    """
    return f"{100 * value:.1f}"


def html_table(table: FigureTable) -> Markup:
    """The table in HTML; it scrolls if it is wider than the page."""
    rows = [[_as_cell(cell) for cell in row] for row in table.rows]
    return render("table.jinja", table=table, heads=[_as_cell(cell) for cell in table.heads], rows=rows)


def markdown_table(table: FigureTable, level: int = 3) -> str:
    """The table in Markdown, under a heading of that level."""
    lines = [f"{'#' * level} {markdown_text(table.title)}", ""] if table.title else []
    lines += [markdown_text(table.note), ""] if table.note else []
    heads = [_plain(cell) for cell in table.heads]
    rules = ["---" if n < table.texts else "--:" for n in range(len(heads))]
    lines += [_markdown_row(heads), f"|{'|'.join(rules)}|"]
    for row in table.rows:
        if len(row) == 1:
            lines.append(_markdown_row([f"**{_plain(row[0])}**", *[""] * (len(heads) - 1)], ready=True))
        else:
            lines.append(_markdown_row([_plain(cell) for cell in row]))
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    r"""Escapes a text for Markdown, also within a table.

    >>> print(markdown_text("a|b <b> *c*"))
    a\|b \<b> \*c\*
    """
    return re.sub(r"([\\`*_\[\]<|])", r"\\\1", " ".join(text.split()))


def terminal_table(table: FigureTable, without: str = "") -> TerminalTable:
    """The table for rich; ``without`` names a heading that is skipped with its rows."""
    styles = {"good": "green", "bad": "red", "": ""}
    made = TerminalTable(title=table.title or None, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for n, head in enumerate(table.heads):
        cell = _as_cell(head)
        head_text = Text.assemble(cell.text, ("\n" + cell.small if cell.small else "", "dim"))
        made.add_column(head_text, justify="left" if n < table.texts else "right", overflow="fold")
    part = ""
    for row in table.rows:
        if len(row) == 1:
            part = _as_cell(row[0]).text
        if part and part == without:
            continue
        if len(row) == 1:
            made.add_section()
            made.add_row(Text(part, "bold"))
            continue
        cells = []
        for cell in map(_as_cell, row):
            small = cell.small if re.search("[+-]", cell.small) else cell.small.replace(" to ", "–")
            cells.append(Text.assemble((cell.text, styles[cell.kind]), (f"\n{small}" if small else "", "dim")))
        made.add_row(*cells)
    return made


def _rounded(value: float, digits: int) -> float:
    """The rounded value, without a negative zero."""
    return round(value, digits) + 0.0


def _as_cell(cell: Cell | str) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell


def _plain(raw: Cell | str) -> str:
    cell = _as_cell(raw)
    return f"{cell.text} ({', '.join(cell.small.splitlines())})" if cell.small else cell.text


def _markdown_row(cells: Sequence[str], ready: bool = False) -> str:
    return f"| {' | '.join(cells if ready else map(markdown_text, cells))} |"
