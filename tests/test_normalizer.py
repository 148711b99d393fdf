"""Statistics of observations."""

from __future__ import annotations

import numpy as np
import torch

from simreal.learn.normalizer import Normalizer


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
