"""Runs compared on the same cases: accuracies with intervals, and which differences are more than luck.

Two single runs are compared by the exact sign test of ``kvg.stats.paired``, which is McNemar's where no picture is
shared; the interval of their difference is a paired bootstrap of pictures. That speaks of these two runs. Where a
setting has several seeds, ``kvg.stats.seeds`` puts seeds and cases together, and the comparison speaks of the
settings; a difference must pass the sign test of the mean answers there, too, which still holds for a handful of cases.

Many comparisons find something by luck. P-values are adjusted (Holm) over a family, which ``adjust`` alone defines: all
pairs of the runs given, in all parts of one grouping of one set. So all pairs on all cases are one family, all pairs in
all ten categories another. Every command adjusts over that family, also where it shows some of the pairs only: the
p-value of a pair depends on the runs, not on the command. The adjusted one says what is ``significant``. An interval is
of one difference alone and is not adjusted.
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
POWER: Final = 0.8  # with which the smallest detectable difference is found
MCNEMAR: Final = "McNemar, mid-p"
BY_PICTURE: Final = "signs by picture, mid-p"
OVER_SEEDS: Final = "t over seeds and pictures"
_MANY_SEEDS: Final = 5  # from here on an interval is less than half as wide again as with any number


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
    """Accuracy of ``after`` less that of ``before`` on a group of the same cases; shares are in 0-1.

    ``only_after`` and ``only_before`` are McNemar's counts: cases that only one of them has right, with several seeds
    their mean over all pairs of seeds. ``p_holm``, which is ``p`` adjusted, decides. ``p_exact`` is the conservative
    sister of ``p``, and ``p_mcnemar`` takes the cases for independent; both are None with several seeds. ``detectable``
    is the smallest true difference that this comparison would have found with a power of 0.8, None where there is none.
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
    """All there is to say of some runs on the same cases.

    Attributes:
        runs: number of seeds by setting, in the order given.
        num_cases: that all have answered.
        num_left_out: that only some have.
        level: of the intervals; p-values up to ``1 - level`` are significant.
        seed: of the bootstrap.
        accuracies: of each setting on each group.
        differences: of each pair on each group; the earlier run of a pair comes first in ``runs``.
        notes: what a reader must know.
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
        """As it goes into JSON."""
        return asdict(self)

    def difference(self, before: str, after: str, by: str = ALL, name: str = ALL, set: str | None = None) -> Difference:
        """The difference of a pair on a group, of the first set or of a named one.

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
    """Compares settings, every two of them or each with one, on the cases that they share.

    Args:
        runs: by the name of a setting its runs, one a seed, each with all its cases (``read_predictions``).
        by: groupings, some of ``GROUPINGS``; with ``category`` come category means, in all and by split.
        seed: of the bootstrap; the same one gives the same figures.
        level: of the intervals, in (0, 1).
        common: leave out cases that not all runs have, instead of refusing them.
        against: the setting that all others are compared with; None compares every two. The family is these pairs
            alone. Fewer pairs are fewer chances of luck, so that decided in advance it finds more.

    Raises:
        ConfigError: a grouping or ``against`` is unknown, the level is outside (0, 1), or a setting has no run.
        DataError: runs hold different cases, or different truths for the same case.
    """
    unknown = [grouping for grouping in by if grouping not in GROUPINGS]
    if unknown:
        raise ConfigError("by", f"'{unknown[0]}' is no grouping; choose some of {', '.join(GROUPINGS)}")
    if not 0 < level < 1:
        raise ConfigError("level", f"{level:g} must lie between 0 and 1; 0.95 is usual")
    if not runs:
        raise ConfigError("runs", "there is none; name at least one")
    if against is not None and against not in runs:
        raise ConfigError("against", f"'{against}' is no run; there are {', '.join(runs)}")
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
        whole = sample.sums(new_mean - old_mean) * len(old) * len(new)  # whole numbers again
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
    """Smallest detectable difference; pictures and weights make cases worth less than as many independent ones."""
    discordant = float((steps != 0).mean())
    scale = 1.0 if sample.strata is not None else 1 / len(steps)
    variance = float(((sample.sums(steps) * scale) ** 2).sum())
    effect = variance * len(steps) / discordant if variance else 1.0
    return detectable_difference(len(steps), discordant, alpha, POWER, effect)


def adjust(differences: Sequence[Difference], alpha: float) -> None:
    """Fills in ``p_holm`` and ``significant`` of all differences between some runs.

    A family is all of these pairs in all parts of one grouping of one set. The mean over all categories of a set is a
    family apart from those over the categories of each split.

    Args:
        differences: of every pair of the runs given, or of every pair with the one that all are compared with.
        alpha: adjusted p-values up to this are significant.
    """
    families: dict[tuple[str, str, bool], list[Difference]] = {}
    for row in differences:
        families.setdefault((row["set"], row["by"], row["name"] == ALL), []).append(row)
    for rows in families.values():
        for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"], row["significant"] = adjusted, adjusted <= alpha


def _seed_notes(runs: Mapping[str, Sequence[Sequence[Prediction]]]) -> list[str]:
    """What the number of seeds allows to be said."""
    notes = []
    single = [name for name, seeds in runs.items() if len(seeds) == 1]
    few = [name for name, seeds in runs.items() if 1 < len(seeds) < _MANY_SEEDS]
    if len(single) > 1:
        names = ", ".join(single)
        notes.append(f"one run each: {names}. What is said of two of them is said of these runs, not of other seeds")
    if single and len(single) < len(runs):
        notes.append(f"one run: {', '.join(single)}. Its seeds are taken to differ as those that it is compared with")
    if few:
        names = ", ".join(f"{name} ({len(runs[name])})" for name in few)
        notes.append(f"few seeds: {names}. How far seeds differ is hardly known, and the intervals are as wide as that")
    return notes
