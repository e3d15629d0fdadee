"""The sections of a report with figures, as tables and charts for page, Markdown and terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from kvg.evaluation.figures.accuracy import Figure, Strength
from kvg.report.charts import ChartGroup, ChartLine, bar_chart, dot_chart, line_chart
from kvg.report.curves import Curve, smooth
from kvg.report.naming import RunStyle
from kvg.report.results import DRAWN_CURVES, REWARD, RunResults, drawn_curves
from kvg.report.tables import NONE, Cell, FigureTable, Row, change, percent, share

Runs = Mapping[str, RunResults]
Looks = Mapping[str, RunStyle]

BY_CATEGORY: Final = "By category"
_HEADINGS: Final = {  # in the order of the table
    "split": "By split",
    "knowledge": "By knowledge of the base model",
    "split and knowledge": "By split and knowledge",
    "level": "By mastery level",
    "exposure": "By exposure in training",
    "set": "By set",
    "category": BY_CATEGORY,
}
_NO_CHARTS: Final = Markup("")
_PART_COLOURS = ("var(--hue3)", "var(--hue1)", "var(--hue2)", "var(--hue4)")


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run; ``kind`` is ``bad`` for a sign, ``good`` for no sign, '' if it is not measurable."""

    run: RunStyle
    text: str
    kind: str


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: heading.
        note: explanation of the figures.
        tables: below the note.
        verdicts: as text, one per run.
        charts: HTML above the tables, for the page only.
        below: HTML below the tables, for the page only.
        anchor: for the page's table of contents.
    """

    title: str
    note: str = ""
    tables: Sequence[FigureTable] = ()
    verdicts: Sequence[Verdict] = ()
    charts: Markup = _NO_CHARTS
    anchor: str = ""
    below: Markup = _NO_CHARTS


def run_cells(looks: Looks) -> list[Cell]:
    """Column heads of the runs."""
    return [Cell(look.title, colour=look.colour) for look in looks.values()]


def accuracy_table(runs: Runs, looks: Looks) -> FigureTable:
    """Accuracy of every group and run, weighted by cases, and the mean over categories."""
    by_group: dict[tuple[str, str], dict[str, Figure]] = {}
    for run, results in runs.items():
        for figure in results["figures"]:
            by_group.setdefault((figure["by"], figure["name"]), {})[run] = figure
    rows: list[Row] = []
    if overall := by_group.get(("all", "all")):
        rows.append(_figure_row("all cases", overall, looks))
        if any(figure["category_mean"] for figure in overall.values()):
            means = [overall[run]["category_mean"] if run in overall else None for run in looks]
            rows.append(["mean of categories", "", *map(share, means)])
    for by, heading in _HEADINGS.items():
        members = [(name, figures) for (kind, name), figures in by_group.items() if kind == by]
        if members:
            rows.append([heading])
            rows += [_figure_row(name, figures, looks) for name, figures in members]
    note = "Accuracy in percent (IoU ≥ 0.5) with its 95% bootstrap interval over pictures; unparsed answers are wrong."
    return FigureTable(["", "cases", *run_cells(looks)], rows, note=note)


def _figure_row(name: str, figures: Mapping[str, Figure], looks: Looks) -> Row:
    counts = list(dict.fromkeys(figures[run]["n"] for run in looks if run in figures))
    cells = [share(figures[run]["accuracy"] if run in figures else None) for run in looks]
    return [name, "–".join(map(str, sorted({counts[0], counts[-1]}))), *cells]


def accuracy_section(runs: Runs, looks: Looks) -> Section | None:
    """The main table, with a bar chart by group and a dot chart by category."""
    if not any(results["figures"] for results in runs.values()):
        return None
    by_groups = groups_of(runs, "split and knowledge")
    groups = by_groups if len(by_groups) > 1 else [*groups_of(runs, "all"), *groups_of(runs, "split")]
    bars = bar_chart([_in_two_lines(group) for group in groups], looks)
    categories = groups_of(runs, "category")
    dots = dot_chart(categories, looks) if len(categories) > 1 else ""
    charts = Markup("").join(Markup(f"<div class=framed>{chart}</div>") for chart in (bars, dots) if chart)
    return Section("Accuracy", tables=[accuracy_table(runs, looks)], charts=charts, anchor="accuracy")


def groups_of(runs: Runs, by: str) -> list[ChartGroup]:
    """Accuracies of the groups of one kind, for a chart."""
    names = dict.fromkeys(f["name"] for r in runs.values() for f in r["figures"] if f["by"] == by)
    return [
        ChartGroup(
            name,
            {
                run: figure["accuracy"]
                for run, results in runs.items()
                for figure in results["figures"]
                if (figure["by"], figure["name"]) == (by, name)
            },
        )
        for name in names
    ]


def _in_two_lines(group: ChartGroup) -> ChartGroup:
    first, _, second = group.name.partition(", ")
    words = {"seen": "seen categories", "unseen": "unseen categories", "all": "all cases"}
    return ChartGroup(words.get(first, first), group.values, f"{second} entities" if second else "")


def choice_section(runs: Runs, looks: Looks) -> Section | None:
    """Multiple-choice questions, as in the paper's table: one column per set, and the average."""
    tables = {run: results["choice"] for run, results in runs.items() if results["choice"]}
    if not tables:
        return None
    sets = list(dict.fromkeys(one["name"] for table in tables.values() if table for one in table["sets"]))
    rows: list[Row] = []
    chances: dict[str, float] = {}
    for run, table in tables.items():
        if table is None:
            continue
        by_set = {one["name"]: one for one in table["sets"]}
        chances |= {name: one["chance"] for name, one in by_set.items()}
        cells = [share(by_set[name]["accuracy"] if name in by_set else None) for name in sets]
        unparsed = sum(one["unparsed"]["value"] * one["n"] for one in table["sets"]) / table["all"]["n"]
        average = [share(table["average"])] if len(sets) > 1 else []
        rows.append([run_cell(looks[run]), *cells, *average, str(table["all"]["n"]), percent(unparsed)])
    guess = [percent(chances[name]) for name in sets]
    if len(sets) > 1:
        guess.append(percent(sum(chances.values()) / len(chances)))
    rows.append(["chance level", *guess, "", ""])
    heads = [
        "",
        *(name or "questions" for name in sets),
        *(["average"] if len(sets) > 1 else []),
        "cases",
        "unparsed %",
    ]
    note = "Fine-grained recognition with several names to choose from. Accuracy in percent with its 95% interval."
    return Section("Multiple-choice questions", note, [FigureTable(heads, rows)], anchor="choice")


