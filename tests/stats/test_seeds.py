"""Several seeds: by hand on four cases,  how often intervals hold the truth."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from kvg.stats.seeds import Spread, combine, contrast

CASES, PICTURES = 1336, 531


def test_two_seeds_on_four_cases_by_hand():
    # Seeds have 1/2 and 1/4: their mean varies by (1/8)^2 + (1/8)^2 over 2. Cases have 1, 1/2, 0, 0, around 3/8:
    # squares 11/16, over 4 * 3; what a seed makes of a case: squares 3/16 each, over 4 * 4, and again over 2.
    found = combine([[1, 1, 0, 0], [1, 0, 0, 0]])
    assert found.mean == 0.375
    assert found.seed_variance == pytest.approx(1 / 64)
    assert found.case_variance == pytest.approx(11 / 16 / 12 - 3 / 16 / 16)
    assert (found.seed_df, found.case_df) == (1, 3)
    parts = np.array([found.seed_variance, found.case_variance])
    half = parts @ stats.t.isf(0.025, [1, 3]) / parts.sum() * np.sqrt(parts.sum())
    assert found.interval() == pytest.approx((0.375 - half, 0.375 + half))


def test_a_difference_by_hand():
    # Case by case 1, 1/2, 0, 1/2 around 1/2: squares 1/2, over 4 * 3. Seeds: 1 and 1/2 against one: variance 1/8, times
    # (1/2 + 1); what a seed makes of a case: 4 * 1/16 each of two, over 4 * 4, times 3/2.
    found = contrast([[1, 1, 1, 1], [1, 0, 1, 0]], [[0, 0, 1, 0]])
    assert found.mean == 0.5
    assert found.seed_variance == pytest.approx(1 / 8 * 3 / 2)
    assert found.case_variance == pytest.approx(max(0.0, 0.5 / 12 - 8 / 16 / 16 * 3 / 2))
    assert (found.seed_df, found.case_df) == (1, 3)


def test_a_p_value_of_many_standard_errors_is_tiny_and_no_fault():
    for seed_df, case_df in product((1, 3, 30), (3, 530, 5000)):
        spread = Spread(mean=0.9, seed_variance=1e-9, case_variance=1e-6, seed_df=seed_df, case_df=case_df)
        tails = 2 * stats.t.sf(0.9 / spread.error, [seed_df, case_df])
        assert min(tails) <= spread.p <= max(tails) * (1 + 1e-6)


def test_seeds_that_agree_are_compared_by_their_cases():
    answers = np.random.default_rng(0).random(500) < 0.6
    found = combine([answers, answers, answers])
    assert found.seed_variance == 0
    assert found.error == pytest.approx(np.std(answers, ddof=1) / np.sqrt(500))
    assert found.p < 1e-9
    assert contrast([answers, answers], [answers]).p == 1.0


def test_seeds_on_cases_that_are_all_alike_are_compared_by_a_t_test():
    # Every case of a seed is answered alike, so that only seeds vary: 1, 1, 0 against 0, 0, 0, as scipy would.
    after, before = np.repeat([[1.0], [1.0], [0.0]], 40, axis=1), np.zeros((3, 40))
    theirs = stats.ttest_ind(after.mean(axis=1), before.mean(axis=1))
    found = contrast(after, before)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-4)
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval()))


def test_the_p_value_is_that_of_the_interval_which_ends_at_zero():
    rng = np.random.default_rng(3)
    found = contrast(rng.random((3, 200)) < 0.6, rng.random((2, 200)) < 0.5, clusters=[n // 3 for n in range(200)])
    ends = found.interval(level=1 - found.p)
    assert min(map(abs, ends)) == pytest.approx(0, abs=1e-6)


def test_pictures_widen_and_strata_weigh():
    answers = np.random.default_rng(1).random((3, 60)) < 0.5
    tripled = np.repeat(answers, 3, axis=1)
    pictures = [n // 3 for n in range(180)]
    assert combine(tripled, pictures).error == pytest.approx(combine(answers).error)
    assert combine(tripled).error < combine(answers).error
    strata = ["large"] * 50 + ["small"] * 10
    expected = (answers[:, :50].mean() + answers[:, 50:].mean()) / 2
    assert combine(answers, strata=strata).mean == pytest.approx(expected)


def draw(rng, num_seeds, deviation, ease):
    """Answers of seeds whose accuracy differs by that much."""
    return rng.random((num_seeds, CASES)) < ease + rng.normal(0, deviation, (num_seeds, 1))


def easiness(rng, pictures):
    """Of cases; half of them are as easy as their picture. The mean is 1/2."""
    of_pictures, own = rng.choice([0.15, 0.85], PICTURES), rng.choice([0.15, 0.85], CASES)
    return np.where(rng.random(CASES) < 0.5, of_pictures[pictures], own)


@pytest.mark.parametrize("deviation", [0.0, 0.02, 0.04])
def test_intervals_of_three_seeds_hold_the_truth_at_least_as_often_as_they_say(deviation):
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(700):
        pictures = rng.integers(PICTURES, size=CASES)
        low, high = combine(draw(rng, 3, deviation, easiness(rng, pictures)), pictures.tolist()).interval()
        held += low <= 0.5 <= high
    assert stats.binom.ppf(0.005, 700, 0.95) <= held <= stats.binom.ppf(0.995, 700, 0.98)


@pytest.mark.parametrize(("num_after", "num_before"), [(3, 3), (3, 1)])
@pytest.mark.parametrize("deviation", [0.0, 0.02])
def test_equal_settings_differ_significantly_no_more_often_than_the_level_says(num_after, num_before, deviation):
    rng = np.random.default_rng(12)
    significant = 0
    for _ in range(700):
        pictures = rng.integers(PICTURES, size=CASES)
        ease = easiness(rng, pictures)
        other = np.where(rng.random(CASES) < 0.6, ease, easiness(rng, pictures))
        after, before = draw(rng, num_after, deviation, ease), draw(rng, num_before, deviation, other)
        significant += contrast(after, before, pictures.tolist()).p <= 0.05
    assert stats.binom.ppf(0.005, 700, 0.02) <= significant <= stats.binom.ppf(0.995, 700, 0.05)


def test_a_percentile_bootstrap_of_three_seeds_would_hold_the_truth_far_too_seldom():
    # Why it is not used: means of three drawn out of three, all 27 ways, where only seeds vary.
    seeds = np.random.default_rng(13).normal(size=(4000, 3))
    means = np.stack([seeds[:, list(picks)].mean(axis=1) for picks in product(range(3), repeat=3)], axis=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert ((low <= 0) & (high >= 0)).mean() < 0.8
    t = stats.t.isf(0.025, 2) * seeds.std(axis=1, ddof=1) / np.sqrt(3)
    assert (np.abs(seeds.mean(axis=1)) <= t).mean() == pytest.approx(0.95, abs=0.012)


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(ValueError, match="two seeds"):
        combine([[1, 0, 1]])
    with pytest.raises(ValueError, match="two seeds on one side"):
        contrast([[1, 0]], [[0, 1]])
    with pytest.raises(ValueError, match="same cases"):
        contrast([[1, 0], [1, 1]], [[0, 1, 1]])
    with pytest.raises(ValueError, match="at least one case"):
        combine([[], []])
