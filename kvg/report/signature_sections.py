"""Failure signatures as sections of a report: verdicts and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from kvg.evaluation.diagnostics.signatures import Signatures
from kvg.report.naming import RunStyle
from kvg.report.pairs import p_value
from kvg.report.sections import Looks, Section, Verdict, run_cell
from kvg.report.tables import NONE, Cell, FigureTable, Row, change, number, percent, share

ByRun = Mapping[str, Signatures]
T = TypeVar("T")

_PAIRS: Final = 12  # confusions shown per run
_CURVES: Final = {
    "train/completion_length": "length in tokens",
    "train/entropy": "entropy in nats per token",
    "train/reward_std_in_group": "standard deviation of rewards in a group",
    "train/unparsed": "share of unparsed answers",
}


def signature_sections(by_run: ByRun, looks: Looks) -> list[Section]:
    """The sections of all runs; signatures without any figure are skipped.

    Args:
        by_run: signatures of each run.
        looks: styles of the runs.
    """
    sections = (_reasoning, _length, _knowledge, _position, _confusion)
    return [section for make in sections if (section := make(by_run, looks))]


def verdict_of(run: RunStyle, text: str) -> Verdict:
    """A verdict with its kind, which is derived from its first words."""
    kind = "bad" if text.startswith("sign") else "good" if text.startswith("no sign") else ""
    return Verdict(run, text, kind)


def _reasoning(by_run: ByRun, looks: Looks) -> Section | None:
    counts: list[Row] = []
    shares: list[Row] = []
    verdicts = []
    for run, signs in by_run.items():
        for table in signs["reasoning"]:
            if table["group"] == "all":
                verdicts.append(verdict_of(looks[run], f"{table['verdict']} (judged by the {table['by']})"))
            start: list[Cell | str] = [run_cell(looks[run]), table["by"], table["group"]]
            numbers = (table["right_right"], table["right_wrong"], table["wrong_right"], table["wrong_wrong"])
            counts.append([*start, *map(str, numbers), str(table["untold"])])
            accuracies = (share(table["box_if_right"]), share(table["box_if_wrong"]), change(table["gain"]))
            shares.append([*start, *accuracies, share(table["lucky"]), share(table["left"])])
    if not counts:
        return None
    start_heads = ["", "judged by", "cases"]
    count_heads = ["reasoning ✓ box ✓", "reasoning ✓ box ✗", "reasoning ✗ box ✓", "reasoning ✗ box ✗", "not judged"]
    share_heads = ["box accuracy, reasoning ✓", "box accuracy, reasoning ✗", "gain in points"]
    share_heads += ["box ✓ with reasoning ✗", "answer differs from conclusion"]
    tables = [  # two tables, because one is wider than the page
        FigureTable([*start_heads, *count_heads], counts, title="Numbers of answers", texts=3),
        FigureTable([*start_heads, *share_heads], shares, title="Shares in percent, with 95% intervals", texts=3),
    ]
    note = (
        "Correctness of box and reasoning. If entities have cards, reasoning is correct if all traits were recalled; "
        "otherwise if the concluded box is the target."
    )
    return Section("Reasoning and box", note, tables, verdicts, anchor="reasoning")


def _length(by_run: ByRun, looks: Looks) -> Section | None:
    curves: list[Row] = []
    rows: list[Row] = []
    verdicts = []
    for run, signs in by_run.items():
        for sign in signs["collapse"]:
            cells = [number(sign["first"], 3), number(sign["last"], 3)]
            curves.append([run_cell(looks[run]), _CURVES.get(sign["tag"], sign["tag"]), str(sign["n"]), *cells])
            if not sign["verdict"].startswith("no sign"):
                verdicts.append(verdict_of(looks[run], sign["verdict"]))
        lengths = signs["lengths"]
        for name, verdict in (("truncated", lengths["verdict"]), ("without a box", lengths["unparsed_verdict"])):
            text = verdict if verdict.startswith("sign") else f"{verdict} (answers {name})"
            verdicts.append(verdict_of(looks[run], text))
        cells = [number(one, 0) for one in (lengths["right"], lengths["wrong"], lengths["difference"])]
        rows.append([run_cell(looks[run]), *cells, share(lengths["cut_off"]), share(lengths["unparsed"])])
    tables = []
    if rows:
        heads = ["", "correct answers", "wrong answers", "correct minus wrong", "truncated %", "unparsed %"]
        tables.append(FigureTable(heads, rows, title="Length in tokens, truncated and unparsed answers"))
    if curves:
        heads = ["", "over training", "points", "first", "last"]
        tables.append(FigureTable(heads, curves, title="First and last values of training", texts=2))
    if not tables:
        return None
    note = "A policy that is rewarded for boxes only can stop reasoning, lose diversity, or stop answering."
    return Section("Unparsed answers, length and diversity", note, tables, verdicts, anchor="length")


def _knowledge(by_run: ByRun, looks: Looks) -> Section | None:
    rows: list[Row] = []
    verdicts = []
    for run, signs in by_run.items():
        for gap in signs["knowledge"]:
            if gap["gap"] is None:
                continue
            if gap["group"] == "all":
                verdicts.append(verdict_of(looks[run], gap["verdict"]))
            cells = [share(gap["known"]), share(gap["unknown"]), change(gap["gap"])]
            rows.append([run_cell(looks[run]), gap["group"], str(gap["n"]), *cells, str(gap["untold"])])
    if not rows:
        return None
    heads = ["", "categories", "cases", "known", "unknown", "gap in points", "no level"]
    note = "Accuracy in percent for known and for unknown entities, and the difference."
    return Section(
        "Known and unknown entities", note, [FigureTable(heads, rows, texts=2)], verdicts, anchor="knowledge"
    )


def _position(by_run: ByRun, looks: Looks) -> Section | None:
    by_run = {run: signs for run, signs in by_run.items() if signs["position"]["n"]}
    if not by_run:
        return None
    verdicts = [verdict_of(looks[run], signs["position"]["verdict"]) for run, signs in by_run.items()]
    rows: list[Row] = []
    for by in _in_order(by_run, lambda signs: [table["by"] for table in signs["position"]["by_place"]]):
        tables = {r: t for r, signs in by_run.items() for t in signs["position"]["by_place"] if t["by"] == by}
        rows.append([f"{'place in ' if by.endswith('order') else ''}{by}"])
        for place in dict.fromkeys(place["place"] for table in tables.values() for place in table["places"]):
            cells = []
            for run in by_run:
                values = {p["place"]: p["accuracy"] for p in tables[run]["places"]} if run in tables else {}
                cells.append(share(values.get(place)))
            rows.append([place, *cells])
        rows.append(["p", *(_p(tables[run]["p"]) if run in tables else NONE for run in by_run)])
    heads: list[Cell | str] = ["", *map(run_cell, (looks[run] for run in by_run))]
    tables_made = [FigureTable(heads, rows, title="Accuracy in percent by the place of the target")]
    tables_made.append(_fields(by_run, looks))
    favourites: list[Row] = [
        [
            run_cell(looks[run]),
            one["object"],
            share(one["answered"]),
            percent(one["expected"]),
            change(one["difference"]),
        ]
        for run, signs in by_run.items()
        for one in signs["position"]["favourites"]
    ]
    if favourites:
        heads = ["", "object", "answered %", "expected %", "difference in points"]
        title = "Answers by rank of the object, compared with an unbiased model"
        tables_made.append(FigureTable(heads, favourites, title=title, texts=2))
    note = (
        "Whether the answer depends on the place of an object. p: permutation test of no dependence. The verdict is "
        "adjusted for the number of tests."
    )
    return Section("Position", note, tables_made, verdicts, anchor="position")


def _fields(by_run: ByRun, looks: Looks) -> FigureTable:
    """Numbers of predicted and true boxes by field of the picture."""
    fields = _in_order(by_run, lambda signs: [one["field"] for one in signs["position"]["fields"]])
    rows: list[Row] = []
    for field in fields:
        cells = []
        for signs in by_run.values():
            one = next((one for one in signs["position"]["fields"] if one["field"] == field), None)
            cells.append(Cell(str(one["answered"]), f"truth {one['truth']}") if one else Cell(NONE))
        rows.append([field, *cells])
    rows.append(["p", *(_p(signs["position"]["p"]) for signs in by_run.values())])
    heads: list[Cell | str] = ["", *map(run_cell, (looks[run] for run in by_run))]
    return FigureTable(heads, rows, title="Predicted and true boxes by field of the picture")


def _confusion(by_run: ByRun, looks: Looks) -> Section | None:
    verdicts, errors, alike, pairs = [], list[Row](), list[Row](), list[Row]()
    for run, signs in by_run.items():
        confusion = signs["confusion"]
        kinds = confusion["errors"]
        if not kinds["n"]:
            continue
        verdicts.append(verdict_of(looks[run], confusion["verdict"]))
        cells = [share(one) for one in (kinds["other_object"], kinds["no_object"], kinds["unparsed"], kinds["untold"])]
        errors.append([run_cell(looks[run]), str(kinds["n"]), *cells])
        if one := confusion["look_alikes"]:
            cells = [share(one["to_look_alike"]), Cell(percent(one["chance"])), change(one["difference"])]
            alike.append([run_cell(looks[run]), str(one["n"]), *cells])
        if confusion["pairs"]:
            pairs.append([looks[run].title])
            for pair in confusion["pairs"][:_PAIRS]:
                often = [str(pair["num"]), str(pair["together"]), percent(pair["share"])]
                pairs.append([pair["target"], pair["answered"] or "an object without a name", *often])
    if not errors:
        return None
    heads = ["", "errors", "another object", "no object", "unparsed", "unknown kind"]
    tables = [FigureTable(heads, errors, title="Kinds of errors in percent")]
    if alike:
        heads = ["", "confusions", "with the look-alike %", "chance level %", "difference in points"]
        tables.append(FigureTable(heads, alike, title="Confusions in pictures with a look-alike"))
    if pairs:
        heads = ["target", "answered", "number", "pictures with both", "%"]
        tables.append(FigureTable(heads, pairs, title="Most frequent confusions", texts=2))
    note = "Kinds of errors, and the entities that are confused."
    return Section("Confusions", note, tables, verdicts, anchor="confusions")


def _p(p: float) -> str:
    return p_value(p).removeprefix("p ").removeprefix("= ")


def _in_order(by_run: ByRun, values: Callable[[Signatures], list[T]]) -> Iterator[T]:
    """The distinct values, in order of first occurrence."""
    return iter(dict.fromkeys(value for signs in by_run.values() for value in values(signs)))
