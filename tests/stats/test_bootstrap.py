"""The bootstrap interval: against scipy's and against formulas, and its behaviour at the edges."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from kvg.stats.bootstrap import bootstrap_interval, statistic_interval


def test_agrees_with_the_normal_approximation() -> None:
    values = [1.0] * 120 + [0.0] * 80  # p = 0.6, n = 200: standard error sqrt(.24 / 200) = 0.03464
    low, high = bootstrap_interval(values, seed=0)
    error = math.sqrt(0.6 * 0.4 / 200)
    assert low == pytest.approx(0.6 - 1.96 * error, abs=0.01)
    assert high == pytest.approx(0.6 + 1.96 * error, abs=0.01)


def test_agrees_with_scipy_on_values_that_are_all_different() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=80)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1))
    ours = bootstrap_interval(values.tolist(), seed=0, num=20_000)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.015)  # both are known to about 0.005


def test_cases_of_one_picture_are_drawn_together() -> None:
    # 50 pictures of 4 cases that are all right or all wrong: 200 cases tell as much as 50.
    values = [float(picture < 30) for picture in range(50) for _ in range(4)]
    pictures = [picture for picture in range(50) for _ in range(4)]
    alone = bootstrap_interval(values, seed=0)
    low, high = bootstrap_interval(values, seed=0, clusters=pictures)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.24 / 50), abs=0.02)
    assert alone[1] - alone[0] == pytest.approx((high - low) / 2, abs=0.02)


def test_with_pictures_of_several_sizes_the_mean_is_a_ratio_of_sums() -> None:
    # Two pictures: one right case, and three wrong ones. Drawn are (r, r): 1, (r, w): 1/4 and (w, w): 0.
    low, high = bootstrap_interval([1, 0, 0, 0], seed=0, clusters=["r", "w", "w", "w"], level=0.4)
    assert (low, high) == (0.25, 0.25)
    assert bootstrap_interval([1, 0, 0, 0], seed=0, clusters=["r", "w", "w", "w"], level=0.6) == (0.0, 1.0)


def test_the_mean_of_strata_weighs_a_small_one_as_a_large_one() -> None:
    # 400 cases of a category, half of them right, and 16 of another: variance (.25 / 400 + .25 / 16) / 4 of the mean.
    values = [float(n % 2) for n in range(416)]
    low, high = bootstrap_interval(values, seed=0, strata=["large"] * 400 + ["small"] * 16)
    error = math.sqrt((0.25 / 400 + 0.25 / 16) / 4)
    assert (low, high) == pytest.approx((0.5 - 1.96 * error, 0.5 + 1.96 * error), abs=0.01)


def test_where_all_are_right_the_interval_is_that_of_clopper_and_pearson() -> None:
    theirs = stats.binomtest(12, 12).proportion_ci(method="exact")
    assert bootstrap_interval([1] * 12, seed=0, bounds=(0, 1)) == pytest.approx((theirs.low, 1.0))
    assert bootstrap_interval([0] * 12, seed=0, bounds=(0, 1)) == pytest.approx((0.0, 1 - theirs.low))
    low, high = bootstrap_interval([0] * 12, seed=0, clusters=[0, 0, 1, 1, 2, 2] * 2, bounds=(-1, 1))
    assert (low, high) == pytest.approx((-(1 - 0.025 ** (1 / 3)), 1 - 0.025 ** (1 / 3)))  # three pictures


def test_the_interval_of_a_gap_is_that_of_independent_groups() -> None:
    columns = [[1, 1, 0, 0]] * 80 + [[0, 1, 0, 0]] * 20 + [[0, 0, 1, 1]] * 50 + [[0, 0, 0, 1]] * 50
    low, high = statistic_interval(lambda s: s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3], columns, seed=0)
    error = math.sqrt(0.8 * 0.2 / 100 + 0.5 * 0.5 / 100)
    assert (low, high) == pytest.approx((0.3 - 1.96 * error, 0.3 + 1.96 * error), abs=0.02)


def test_1336_cases_take_a_fifth_of_a_second_at_most() -> None:
    rng = np.random.default_rng(0)
    hits, overlaps = (rng.random(1336) < 0.6).astype(float), rng.random(1336)
    pictures = rng.integers(531, size=1336).tolist()
    times = []
    for values, clusters in ((hits, None), (hits, pictures), (overlaps, None), (overlaps, pictures)):
        began = time.process_time()
        bootstrap_interval(values.tolist(), seed=0, clusters=clusters)
        times.append(time.process_time() - began)
    assert max(times) < 0.2


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # 1,336 cases on 531 pictures, of which some are easy and some hard; the truth is 0.5.
    rng = np.random.default_rng(20)
    held = []
    for _ in range(2000):
        pictures = rng.integers(531, size=1336)
        hits = rng.random(1336) < rng.choice([0.1, 0.9], size=531)[pictures]
        low, high = bootstrap_interval(hits.tolist(), seed=0, num=1000, clusters=pictures.tolist())
        held.append(low <= 0.5 <= high)
    fewest, most = stats.binom.ppf([0.005, 0.995], 2000, 0.95)
    assert fewest <= sum(held) <= most


def test_a_wider_level_is_a_wider_interval() -> None:
    values = [float(n % 7) for n in range(60)]
    narrow, wide = bootstrap_interval(values, seed=1, level=0.5), bootstrap_interval(values, seed=1, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("num_kinds", [3, 200])  # kinds are drawn, or cases where nearly all differ
def test_the_seed_decides(num_kinds: int) -> None:
    values = [float(n % num_kinds) for n in range(300)]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_one_case_says_nothing_about_its_spread() -> None:
    assert bootstrap_interval([0.7], seed=0) == (0.7, 0.7)


@pytest.mark.parametrize(
    ("values", "num", "level"), [([], 10, 0.95), ([1.0], 0, 0.95), ([1.0], 10, 0.0), ([1.0], 10, 1.0)]
)
def test_misuse_is_refused(values: list[float], num: int, level: float) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval(values, seed=0, num=num, level=level)
    with pytest.raises(ValueError, match="at least one value"):
        statistic_interval(lambda s: s[:, 0], [[v] for v in values], seed=0, num=num, level=level)


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels for 3 cases"):
        bootstrap_interval([1, 0, 1], seed=0, clusters=["a", "b"])
