"""Drawing worlds and recording how they went, against a budget."""

from __future__ import annotations

import torch

from benchmarks.speed.timing import Row, median_seconds, torch_threads
from randomization.parameters import Parameter
from randomization.samplers.adr import ADR

_BUDGET_S = 0.002


def bench_adr(repeats: int, parameters: int = 100, num_envs: int = 4096) -> Row:
    """Sampling worlds and recording how their episodes went, on one thread, against a budget of 2 ms."""
    chosen = [Parameter(f"p{i}", nominal=0.0, limits=(-1.0, 1.0), step=0.05) for i in range(parameters)]
    adr = ADR(chosen, buffer_size=20, thresholds=(0.4, 0.6))
    performance = torch.rand(num_envs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def sample_and_record() -> None:
        lam, boundary = adr.sample(num_envs)
        adr.record(boundary, performance, lam)

    with torch_threads(1):
        sample_and_record()
        (seconds,) = median_seconds([sample_and_record], 10 * repeats)
    name = f"ADR, {parameters} parameters, {num_envs} worlds sampled and recorded, 1 thread"
    return Row(name, f"{1000 * _BUDGET_S:g} ms", _BUDGET_S / seconds, num_envs / seconds, num_envs / _BUDGET_S)
