"""Figures about finite numbers of episodes, against worked numbers."""

from __future__ import annotations

import pytest

from simreal.statistics import cvar, mean_and_error, median, wilson


def test_wilson_interval_of_eight_in_ten() -> None:
    # p = 0.8, n = 10, z = 1.96: centre (0.8 + 0.192) / 1.384 = 0.7167, half 0.2265 (Wilson 1927)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=2e-4)


def test_wilson_interval_ends_at_certainty() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=2e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_cvar_is_the_mean_of_the_worst_tenth() -> None:
    assert cvar(list(range(20))) == 0.5  # 0 and 1
    assert cvar([3.0, 1.0]) == 1.0  # at least one value


def test_mean_standard_error_and_median() -> None:
    # values 1, 2, 4: mean 7/3, variance ((4/3)^2 + (1/3)^2 + (5/3)^2) / 2 = 7/3, error sqrt(7/9)
    mean, error = mean_and_error([1.0, 2.0, 4.0])
    assert (mean, error) == pytest.approx((7 / 3, (7 / 9) ** 0.5))
    assert mean_and_error([5.0]) == (5.0, 0.0)
    assert median([4.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
