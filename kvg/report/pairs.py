"""Selects the pairs of runs that a report compares, and compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final, TypedDict

from kvg.errors import ConfigError, DataError
from kvg.evaluation.comparison.matching import ALL, GROUPINGS
from kvg.evaluation.comparison.runs import Comparison, Difference, adjust, compare_runs
from kvg.evaluation.figures.estimate import Estimate, points
from kvg.evaluation.records.prediction import Prediction
from kvg.report.naming import PAIRS
from kvg.work.progress import with_progress

LEVEL: Final = 0.95
Cases = Mapping[str, Sequence[Prediction]]  # by run
Pair = tuple[str, str]  # before, after


class PairResult(TypedDict):
    """Two runs on the cases that both have answered, on clean pictures."""

    before: str
    after: str
    num_cases: int
    num_left_out: int  # cases that only one of the runs has
    notes: list[str]
    differences: list[Difference]


def pairs_of(texts: Sequence[str], runs: Sequence[str]) -> list[Pair]:
    """The pairs to compare.

    Args:
        texts: ``BEFORE:AFTER``. If empty: the pairs in ``PAIRS`` whose runs exist, or else every run against the first.
        runs: names of the runs.

    Raises:
        ConfigError: a text is not such a pair of runs.

    >>> pairs_of([], ["base", "cot_sft", "mine"]), pairs_of([], ["a", "b", "c"]), pairs_of(["c:a"], ["a", "b", "c"])
    ([('base', 'cot_sft')], [('a', 'b'), ('a', 'c')], [('c', 'a')])
    """
    if not texts:
        known = [pair for pair in PAIRS if pair[0] in runs and pair[1] in runs]
        return known or [(runs[0], run) for run in runs[1:]]
    pairs: list[Pair] = []
    for text in texts:
        # Names may contain colons: the text is split where both sides are runs.
        cuts = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == ":"]
        pair = next(((a, b) for a, b in cuts if a in runs and b in runs and a != b), None)
        if pair is None:
            remedy = f"'{text}' is not BEFORE:AFTER with two of the runs {', '.join(runs)}"
            raise ConfigError("--pairs", remedy)
        pairs.append(pair)
    return list(dict.fromkeys(pairs))


def compare_pairs(runs: Cases, pairs: Sequence[Pair], seed: int, named: bool) -> tuple[list[PairResult], list[str]]:
    """Compares pairs of runs on clean pictures.

    P-values are those of ``kvg.evaluation.comparison.runs``. They are adjusted over all pairs of ``runs``, not only
    over ``pairs``, so that ``kvg-data compare`` gives the same p-values. If runs hold different cases, each pair is
    compared on its common cases.

    Args:
        runs: cases by run.
        pairs: of runs.
        seed: of the bootstrap.
        named: whether the user named these pairs; otherwise pairs without a common case are skipped.

    Returns:
        Results, and remarks for the reader.

    Raises:
        DataError: two runs have different ground truth for a case, or share no case although the user named them.
    """
    plain = {name: [[case for case in cases if not case.artifact]] for name, cases in runs.items()}
    try:
        whole = compare_runs(plain, GROUPINGS, seed, LEVEL)
    except DataError:  # not all runs hold the same cases
        return _compare_apart(plain, pairs, seed, named)
    by_pair: dict[Pair, list[Difference]] = {}
    for row in whole.differences:
        by_pair.setdefault((row["before"], row["after"]), []).append(row)
    return [_result(pair, whole, by_pair) for pair in pairs], []


def _compare_apart(
    runs: Mapping[str, Sequence[Sequence[Prediction]]], pairs: Sequence[Pair], seed: int, named: bool
) -> tuple[list[PairResult], list[str]]:
    """Compares each pair on its common cases; pairs that are not shown still belong to the family."""
    comparisons: dict[Pair, Comparison] = {}
    notes: list[str] = []
    every = list(combinations(runs, 2))
    for before, after in with_progress(every, "pairs of runs", len(every)):
        chosen = (before, after) in pairs or (after, before) in pairs
        both = {name: runs[name] for name in (before, after)}
        try:
            comparisons[before, after] = compare_runs(both, GROUPINGS, seed, LEVEL, common=True)
        except DataError as error:
            if chosen and (named or error.field != "cases"):
                raise
            if chosen:
                notes.append(f"{before} and {after} share no case; this pair is skipped")
    by_pair = {pair: comparison.differences for pair, comparison in comparisons.items()}
    adjust([row for rows in by_pair.values() for row in rows], 1 - LEVEL)
    compared = {pair: comparisons.get(pair) or comparisons.get(pair[::-1]) for pair in pairs}
    return [_result(pair, comparison, by_pair) for pair, comparison in compared.items() if comparison], notes


def _result(pair: Pair, comparison: Comparison, by_pair: Mapping[Pair, Sequence[Difference]]) -> PairResult:
    rows = by_pair[pair] if pair in by_pair else [_turned(row) for row in by_pair[pair[::-1]]]
    return PairResult(
        before=pair[0],
        after=pair[1],
        num_cases=comparison.num_cases,
        num_left_out=comparison.num_left_out,
        notes=comparison.notes,
        differences=list(rows),
    )


def _turned(row: Difference) -> Difference:
    """The difference with both runs swapped."""
    of = row["difference"]
    turned = row.copy()
    turned["before"], turned["after"] = row["after"], row["before"]
    turned["only_before"], turned["only_after"] = row["only_after"], row["only_before"]
    turned["difference"] = Estimate(n=of["n"], value=0.0 - of["value"], low=0.0 - of["high"], high=0.0 - of["low"])
    return turned


def difference_of(pair: PairResult, by: str = ALL, name: str = ALL) -> Difference | None:
    """The difference on a group, in the first set that has the group."""
    return next((row for row in pair["differences"] if (row["by"], row["name"]) == (by, name)), None)


def in_words(row: Difference) -> str:
    """A difference as text: value, interval, p-value, significance, and the minimum detectable difference.

    >>> row = {"difference": {"n": 9, "value": 0.012, "low": -0.01, "high": 0.03}, "p_holm": 0.21,
    ...        "significant": False, "detectable": 0.034}
    >>> in_words(row)
    '+1.2 points (-1.0 to +3.0), p = 0.21: not significant; minimum detectable difference 3.4 points'
    """
    text = f"{points(row['difference'])}, {p_value(row['p_holm'])}"
    return f"{text}: significant" if row["significant"] else f"{text}: not significant; {minimum_detectable(row)}"


def minimum_detectable(row: Difference) -> str:
    """The minimum detectable difference as text.

    >>> minimum_detectable({"detectable": 0.034}), minimum_detectable({"detectable": None})
    ('minimum detectable difference 3.4 points', 'no difference is detectable with so few cases')
    """
    if row["detectable"] is None:
        return "no difference is detectable with so few cases"
    return f"minimum detectable difference {100 * row['detectable']:.1f} points"


def p_value(p: float) -> str:
    """A p-value as text.

    >>> p_value(0.0004), p_value(0.0312), p_value(0.47)
    ('p < 0.001', 'p = 0.031', 'p = 0.47')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
