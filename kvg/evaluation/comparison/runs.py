"""Compares runs on the same cases: accuracies with confidence intervals, and tests of their differences.

Two single runs are compared by the exact sign-flip test of ``kvg.stats.paired``, which equals McNemar's test where no
picture is shared. The interval of their difference is a paired bootstrap over pictures. The result holds for these two
runs only. If a setting has several seeds, ``kvg.stats.seeds`` combines seeds and cases, and the result holds for the
settings. The difference must then also pass the sign-flip test of the mean answers, which is valid for few cases.

P-values are adjusted for multiple comparisons (Holm) within a family, which ``adjust`` defines: all pairs of the given
runs in all parts of one grouping of one set. For example, all pairs on all cases are one family, and all pairs in all
ten categories are another. Every command uses the same families, even if it shows only some pairs, so that the p-value
of a pair depends on the runs and not on the command. The adjusted p-value decides ``significant``. Intervals are not
adjusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from kvg.errors import ConfigError
from kvg.evaluation.comparison.clustered_sample import ClusteredSample
from kvg.evaluation.comparison.matching import ALL, GROUPINGS, CaseGroup, Matched, match
from kvg.evaluation.figures.accuracy import DIFFERENCE
from kvg.evaluation.figures.estimate import SHARE, Estimate
from kvg.evaluation.records.prediction import Prediction
from kvg.stats.paired import SignTest, holm, mcnemar, sign_flip
from kvg.stats.power import detectable_difference
from kvg.stats.seeds import combine, contrast

USUAL: Final = ("split", "category", "knowledge")
POWER: Final = 0.8  # of the minimum detectable difference
MCNEMAR: Final = "McNemar, mid-p"
BY_PICTURE: Final = "signs by picture, mid-p"
OVER_SEEDS: Final = "t over seeds and pictures"
_MANY_SEEDS: Final = 5  # from here on an interval is less than 1.5 times as wide as with unlimited seeds


class Accuracy(TypedDict):
    """Accuracy of a setting on a group; shares are in 0-1."""

    run: str
    set: str
    by: str  # all, category mean, or one of GROUPINGS
    name: str  # of the part; of a category mean the split, or all
    n: int
    pictures: int
    accuracy: Estimate  # mean over seeds
    per_seed: list[float]
    seed_sd: float | None  # standard deviation between seeds; None with one


class Difference(TypedDict):
    """Accuracy of ``after`` minus that of ``before`` on the same cases; shares are in 0-1.

    ``only_after`` and ``only_before`` are McNemar's counts of discordant cases; with several seeds their mean over all
    pairs of seeds. ``p_holm``, the adjusted ``p``, decides significance. ``p_exact`` is the conservative exact p-value,
    and ``p_mcnemar`` assumes independent cases; both are None with several seeds. ``detectable`` is the minimum
    detectable difference at a power of 0.8; None if there is none.
    """

    before: str
    after: str
    set: str
    by: str
    name: str
    n: int
    pictures: int
    difference: Estimate
    only_after: float
    only_before: float
    test: str
    p: float
    p_exact: float | None
    p_mcnemar: float | None
    p_holm: float
    significant: bool
    detectable: float | None


@dataclass(frozen=True)
class Comparison:
    """The comparison of several settings on the same cases.

    Attributes:
        runs: number of seeds by setting, in the order given.
        num_cases: number of cases that all runs have answered.
        num_left_out: number of cases that only some runs have.
        level: of the intervals; p-values up to ``1 - level`` are significant.
        seed: of the bootstrap.
        accuracies: of each setting on each group.
        differences: of each pair on each group; ``before`` is the earlier run in ``runs``.
        notes: remarks for the reader.
    """

    runs: dict[str, int]
    num_cases: int
    num_left_out: int
    level: float
    seed: int
    accuracies: list[Accuracy]
    differences: list[Difference]
    notes: list[str]

    def record(self) -> dict[str, Any]:
        """The comparison as JSON data."""
        return asdict(self)

    def difference(self, before: str, after: str, by: str = ALL, name: str = ALL, set: str | None = None) -> Difference:
        """The difference of a pair on a group, of the first set or of the named one.

        Raises:
            KeyError: there is none.
        """
        for row in self.differences:
            if (row["before"], row["after"], row["by"], row["name"]) == (before, after, by, name) and set in (
                None,
                row["set"],
            ):
                return row
        raise KeyError(f"no difference of '{before}' and '{after}' on {by} {name}")


def compare_runs(
    runs: Mapping[str, Sequence[Sequence[Prediction]]],
    by: Sequence[str] = USUAL,
    seed: int = 0,
    level: float = 0.95,
    common: bool = False,
    against: str | None = None,
) -> Comparison:
    """Compares settings pairwise, or all with one, on the cases that they share.

    Args:
        runs: runs by setting, one per seed, each with all its cases (``read_predictions``).
        by: groupings, some of ``GROUPINGS``; ``category`` adds category means, overall and by split.
        seed: of the bootstrap; the same seed gives the same figures.
        level: confidence level, in (0, 1).
        common: use only the cases that all runs have; otherwise missing cases are an error.
        against: the setting that all others are compared with; None compares all pairs. The family then holds only
            these pairs. With fewer tests the power is higher, if the choice is made in advance.

    Raises:
        ConfigError: a grouping or ``against`` is unknown, the level is outside (0, 1), or a setting has no run.
        DataError: runs hold different cases, or different ground truth for the same case.
    """
    unknown = [grouping for grouping in by if grouping not in GROUPINGS]
    if unknown:
        raise ConfigError("by", f"'{unknown[0]}' is not a grouping; choose from {', '.join(GROUPINGS)}")
    if not 0 < level < 1:
        raise ConfigError("level", f"{level:g} must lie between 0 and 1; 0.95 is usual")
    if not runs:
        raise ConfigError("runs", "is empty; name at least one run")
    if against is not None and against not in runs:
        raise ConfigError("against", f"'{against}' is not a run; choose from {', '.join(runs)}")
    pairs = [pair for pair in combinations(runs, 2) if against is None or against in pair]
    matched = match(runs, common)
    groups = matched.groups(by)
    differences = [
        _difference(matched, group, before, after, seed, level) for group in groups for before, after in pairs
    ]
    adjust(differences, 1 - level)
    return Comparison(
        runs={name: len(seeds) for name, seeds in runs.items()},
        num_cases=len(matched.names),
        num_left_out=matched.num_left_out,
        level=level,
        seed=seed,
        accuracies=[_accuracy(matched, group, name, seed, level) for group in groups for name in runs],
        differences=differences,
        notes=[*matched.notes, *_seed_notes(runs)],
    )


def _accuracy(matched: Matched, group: CaseGroup, run: str, seed: int, level: float) -> Accuracy:
    sample = ClusteredSample.of(matched, group)
    hits = matched.hits[run][:, group.members]
    per_seed = [sample.mean(row) for row in hits]
    if len(hits) == 1:
        estimate = sample.by_bootstrap(hits[0], seed, level, SHARE)
    else:
        estimate = sample.by_spread(combine(hits, sample.pictures, sample.strata), hits.mean(axis=0), level, SHARE)
    return Accuracy(
        run=run,
        set=group.set,
        by=group.by,
        name=group.value,
        n=len(group.members),
        pictures=sample.num_pictures,
        accuracy=estimate,
        per_seed=per_seed,
        seed_sd=float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else None,
    )


def _difference(matched: Matched, group: CaseGroup, before: str, after: str, seed: int, level: float) -> Difference:
    sample = ClusteredSample.of(matched, group)
    old, new = (matched.hits[name][:, group.members] for name in (before, after))
    old_mean, new_mean = old.mean(axis=0), new.mean(axis=0)  # [N]
    only_after = float((new_mean * (1 - old_mean)).sum())
    only_before = float((old_mean * (1 - new_mean)).sum())
    exact: SignTest | None = None
    naive: SignTest | None = None
    if len(old) == len(new) == 1:
        steps = new[0] - old[0]
        estimate = sample.by_bootstrap(steps, seed, level, DIFFERENCE)
        exact, naive = sign_flip(sample.sums(steps), seed), mcnemar(int(only_after), int(only_before))
        shared = sample.num_pictures < len(steps) or sample.strata is not None
        p, test = exact.p, BY_PICTURE if shared else MCNEMAR
        detectable = _detectable(sample, steps, 1 - level)
    else:
        spread = contrast(new, old, sample.pictures, sample.strata)
        estimate = sample.by_spread(spread, new_mean - old_mean, level, DIFFERENCE)
        whole = sample.sums(new_mean - old_mean) * len(old) * len(new)  # integers again
        p, test = max(spread.p, sign_flip(whole, seed).p), OVER_SEEDS
        effect = spread.detectable(1 - level, POWER)
        detectable = effect if 0 < effect <= 1 else None
    return Difference(
        before=before,
        after=after,
        set=group.set,
        by=group.by,
        name=group.value,
        n=len(group.members),
        pictures=sample.num_pictures,
        difference=estimate,
        only_after=only_after,
        only_before=only_before,
        test=test,
        p=p,
        p_exact=exact.exact if exact else None,
        p_mcnemar=naive.p if naive else None,
        p_holm=p,
        significant=False,
        detectable=detectable,
    )


def _detectable(sample: ClusteredSample, steps: NDArray[np.float64], alpha: float) -> float | None:
    """Minimum detectable difference; the design effect accounts for clustering by picture and for weights."""
    discordant = float((steps != 0).mean())
    scale = 1.0 if sample.strata is not None else 1 / len(steps)
    variance = float(((sample.sums(steps) * scale) ** 2).sum())
    effect = variance * len(steps) / discordant if variance else 1.0
    return detectable_difference(len(steps), discordant, alpha, POWER, effect)


def adjust(differences: Sequence[Difference], alpha: float) -> None:
    """Sets ``p_holm`` and ``significant`` in all differences.

    A family is all of these pairs in all parts of one grouping of one set. The mean over all categories of a set and
    the means over the categories of each split are separate families.

    Args:
        differences: of all pairs of the given runs, or of all pairs with the reference run.
        alpha: adjusted p-values up to this are significant.
    """
    families: dict[tuple[str, str, bool], list[Difference]] = {}
    for row in differences:
        families.setdefault((row["set"], row["by"], row["name"] == ALL), []).append(row)
    for rows in families.values():
        for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"], row["significant"] = adjusted, adjusted <= alpha


def _seed_notes(runs: Mapping[str, Sequence[Sequence[Prediction]]]) -> list[str]:
    """Remarks on what the number of seeds allows to conclude."""
    notes = []
    single = [name for name, seeds in runs.items() if len(seeds) == 1]
    few = [name for name, seeds in runs.items() if 1 < len(seeds) < _MANY_SEEDS]
    if len(single) > 1:
        names = ", ".join(single)
        notes.append(f"one run each: {names}. Their comparison holds for these runs, not for other seeds")
    if single and len(single) < len(runs):
        names = ", ".join(single)
        notes.append(f"one run: {names}. Its variance between seeds is assumed equal to the other setting's")
    if few:
        names = ", ".join(f"{name} ({len(runs[name])})" for name in few)
        notes.append(f"few seeds: {names}. The variance between seeds is uncertain, so the intervals are wide")
    return notes
