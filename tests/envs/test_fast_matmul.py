"""Faster products must not be less exact ones."""

from __future__ import annotations

from typing import Any

import torch

from envs.common.fast_matmul import fast_matmul


def test_products_keep_float32_accuracy_and_the_setting_is_restored() -> None:
    a, b = torch.randn(128, 256), torch.randn(256, 64)
    mkldnn: Any = torch.backends.mkldnn
    settings = mkldnn.matmul
    before = settings.fp32_precision
    with fast_matmul():
        product = a @ b
    assert settings.fp32_precision == before
    # 256 products of size about 1: float32 is exact to about 5e-5, bfloat16 only to about 0.1.
    assert float((product.double() - a.double() @ b.double()).abs().max()) < 1e-3
