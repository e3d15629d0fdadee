"""The section about the runs: prompt modes, parsers, counts, skipped questions and settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from kvg.evaluation.figures.accuracy import Figure
from kvg.evaluation.figures.estimate import Estimate
from kvg.report.results import RunResults
from kvg.report.sections import Looks, Runs, Section, run_cell, run_cells
from kvg.report.tables import NONE, Cell, FigureTable, Row, number, percent

_DEEPEST: Final = 8  # levels of nested settings
_SHOWN_ELSEWHERE: Final = ("bad", "num_bad", "num_cases")
_LONGEST: Final = 90  # characters of a setting that are shown


def runs_section(runs: Runs, looks: Looks, has_curves: bool = True) -> Section:
    """Prompt modes, parsers, counts, skipped questions and settings of the runs.

    Args:
        runs: results by run.
        looks: styles of the runs.
        has_curves: whether there are learning curves; otherwise the note says how to add them.
    """

    def overall(results: RunResults, value: Callable[[Figure], Estimate | None]) -> Estimate | None:
        return next((value(figure) for figure in results["figures"] if figure["by"] == "all"), None)

    rows: list[Row] = []
    for run, results in runs.items():
        facts, record = results["facts"], results["facts"]["record"] or {}
        left_out = record.get("num_bad")
        rows.append(
            [
                run_cell(looks[run]),
                ", ".join(facts["modes"]) or NONE,
                ", ".join(facts["parsers"]) or NONE,
                str(facts["cases"]),
                str(facts["pictures"]),
                number(overall(results, lambda figure: figure["mean_iou"])),
                f"{facts['unparsed']} ({percent(facts['unparsed'] / facts['cases'])}%)",
                str(facts["cut_off"]),
                number(overall(results, lambda figure: figure["mean_tokens"]), 0),
                NONE if left_out is None else str(left_out),
            ]
        )
    heads = [
        "",
        "prompt mode",
        "parser",
        "cases",
        "pictures",
        "mean IoU",
        "unparsed",
        "truncated",
        "tokens",
        "skipped",
    ]
    tables = [FigureTable(heads, rows, texts=3)]
    if any(len(results["facts"]["patterns"]) > 1 for results in runs.values()):
        tables.append(_patterns(runs, looks))
    reasons = [(run, str(why)) for run, r in runs.items() for why in (r["facts"]["record"] or {}).get("bad") or ()]
    if reasons:
        fault_rows: list[Row] = [[run_cell(looks[run]), reason] for run, reason in reasons]
        tables.append(FigureTable(["", "reason"], fault_rows, title="Skipped questions", texts=2))
    if settings := _settings(runs, looks):
        tables.append(settings)
    note = (
        "Unparsed: the parser finds no box or option in the answer, which counts as wrong. Truncated: the answer "
        "reached the length limit. Skipped: the question is unusable and is in no figure."
    )
    if not has_curves:
        note += " There are no learning curves: name the folders of the trainings with --curves NAME=DIR."
    return Section("Runs", note, tables, anchor="runs")


def _patterns(runs: Runs, looks: Looks) -> FigureTable:
    numbers = sorted({int(number) for results in runs.values() for number in results["facts"]["patterns"]})
    rows: list[Row] = [
        [run_cell(looks[run]), *(str(results["facts"]["patterns"].get(str(number), 0)) for number in numbers)]
        for run, results in runs.items()
    ]
    heads = ["", *(f"pattern {number}" if number else "none" for number in numbers)]
    return FigureTable(heads, rows, title="Answers by the parser's pattern")


def _settings(runs: Runs, looks: Looks) -> FigureTable | None:
    """The settings in the runs' predictions.json."""
    settings = {run: dict(_flat(results["facts"]["record"] or {})) for run, results in runs.items()}
    rows: list[Row] = []
    for name in dict.fromkeys(name for own in settings.values() for name in own):
        if name.partition(".")[0] not in _SHOWN_ELSEWHERE:
            rows.append([name, *(own.get(name, NONE) for own in settings.values())])
    if not rows:
        return None
    heads: list[Cell | str] = ["", *run_cells(looks)]
    return FigureTable(heads, rows, title="Settings of the runs", texts=len(heads), folded=True)


def _flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        if isinstance(value, Mapping) and before.count(".") < _DEEPEST:
            yield from _flat(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{before}{name}", text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
