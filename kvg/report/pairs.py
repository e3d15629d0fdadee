"""Which runs of a report are compared with which, and what the differences are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from kvg.errors import ConfigError, DataError
from kvg.evaluation.case import Case
from kvg.evaluation.comparison import Comparison, Difference, compare_runs
from kvg.evaluation.estimate import points
from kvg.evaluation.matching import ALL, GROUPINGS
from kvg.metrics.paired import holm
from kvg.progress import shown
from kvg.report.naming import PAIRS

LEVEL: Final = 0.95
Cases = Mapping[str, Sequence[Case]]  # by run
Pair = tuple[str, str]  # before, after


class PairResult(TypedDict):
    """Two runs on the cases that both have answered, pictures as they are."""

    before: str
    after: str
    num_cases: int
    num_left_out: int  # cases that only one of them has
    notes: list[str]
    differences: list[Difference]


def pairs_of(asked: Sequence[str], runs: Sequence[str]) -> list[Pair]:
    """The pairs to compare.

    Args:
        asked: ``BEFORE:AFTER``; with none, the method's own pairs where runs have the names of its stages, and else
            every run against the first.
        runs: names of the runs.

    Raises:
        ConfigError: one is no such pair of runs.

    >>> pairs_of([], ["base", "cot_sft", "mine"]), pairs_of([], ["a", "b", "c"]), pairs_of(["c:a"], ["a", "b", "c"])
    ([('base', 'cot_sft')], [('a', 'b'), ('a', 'c')], [('c', 'a')])
    """
    if not asked:
        known = [pair for pair in PAIRS if pair[0] in runs and pair[1] in runs]
        return known or [(runs[0], run) for run in runs[1:]]
    found: list[Pair] = []
    for text in asked:
        # A name may hold a colon: the place counts that leaves a run on both sides.
        cuts = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == ":"]
        pair = next(((a, b) for a, b in cuts if a in runs and b in runs and a != b), None)
        if pair is None:
            remedy = f"'{text}' is not BEFORE:AFTER with two of the runs {', '.join(runs)}"
            raise ConfigError("--pairs", remedy)
        found.append(pair)
    return list(dict.fromkeys(found))


def compare_pairs(runs: Cases, pairs: Sequence[Pair], seed: int, asked: bool) -> tuple[list[PairResult], list[str]]:
    """Compares pairs of runs; p-values are adjusted over these pairs and the parts of one grouping.

    Args:
        runs: cases by run.
        pairs: of runs.
        seed: of the bootstrap.
        asked: whether somebody asked for these pairs; else two runs without a common case are passed over.

    Returns:
        Results, and what a reader must know.

    Raises:
        DataError: two runs tell different truths of a case, or share none although they were asked for.
    """
    found: list[PairResult] = []
    notes: list[str] = []
    for before, after in shown(pairs, "pairs of runs", len(pairs)):
        both = {name: [case for case in runs[name] if not case.artifact] for name in (before, after)}
        try:
            whole = _compare(both, seed)
        except DataError as error:
            if asked or error.field != "cases":
                raise
            notes.append(f"{before} and {after} share no case and are not compared")
            continue
        found.append(
            PairResult(
                before=before,
                after=after,
                num_cases=whole.num_cases,
                num_left_out=whole.num_left_out,
                notes=whole.notes,
                differences=whole.differences,
            )
        )
    _adjust([row for pair in found for row in pair["differences"]])
    return found, notes


def difference_of(pair: PairResult, by: str = ALL, name: str = ALL) -> Difference | None:
    """The difference on a group, of the first set that has it."""
    return next((row for row in pair["differences"] if (row["by"], row["name"]) == (by, name)), None)


def in_words(row: Difference) -> str:
    """What a difference says, and what it could have said.

    >>> row = {"difference": {"n": 9, "value": 0.012, "low": -0.01, "high": 0.03}, "p_holm": 0.21,
    ...        "significant": False, "detectable": 0.034}
    >>> in_words(row)
    '+1.2 points (-1.0 to +3.0), p = 0.21: no more than luck does; 3.4 points could have been seen'
    """
    said = f"{points(row['difference'])}, {p_value(row['p_holm'])}"
    if row["significant"]:
        return f"{said}: more than luck does"
    seen = row["detectable"]
    could = "no difference could have been seen" if seen is None else f"{100 * seen:.1f} points could have been seen"
    return f"{said}: no more than luck does; {could}"


def p_value(p: float) -> str:
    """A p-value in words.

    >>> p_value(0.0004), p_value(0.0312), p_value(0.47)
    ('p < 0.001', 'p = 0.031', 'p = 0.47')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _compare(runs: Cases, seed: int) -> Comparison:
    return compare_runs({name: [cases] for name, cases in runs.items()}, GROUPINGS, seed, LEVEL, common=True)


def _adjust(rows: Sequence[Difference]) -> None:
    families: dict[tuple[str, str], list[Difference]] = {}
    for row in rows:
        families.setdefault((row["set"], row["by"]), []).append(row)
    for family in families.values():
        for row, adjusted in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"], row["significant"] = adjusted, adjusted <= 1 - LEVEL
