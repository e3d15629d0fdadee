"""One table in HTML, in Markdown and in the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from kvg.report.tables import Cell, FigureTable, change, html_table, markdown_table, number, share, terminal_table

TABLE = FigureTable(
    ["", "cases", Cell("mine", colour="red")],
    [
        ["a|b <i>", "12", Cell("66.1", "64.1 to 68.2", "good")],
        ["By category"],
        ["bird", "3", Cell("-1.0", "-2.0 to +0.4\np = 0.12")],
    ],
    title="All & more",
    note="How it is read.",
)


def test_in_markdown():
    assert markdown_table(TABLE) == (
        "### All & more\n\nHow it is read.\n\n"
        "|  | cases | mine |\n|---|--:|--:|\n"
        "| a\\|b \\<i> | 12 | 66.1 (64.1 to 68.2) |\n"
        "| **By category** |  |  |\n"
        "| bird | 3 | -1.0 (-2.0 to +0.4, p = 0.12) |\n"
    )


def test_in_html():
    text = html_table(TABLE)
    assert text.startswith("<h3>All &amp; more</h3><p class=note>How it is read.</p>")
    assert '<td class="words">a|b &lt;i&gt;</td><td>12</td>' in text
    assert '<td class="good"><span class=value>66.1</span><small>64.1 to 68.2</small></td>' in text
    assert '<tr class=part><th colspan="3" scope=rowgroup>By category</th></tr>' in text
    assert "<small>-2.0 to +0.4</small><small>p = 0.12</small>" in text
    folded = html_table(FigureTable(["", "n"], [["a", "1"]], title="More", folded=True))
    assert folded.startswith("<details class=folded><summary>More</summary>")


def test_in_the_terminal():
    def printed(**options):
        console = Console(file=io.StringIO(), width=60)
        console.print(terminal_table(TABLE, **options))
        return console.file.getvalue()

    text = printed()
    assert "64.1–68.2" in text
    assert "-2.0 to +0.4" in text
    assert "bird" in text
    short = printed(without="By category")
    assert "64.1–68.2" in short
    assert "bird" not in short


def test_figures_in_words():
    estimate = {"n": 9, "value": 0.5, "low": 0.25, "high": 0.75}
    assert share(estimate) == Cell("50.0", "25.0 to 75.0")
    assert share(None) == number(None) == change(None) == Cell("–")
    assert change(estimate).kind == "good"
    assert change(estimate, decided=False).kind == ""
    assert change({"n": 9, "value": 0.0, "low": -0.1, "high": 0.1}).kind == ""
    assert number({"n": 9, "value": -0.001, "low": -0.02, "high": 3.0}, 1) == Cell("0.0", "0.0 to 3.0")
