"""Paired tests: against scipy, against all ways of changing sides, and in thousands of comparisons of equal models."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from scipy import stats

from kvg.stats.bootstrap import bootstrap_interval
from kvg.stats.paired import holm, mcnemar, sign_flip
from kvg.stats.power import mcnemar_power

NUM = 2000  # simulated comparisons
CASES, PICTURES = 1336, 531  # of KVG-Bench
test_of_counts = lru_cache(maxsize=None)(mcnemar)
test_of_counts.__test__ = False


def band(rate):
    """Least and greatest count of that many comparisons which is no surprise: 99 of 100 lie within."""
    return stats.binom.ppf([0.005, 0.995], NUM, rate)


@pytest.mark.parametrize(("b", "c"), [(1, 7), (0, 5), (12, 12), (130, 100), (900, 1000), (1, 0)])
def test_the_exact_p_value_is_the_binomial_one(b, c):
    assert mcnemar(b, c).exact == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_the_mid_p_value_of_a_published_table():
    # Fagerland et al. 2013: 21 children before and after a transplantation, 1 against 7 changed; 0.0703 and 0.0391.
    found = mcnemar(1, 7)
    assert (round(found.exact, 4), round(found.p, 4)) == (0.0703, 0.0391)


@pytest.mark.parametrize("sums", [[2, 1, 1], [3, -1, 2, 2, -1, 1], [1, 1, -1, -1], [5, -1, -1, -1, -1, -1]])
def test_whole_numbers_change_sides_in_all_ways(sums):
    reached = [
        abs(sum(s * v for s, v in zip(signs, sums, strict=True))) for signs in product((1, -1), repeat=len(sums))
    ]
    more, as_much = (sum(f(v, abs(sum(sums))) for v in reached) / len(reached) for f in (int.__gt__, int.__eq__))
    found = sign_flip(sums)
    assert found.exact == pytest.approx(more + as_much)
    assert found.p == pytest.approx(more + as_much / 2)
    theirs = stats.permutation_test(
        (sums, [0] * len(sums)), lambda x, y: np.sum(x) - np.sum(y), permutation_type="samples", n_resamples=np.inf
    )
    assert found.exact == pytest.approx(theirs.pvalue)


def test_fractions_are_drawn_and_come_close_to_all_ways():
    sums = np.array([0.3, 0.25, 0.2, -0.1, 0.15, 0.12, -0.05, 0.4, 0.33, -0.2])
    reached = np.abs(np.array(list(product((1, -1), repeat=10))) @ sums)
    exact = (reached > sums.sum() - 1e-9).mean()
    assert sign_flip(sums, seed=0).exact == pytest.approx(exact, abs=0.002)
    assert sign_flip(sums, seed=0) == sign_flip(sums, seed=0) != sign_flip(sums, seed=1)
    # What is whole but for rounding is counted in all ways.
    assert sign_flip([0.1 + 0.2 + 0.7, 1.0, 1e-17]) == sign_flip([1, 1])


def test_nothing_that_differs_tells_nothing():
    assert sign_flip([]).p == sign_flip([0, 0]).p == mcnemar(0, 0).p == 1.0
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_equal_models_differ_significantly_as_often_as_the_level_says(seed):
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(CASES, [0.45, 0.1, 0.1, 0.35], size=NUM)  # both right, only one, only the other, none
    tests = [test_of_counts(int(b), int(c)) for _, b, c, _ in counts]
    significant = sum(test.p <= 0.05 for test in tests)
    fewest, most = band(0.05)
    assert fewest <= significant <= most
    assert sum(test.exact <= 0.05 for test in tests) < significant  # the exact one gives away some of its level


def significant_share(size, is_significant):
    """Chance that a test of so many discordant cases is significant, of which equal models get half each."""
    reach = bisect_left(range(size // 2 + 1), True, key=lambda b: not is_significant(test_of_counts(b, size - b)))
    return 2 * stats.binom.cdf(reach - 1, size, 0.5)


@pytest.mark.parametrize("discordant", [0.05, 0.1, 0.2])
def test_the_mid_p_keeps_its_level_and_the_exact_test_stays_below(discordant):
    sizes = np.arange(*stats.binom.ppf([1e-6, 1 - 1e-6], CASES, discordant).astype(int))
    chances = stats.binom.pmf(sizes, CASES, discordant)
    mid = chances @ [significant_share(int(size), lambda test: test.p <= 0.05) for size in sizes]
    exact = chances @ [significant_share(int(size), lambda test: test.exact <= 0.05) for size in sizes]
    assert mid == pytest.approx(mcnemar_power(CASES, 0.0, discordant), abs=1e-5)
    assert mid == pytest.approx(0.05, abs=0.001)
    assert exact < mid - 0.002


@pytest.mark.parametrize(("seed", "discordant"), [(4, 0.2), (5, 0.2), (6, 0.1)])
def test_three_points_are_found_as_often_as_theory_says(seed, discordant):
    rng = np.random.default_rng(seed)
    better, worse = (discordant + 0.03) / 2, (discordant - 0.03) / 2
    counts = rng.multinomial(CASES, [0.4, better, worse, 0.6 - discordant], size=NUM)
    significant = sum(test_of_counts(int(b), int(c)).p <= 0.05 for _, b, c, _ in counts)
    fewest, most = band(mcnemar_power(CASES, 0.03, discordant))
    assert fewest <= significant <= most


def equal_models(rng):
    """Differences of two models that are equally good, but each finds other pictures easy; and the pictures."""
    pictures = rng.integers(PICTURES, size=CASES)
    ease = rng.choice([0.25, 0.75], size=(2, PICTURES))  # by model
    right = rng.random((2, CASES)) < ease[:, pictures]
    return right[0].astype(int) - right[1], pictures


@pytest.mark.parametrize("seed", [7, 8])
def test_with_shared_pictures_the_test_by_picture_keeps_its_level_and_mcnemars_does_not(seed):
    rng = np.random.default_rng(seed)
    naive = by_picture = 0
    for _ in range(NUM):
        steps, pictures = equal_models(rng)
        naive += test_of_counts(int((steps > 0).sum()), int((steps < 0).sum())).p <= 0.05
        by_picture += sign_flip(np.bincount(pictures, steps)).p <= 0.05
    fewest, most = band(0.05)
    assert fewest <= by_picture <= most
    assert naive > 1.4 * most


@pytest.mark.slow
def test_with_shared_pictures_the_interval_of_a_difference_leaves_out_zero_about_as_often_as_it_says():
    # A percentile interval is a little narrow, by 0.5 of 100; the test by picture decides, not the interval.
    rng = np.random.default_rng(9)
    out = 0
    for _ in range(NUM):
        steps, pictures = equal_models(rng)
        low, high = bootstrap_interval(steps.tolist(), seed=0, clusters=pictures.tolist())
        out += not low <= 0 <= high
    assert band(0.05)[0] <= out <= band(0.055)[1]


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.5, 0.03]) == pytest.approx([0.09, 0.04, 0.5, 0.09])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
