"""Statistics of observations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simreal.learners.normalizer import Normalizer


def test_the_normalizer_has_the_mean_and_variance_of_all_it_has_seen() -> None:
    random = np.random.default_rng(0)
    batches = [random.normal((5.0, -2.0, 1e4), (3.0, 0.1, 1.0), size=(n, 3)) for n in (1, 7, 30, 200)]
    normalizer = Normalizer(3, clip=1e9)
    for batch in batches:
        normalizer.update(torch.as_tensor(batch))
    seen = np.concatenate(batches)
    np.testing.assert_allclose(normalizer.mean.numpy(), seen.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normalizer.var.numpy(), seen.var(0), rtol=1e-9)
    assert float(normalizer.count) == 238
    expected = (seen - seen.mean(0)) / seen.std(0)
    np.testing.assert_allclose(normalizer(torch.as_tensor(seen)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_normalizer_clips_and_maps_constants_to_zero() -> None:
    normalizer = Normalizer(2, clip=5.0)
    normalizer.update(torch.tensor([[0.0, 7.0], [2.0, 7.0]]))
    assert normalizer(torch.tensor([[1.0, 7.0], [100.0, 7.0], [-100.0, 7.0]])).tolist() == [[0, 0], [5, 0], [-5, 0]]


@pytest.mark.parametrize("unit", [1e-9, 1e-4, 1e-2, 1.0, 1e3, 1e12])
def test_what_comes_out_does_not_depend_on_the_unit(unit: float) -> None:
    metres = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2.0
    one, other = Normalizer(3), Normalizer(3)
    for rows in metres.split(50):
        one.update(rows)
        other.update(unit * rows)
    torch.testing.assert_close(one(metres), other(unit * metres))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_with_rounding_noise_comes_out_as_zero(dtype: torch.dtype) -> None:
    normalizer = Normalizer(3)
    constant = torch.tensor([[0.1, -3e5, 0.0]], dtype=torch.float64)
    rounding = torch.tensor([[1.0], [1.0 + 2e-16], [1.0 - 1e-16], [1.0]], dtype=torch.float64)
    normalizer.update(constant * rounding)
    assert normalizer((constant * rounding).to(dtype)).eq(0.0).all()
    # nothing is known of the scale on which it would vary: the policy does not see that a robot's differs a little
    assert normalizer((constant * 1.01 + 1e-3).to(dtype)).eq(0.0).all()


def test_what_varies_a_little_far_from_zero_is_resolved() -> None:
    place = 1e4 + 1e-3 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normalizer = Normalizer(1)
    normalizer.update(place)
    seen = normalizer(place)[:, 0].double()
    # float32 has steps of 2^-10 there, so that a deployed policy sees it coarsely: it is damped, not hidden
    assert 0.2 < float(seen.std()) <= 1.0
    assert float(torch.corrcoef(torch.stack((seen, place[:, 0])))[0, 1]) > 0.9999
    rounded = normalizer(place.float())[:, 0].double()  # as a deployed policy gets it
    half_a_step = 2.0**-11 / float(normalizer.scale())
    assert float((rounded - seen).abs().max()) < 1.01 * half_a_step
    assert abs(float((rounded - seen).mean())) < 0.1 * half_a_step  # the mean itself is not rounded


def test_what_is_passed_through_stays_as_it_is_when_its_range_opens() -> None:
    """A range that ADR has closed is a constant for long; its first opening was +-5 standard deviations."""
    normalizer = Normalizer(3, clip=5.0)
    normalizer.passed = 2
    normalizer.update(torch.tensor([[0.0, -1.0, 0.2], [2.0, -1.0, 0.2]]).repeat(1000, 1))
    normalizer.update(torch.tensor([[1.0, -0.99, 0.2]]))
    rows = torch.tensor([[1.0, -0.99, 0.2], [1.0, -1.0, 0.21]])
    torch.testing.assert_close(normalizer(rows)[:, 1:], rows[:, 1:])
    torch.testing.assert_close(normalizer(rows)[:, 0], torch.zeros(2))
    torch.testing.assert_close(normalizer(rows) * normalizer.scale().float() + normalizer.offset().float(), rows)