def run_cell(look: RunStyle) -> Cell:
    """A run as the first cell of a row."""
    return Cell(look.title, colour=look.colour)


def artifact_section(runs: Runs, looks: Looks) -> Section | None:
    """Accuracy over the strength of each corruption."""
    kinds = sorted({curve["artifact"] for results in runs.values() for curve in results["artifacts"]})
    if not kinds:
        return None
    charts, rows = [], list[Row]()
    strengths = sorted({p["strength"] for r in runs.values() for c in r["artifacts"] for p in c["points"]})
    for kind in kinds:
        lines = []
        rows.append([kind])
        for run, results in runs.items():
            for curve in results["artifacts"]:
                if curve["artifact"] != kind:
                    continue
                points = curve["points"]
                values = [(p["strength"], p["accuracy"]["value"]) for p in points]
                band = [(p["accuracy"]["low"], p["accuracy"]["high"]) for p in points]
                lines.append(ChartLine(looks[run].title, looks[run].colour, values, band))
                rows.append([run_cell(looks[run]), *_strength_cells(points, strengths)])
        charts.append(line_chart(kind, lines, share=True, smoothed=False))
    note = (
        "Accuracy in percent on corrupted pictures by strength (0: clean), with 95% intervals; in the table also the "
        "change from strength 0 on the same questions, in points with its interval."
    )
    heads = ["", *(f"strength {strength}" for strength in strengths)]
    chart = Markup(f"<div class=curves>{''.join(charts)}</div>")
    return Section("Corrupted pictures", note, [FigureTable(heads, rows)], charts=chart, anchor="artifacts")


def _strength_cells(points: Sequence[Strength], strengths: Sequence[int]) -> Iterator[Cell]:
    by_strength = {point["strength"]: point for point in points}
    for strength in strengths:
        if strength not in by_strength:
            yield Cell(NONE)
            continue
        point = by_strength[strength]
        moved = change(point["change"])
        small = share(point["accuracy"]).small
        if point["change"] is not None:
            small = f"{moved.text}\n{moved.small}"
        yield Cell(percent(point["accuracy"]["value"]), small, moved.kind)


def curve_section(curves: Mapping[str, Mapping[str, Curve]], looks: Looks) -> Section | None:
    """Learning curves."""
    chosen = {run: drawn_curves(own) for run, own in curves.items()}
    charts, rows = [], list[Row]()
    for title, tag, is_share in DRAWN_CURVES:
        lines = [ChartLine(looks[run].title, looks[run].colour, own[tag]) for run, own in chosen.items() if tag in own]
        charts.append(line_chart(title, lines, is_share) if lines else "")
    for run, own in chosen.items():
        parts = [tag for tag in own if tag.startswith(REWARD)]
        lines = [
            ChartLine(tag.removeprefix(REWARD), _PART_COLOURS[n % len(_PART_COLOURS)], own[tag])
            for n, tag in enumerate(parts)
        ]
        several = f": {looks[run].title}" if sum("train/reward/total" in other for other in chosen.values()) > 1 else ""
        charts.append(line_chart(f"Reward and its components{several}", lines) if lines else "")
        if own:
            rows.append([looks[run].title])
            rows += [[tag, *_ends(curve)] for tag, curve in own.items()]
    if not rows:
        return None
    note = "Over optimizer steps, in stage 2 over batches of rollouts. Bold: running mean; pale: single values."
    heads = ["curve", "points", "last step", "first", "last"]
    table = FigureTable(heads, rows, title="First and last running means", folded=True)
    drawn_charts = Markup(f"<div class=curves>{''.join(charts)}</div>")
    return Section("Learning curves", note, [table], charts=drawn_charts, anchor="curves")


def _ends(curve: Curve) -> list[str]:
    means = smooth(curve)
    return [str(len(curve)), str(curve[-1][0]), f"{means[0][1]:.4g}", f"{means[-1][1]:.4g}"]
