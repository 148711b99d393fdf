"""Figures about finite numbers of episodes, against worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simreal.evaluation.intervals import (
    bootstrap_ci,
    clopper_pearson_lower,
    cvar,
    mean_and_error,
    unanimous_ci,
    wilson,
)


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


def test_mean_and_standard_error() -> None:
    # values 1, 2, 4: mean 7/3, variance ((4/3)^2 + (1/3)^2 + (5/3)^2) / 2 = 7/3, error sqrt(7/9)
    mean, error = mean_and_error([1.0, 2.0, 4.0])
    assert (mean, error) == pytest.approx((7 / 3, (7 / 9) ** 0.5))
    assert mean_and_error([5.0]) == (5.0, 0.0)


def test_the_exact_lower_bound_of_nothing_but_successes_and_of_eight_in_ten() -> None:
    # k = n: p^n = alpha; 8 in 10 at 2.5 %: 0.4439 (Clopper, Pearson 1934, the lower end of the 95 % interval)
    assert clopper_pearson_lower(10, 10, 0.05) == pytest.approx(0.05 ** (1 / 10))
    assert clopper_pearson_lower(8, 10, 0.025) == pytest.approx(0.4439, abs=1e-4)
    assert clopper_pearson_lower(0, 10, 0.05) == 0.0


def test_the_exact_lower_bound_is_too_high_no_more_often_than_it_may_be() -> None:
    n, p, alpha = 60, 0.85, 0.05
    chance = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    wrong = sum(chance[k] for k in range(n + 1) if clopper_pearson_lower(k, n, alpha) > p)
    assert 0.01 < wrong <= alpha


def test_the_bootstrap_of_two_values_is_that_of_a_coin() -> None:
    # Means of resamples of (0, 1): 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4
    assert bootstrap_ci([0.0, 1.0], level=0.4).tolist() == [0.5, 0.5]
    assert bootstrap_ci([0.0, 1.0], level=0.6).tolist() == [0.0, 1.0]
    assert bootstrap_ci([3.0, 3.0, 3.0]).tolist() == [3.0, 3.0]


def test_bootstrap_intervals_of_columns_are_those_of_each_alone_and_follow_the_seed() -> None:
    values = np.random.default_rng(0).normal(size=(80, 2))
    both = bootstrap_ci(values, seed=5)
    assert np.allclose(both[:, 1], bootstrap_ci(values[:, 1], seed=5))
    assert not np.allclose(both, bootstrap_ci(values, seed=6))


@pytest.mark.parametrize("kind", ["success", "return"])
def test_bootstrap_intervals_of_paired_differences_hold_the_truth_95_times_in_100(kind: str) -> None:
    generator, runs, n = np.random.default_rng(1), 1000, 150
    world = generator.normal(size=(n, runs))  # what two policies have in common: the episode
    if kind == "return":
        differences, truth = 0.3 + 0.5 * generator.standard_gamma(2.0, size=(n, runs)), 1.3
    else:
        a, b = (world + 0.5 * generator.normal(size=(n, runs)) < edge for edge in (0.9, 0.5))
        differences = a.astype(float) - b.astype(float)
        truth = _normal(0.9 / math.sqrt(1.25)) - _normal(0.5 / math.sqrt(1.25))
    low, high = bootstrap_ci(differences, seed=3)
    held = int(((low <= truth) & (truth <= high)).sum())
    # binomial: 950 +- 3 * sqrt(1000 * 0.95 * 0.05) = 950 +- 21; percentile intervals of skewed data fall a little short
    assert 920 <= held <= 971


def _normal(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def test_rates_whose_pairs_all_have_one_difference_may_still_differ_by_what_went_unseen() -> None:
    # (1 - d)^100 = 0.025: d = 0.0362. Of equal pairs a share d may be +-1; of pairs of difference 1 it may be -1:
    # 0.9638 - 0.0362 = 0.9276
    assert unanimous_ci(0.0, 100) == pytest.approx([-0.0362, 0.0362], abs=1e-4)
    assert unanimous_ci(1.0, 100) == pytest.approx([0.9276, 1.0], abs=1e-4)
    assert unanimous_ci(-1.0, 100) == pytest.approx([-1.0, -0.9276], abs=1e-4)
