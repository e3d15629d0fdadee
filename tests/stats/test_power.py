"""Power of the paired test: against an enumeration with scipy, against Connor's formula, and its own inverse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kvg.stats.paired import mcnemar
from kvg.stats.power import detectable_difference, mcnemar_power


def enumerated(num, difference, discordant):
    """Chance of all outcomes that are significant, by scipy's trinomial."""
    better, worse = (discordant + difference) / 2, (discordant - difference) / 2
    return sum(
        stats.multinomial.pmf([b, c, num - b - c], num, [better, worse, 1 - discordant])
        for b in range(num + 1)
        for c in range(num + 1 - b)
        if mcnemar(b, c).p <= 0.05
    )


@pytest.mark.parametrize(
    ("num", "difference", "discordant"), [(20, 0.2, 0.4), (30, 0.3, 0.3), (25, -0.1, 0.5), (12, 0, 1)]
)
def test_power_is_the_chance_of_all_significant_outcomes(num, difference, discordant):
    assert mcnemar_power(num, difference, discordant) == pytest.approx(
        enumerated(num, difference, discordant), rel=1e-9
    )


@pytest.mark.parametrize(
    ("num", "difference", "discordant"), [(1336, 0.03, 0.2), (1336, 0.03, 0.1), (1336, 0.03, 0.3), (544, 0.05, 0.2)]
)
def test_power_is_near_connors_formula(num, difference, discordant):
    z = stats.norm.ppf(0.975)
    reach = difference * np.sqrt(num) - z * np.sqrt(discordant)
    connor = stats.norm.cdf(reach / np.sqrt(discordant - difference**2))
    assert mcnemar_power(num, difference, discordant) == pytest.approx(connor, abs=0.005)


@pytest.mark.parametrize(("num", "discordant"), [(1336, 0.2), (1336, 0.05), (544, 0.2), (300, 0.1), (100, 0.4)])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.9])
def test_the_detectable_difference_is_found_with_its_power(num, discordant, power):
    found = detectable_difference(num, discordant, power=power)
    assert mcnemar_power(num, found, discordant) == pytest.approx(power, abs=0.02)


@pytest.mark.parametrize(("num", "discordant"), [(100, 0.2), (50, 0.2), (30, 0.2), (89, 0.1), (40, 0.0)])
def test_with_few_cases_it_is_told_a_little_too_large_never_too_small(num, discordant):
    found = detectable_difference(num, discordant)
    assert 0.8 <= mcnemar_power(num, found, max(discordant, found)) < 0.9


def test_shared_pictures_make_cases_worth_fewer():
    # Twice the variance is worth half the cases, but for the difference's own share of the variance.
    assert detectable_difference(1336, 0.2, design_effect=2) == pytest.approx(detectable_difference(668, 0.2), rel=0.01)


def test_a_handful_of_cases_can_see_nothing():
    assert detectable_difference(3, 0.5) is None
    assert mcnemar_power(4, 1.0, 1.0) == 0.0  # four of four: mid-p 1/16
    assert mcnemar_power(5, 1.0, 1.0) == 1.0  # five of five: 1/32
    assert mcnemar_power(10, 0.0, 0.0) == 0.0


@pytest.mark.parametrize(("num", "difference", "discordant"), [(0, 0, 0.1), (9, 0.2, 0.1), (9, -0.2, 0.1), (9, 0, 1.1)])
def test_what_cannot_be_is_refused(num, difference, discordant):
    with pytest.raises(ValueError, match="needs a case"):
        mcnemar_power(num, difference, discordant)
