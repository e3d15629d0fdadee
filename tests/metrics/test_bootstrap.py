"""The bootstrap interval: against the normal approximation, and its behaviour at the edges."""

from __future__ import annotations

import math

import pytest

from kvg.metrics.bootstrap import bootstrap_interval


def test_agrees_with_the_normal_approximation() -> None:
    values = [1.0] * 120 + [0.0] * 80  # p = 0.6, n = 200: standard error sqrt(.24 / 200) = 0.03464
    low, high = bootstrap_interval(values, seed=0)
    error = math.sqrt(0.6 * 0.4 / 200)
    assert low == pytest.approx(0.6 - 1.96 * error, abs=0.01)
    assert high == pytest.approx(0.6 + 1.96 * error, abs=0.01)


def test_a_wider_level_is_a_wider_interval() -> None:
    values = [float(n % 7) for n in range(60)]
    narrow, wide = bootstrap_interval(values, seed=1, level=0.5), bootstrap_interval(values, seed=1, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_seed_decides() -> None:
    values = [float(n % 3) for n in range(50)]
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
