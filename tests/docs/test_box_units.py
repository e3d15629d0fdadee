"""The table of docs/explanation/box_units.md is what the benchmark prints."""

from __future__ import annotations

import re

from tests.benchmarks.box_units import CONVENTIONS, SIZES, read_cases, verdicts

from .pages import ROOT


def test_the_table():
    page = (ROOT / "docs/explanation/box_units.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.count("|") == 6]
    table = {(row[0], row[1]): [re.sub(r"[*]", "", cell) for cell in row[2:]] for row in rows}
    cases = read_cases()
    assert f"{len(cases)}\nhave a box" in page
    for convention in CONVENTIONS:
        for width, height in ((448, 448), (1344, 896)):  # all sizes take ten seconds
            declared, *guesses = verdicts(cases, convention, width, height).values()
            cells = [f"{100 * sum(declared) / len(declared):.1f}"]
            for guess in guesses:
                gained = sum(b and not a for a, b in zip(declared, guess, strict=True))
                lost = sum(a and not b for a, b in zip(declared, guess, strict=True))
                changes = ", ".join([f"+{gained}"] * (gained > 0) + [f"-{lost}"] * (lost > 0))
                cells.append(f"{100 * sum(guess) / len(guess):.1f}" + (f" ({changes})" if changes else ""))
            assert table[convention, f"{width}x{height}"] == cells
    assert len(table) == len(CONVENTIONS) * len(SIZES) + 2  # with head and rule
