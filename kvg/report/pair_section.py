"""Differences between runs, as cards for the main questions and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kvg.evaluation.comparison.matching import ALL, BOTH, MEAN
from kvg.evaluation.comparison.runs import Difference
from kvg.evaluation.figures.estimate import Estimate
from kvg.report.naming import RunStyle
from kvg.report.pairs import PairResult, difference_of, minimum_detectable, p_value
from kvg.report.results import RunResults
from kvg.report.sections import BY_CATEGORY, Section
from kvg.report.tables import NONE, Cell, FigureTable, Row, change, percent

Looks = Mapping[str, RunStyle]

# The main questions: stage before, stage after, grouping, group, and the question that the difference answers.
_QUESTIONS: Final = (
    ("base", "cot_sft", "split", "seen", "Does stage 1 help? CoT-SFT over the base model, seen categories"),
    ("direct_sft", "cot_sft", BOTH, "unseen, known",
     "Do rationales help? CoT-SFT over direct SFT, known entities of unseen categories"),
    ("cot_sft", "cot_sft_grpo", "split", "seen", "Does stage 2 help? GRPO over CoT-SFT, seen categories"),
)  # fmt: skip
_ONE_RUN: Final = "one run each"  # start of a note that applies to all pairs and is shown once
_HEADINGS: Final = {
    ALL: "All",
    MEAN: "Mean of categories",
    "split": "By split",
    "knowledge": "By knowledge of the base model",
    BOTH: "By split and knowledge",
    "category": BY_CATEGORY,
}


@dataclass(frozen=True)
class Finding:
    """A card at the top of the page.

    Attributes:
        value: the figure.
        unit: of the figure.
        interval: of the figure.
        texts: its description, in lines.
        kind: ``up``, ``down``, ``even``; '' for a share.
    """

    value: str
    unit: str
    interval: str
    texts: Sequence[str]
    kind: str = ""


def findings_of(pairs: Sequence[PairResult], runs: Mapping[str, RunResults], looks: Looks) -> list[Finding]:
    """Cards for the top of the page: the difference of each pair, or the accuracy of a single run."""
    cards = list[Finding]()
    for pair in pairs:
        row, question = _main_difference(pair, looks)
        if row is not None:
            cards.append(_difference_card(row, question))
    if not cards and len(runs) == 1:
        cards = [_share_card(name, estimate) for name, estimate in _main_shares(next(iter(runs.values())))]
    return cards


def pair_section(pairs: Sequence[PairResult], notes: Sequence[str], looks: Looks) -> Section | None:
    """A table of differences with one column per pair, and a folded table of all tests."""
    if not pairs:
        return None
    titles = {id(pair): _title(pair, looks) for pair in pairs}
    rows: list[Row] = []
    for by, heading in _HEADINGS.items():
        groups = dict.fromkeys(
            (row["set"], row["name"]) for pair in pairs for row in pair["differences"] if row["by"] == by
        )
        if groups and by != ALL:
            rows.append([heading])
        for name_of_set, name in groups:
            rows_of_pairs = [_on(pair, name_of_set, by, name) for pair in pairs]
            rows.append([_group_name(name_of_set, by, name, pairs), *map(_difference_cell, rows_of_pairs)])
    heads = ["", *titles.values()]
    of_pairs = (note for pair in pairs for note in pair["notes"] if not note.startswith(_ONE_RUN))
    remarks = list(dict.fromkeys([*notes, *of_pairs, "the results hold for these runs, not for other seeds"]))
    intro = (
        "Differences of accuracy in points, with the 95% interval of a paired bootstrap over pictures. p: sign-flip "
        "test over pictures (McNemar's test if no picture is shared), adjusted (Holm) for the groups of its block and "
        "for all pairs of these runs, also those not shown, as in `kvg-data compare`. Green and red: significant "
        "(p ≤ 0.05). "
    )
    note = intro + " ".join(f"{one[:1].upper()}{one[1:]}." for one in remarks)
    return Section(
        "Differences", note.strip(), [FigureTable(heads, rows), _test_table(pairs, titles)], anchor="differences"
    )


def _test_table(pairs: Sequence[PairResult], titles: Mapping[int, str]) -> FigureTable:
    rows: list[Row] = []
    for pair in pairs:
        rows.append([titles[id(pair)]])
        for row in pair["differences"]:
            detectable = NONE if row["detectable"] is None else percent(row["detectable"])
            rows.append(
                [
                    _group_name(row["set"], row["by"], row["name"], pairs),
                    str(row["n"]),
                    str(row["pictures"]),
                    _difference_cell(row, with_p=False),
                    f"{row['only_after']:g}",
                    f"{row['only_before']:g}",
                    f"{row['p']:.2g}",
                    f"{row['p_holm']:.2g}",
                    detectable,
                ]
            )
    heads = [
        "", "cases", "pictures", "difference", "only the first correct", "only the second correct", "p", "p, adjusted",
        "minimum detectable",
    ]  # fmt: skip
    note = (
        "Minimum detectable: the smallest true difference in points that this comparison detects with a power of 80%."
    )
    return FigureTable(heads, rows, title="All tests", note=note, folded=True)


def _title(pair: PairResult, looks: Looks) -> str:
    return f"{looks[pair['after']].title} over {looks[pair['before']].title}"


def _on(pair: PairResult, name_of_set: str, by: str, name: str) -> Difference | None:
    for row in pair["differences"]:
        if (row["set"], row["by"], row["name"]) == (name_of_set, by, name):
            return row
    return None


def _group_name(name_of_set: str, by: str, name: str, pairs: Sequence[PairResult]) -> str:
    several = len({row["set"] for pair in pairs for row in pair["differences"]}) > 1
    words = {(ALL, ALL): "all cases", (MEAN, ALL): "all categories", (MEAN, "seen"): "seen categories"}
    words[MEAN, "unseen"] = "unseen categories"
    text = words.get((by, name), name)
    return f"{name_of_set}: {text}" if several and name_of_set else text


def _difference_cell(row: Difference | None, with_p: bool = True) -> Cell:
    if row is None:
        return Cell(NONE)
    cell = change(row["difference"], row["significant"])
    return Cell(cell.text, f"{cell.small}\n{p_value(row['p_holm'])}", cell.kind) if with_p else cell


def _main_difference(pair: PairResult, looks: Looks) -> tuple[Difference | None, str]:
    for before, after, by, name, question in _QUESTIONS:
        if (before, after) == (pair["before"], pair["after"]):
            row = difference_of(pair, by, name)
            if row is not None:
                return row, question
    return difference_of(pair), f"{_title(pair, looks)}, all cases"


def _difference_card(row: Difference, question: str) -> Finding:
    cell = change(row["difference"], row["significant"])
    kind = {"good": "up", "bad": "down"}.get(cell.kind, "even")
    text = f"{p_value(row['p_holm'])}, n = {row['n']}"
    if not row["significant"]:
        text = f"not significant ({text}); {minimum_detectable(row)}"
    return Finding(cell.text, "points", cell.small, [question, text], kind)


def _main_shares(results: RunResults) -> list[tuple[str, Estimate]]:
    shares: list[tuple[str, Estimate]] = []
    for figure in results["figures"]:
        if figure["by"] == "all":
            shares.append(("accuracy on all cases", figure["accuracy"]))
            if figure["category_mean"]:
                shares.append(("mean accuracy over categories", figure["category_mean"]))
        elif figure["by"] == "split":
            shares.append((f"accuracy on {figure['name']} categories", figure["accuracy"]))
    if choice := results["choice"]:
        shares.append(("accuracy on multiple-choice questions", choice["all"]))
    return shares


def _share_card(name: str, estimate: Estimate) -> Finding:
    interval = f"{percent(estimate['low'])} to {percent(estimate['high'])}"
    return Finding(percent(estimate["value"]), "%", interval, [f"{name}, n = {estimate['n']}"])
