"""A comparison of runs as sentences and tables, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvg.evaluation.comparison.matching import ALL, BOTH, MEAN
from kvg.evaluation.comparison.runs import Accuracy, Comparison, Difference
from kvg.report.pairs import in_words, p_value
from kvg.report.tables import NONE, Cell, FigureTable, Row, change, markdown_table, markdown_text, percent, share

_HEADINGS: Final = {
    "split": "By split",
    "category": "By category",
    "knowledge": "By knowledge of the base model",
    BOTH: "By split and knowledge",
    MEAN: "Mean of categories",
}


def findings(comparison: Comparison) -> list[str]:
    """One sentence per pair of runs on all cases of a set: the difference, its p-value and its significance."""
    several = len({row["set"] for row in comparison.differences}) > 1
    return [
        f"{row['set'] + ': ' if several else ''}{row['after']} against {row['before']}: {in_words(row)}"
        for row in comparison.differences
        if row["by"] == ALL
    ]


def comparison_tables(comparison: Comparison) -> list[FigureTable]:
    """Accuracies by group; single seeds, if a setting has several; and the differences of each pair of runs."""
    tables = [_accuracies(comparison)]
    if max(comparison.runs.values()) > 1:
        tables.append(_seeds(comparison))
    pairs = list(dict.fromkeys((row["before"], row["after"]) for row in comparison.differences))
    return tables + [_pair(comparison, before, after) for before, after in pairs]


def comparison_markdown(comparison: Comparison, title: str = "Comparison") -> str:
    """The comparison in Markdown."""
    lines = [f"# {title}", ""]
    lines += [f"- {markdown_text(line)}" for line in findings(comparison)]
    lines += [f"- Note: {markdown_text(line)}." for line in comparison.notes]
    return "\n".join([*lines, "", *(markdown_table(table, 2) for table in comparison_tables(comparison))])


def _accuracies(comparison: Comparison) -> FigureTable:
    by_group: dict[tuple[str, str, str], dict[str, Accuracy]] = {}
    for row in comparison.accuracies:
        by_group.setdefault((row["set"], row["by"], row["name"]), {})[row["run"]] = row
    rows: list[Row] = []
    for heading, group in _ordered(list(by_group)):
        if heading:
            rows.append([heading])
        else:
            figures = by_group[group]
            first = next(iter(figures.values()))
            cells = [share(figures[run]["accuracy"]) for run in comparison.runs]
            rows.append([_name(group), str(first["n"]), str(first["pictures"]), *cells])
    several = any(num > 1 for num in comparison.runs.values())
    means = "Accuracy in percent, mean over seeds" if several else "Accuracy in percent"
    note = f"{means}, with {100 * comparison.level:g}% intervals: a bootstrap over pictures" + (
        "; with several seeds a t interval over seeds and pictures." if several else "."
    )
    return FigureTable(["", "cases", "pictures", *comparison.runs], rows, "Accuracy", note)


def _seeds(comparison: Comparison) -> FigureTable:
    num = max(comparison.runs.values())
    several = len({row["set"] for row in comparison.accuracies}) > 1
    rows: list[Row] = []
    for row in comparison.accuracies:
        if row["by"] == ALL and row["seed_sd"] is not None:
            values = [*map(percent, row["per_seed"]), *[NONE] * (num - len(row["per_seed"]))]
            name = f"{row['run']}, {row['set']}" if several else row["run"]
            rows.append([name, *values, percent(row["seed_sd"])])
    heads = ["", *(f"run {n}" for n in range(1, num + 1)), "standard deviation"]
    return FigureTable(heads, rows, "Single seeds", "Accuracy in percent on all cases; standard deviation in points.")


def _pair(comparison: Comparison, before: str, after: str) -> FigureTable:
    own = {
        (row["set"], row["by"], row["name"]): row
        for row in comparison.differences
        if (row["before"], row["after"]) == (before, after)
    }
    rows: list[Row] = []
    for heading, group in _ordered(list(own)):
        rows.append([heading] if heading else [_name(group), *_difference_cells(own[group])])
    tests = ", ".join(dict.fromkeys(row["test"] for row in own.values()))
    note = (
        f"Difference in points, with unadjusted {100 * comparison.level:g}% intervals. Discordant: cases that only the "
        f"first and only the second run answers correctly. Test: {tests}; below p the p-value adjusted (Holm) for all "
        "pairs and groups under one heading, which decides significance. Minimum detectable: the smallest true "
        "difference that this comparison detects with a power of 80%, in points."
    )
    heads = ["", "cases", "difference", "discordant", "p", "significant", "minimum detectable"]
    return FigureTable(heads, rows, f"{after} against {before}", note)


def _difference_cells(row: Difference) -> list[Cell | str]:
    detectable = NONE if row["detectable"] is None else percent(row["detectable"])
    discordant = " / ".join(f"{row[name]:.1f}".removesuffix(".0") for name in ("only_after", "only_before"))
    p, adjusted = (p_value(row[name]).removeprefix("p ").removeprefix("= ") for name in ("p", "p_holm"))
    moved = change(row["difference"], row["significant"])
    return [str(row["n"]), moved, discordant, Cell(p, adjusted), "yes" if row["significant"] else "no", detectable]


def _ordered(groups: Sequence[tuple[str, str, str]]) -> list[tuple[str, tuple[str, str, str]]]:
    """Groups in table order, as pairs (heading, group): per set all cases and category means first."""
    ordered: list[tuple[str, tuple[str, str, str]]] = []
    nothing = ("", "", "")
    sets = list(dict.fromkeys(group[0] for group in groups))
    for name in sets:
        if len(sets) > 1:
            ordered.append((f"Set {name}" if name else "Without a set", nothing))
        own = [group for group in groups if group[0] == name]
        ordered += [("", group) for group in own if group[1] == ALL or group[1:] == (MEAN, ALL)]
        for by, heading in _HEADINGS.items():
            members = [group for group in own if group[1] == by and group[2] != ALL]
            if members:
                ordered += [(heading, nothing), *(("", group) for group in members)]
    return ordered


def _name(group: tuple[str, str, str]) -> str:
    if group[1] == ALL:
        return "all cases"
    return "mean of categories" if group[1:] == (MEAN, ALL) else group[2]
