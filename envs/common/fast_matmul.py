"""Faster float32 products on the CPU, without giving up float32 accuracy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import torch

# MKL, which gets what oneDNN does not take (small products; everything, on processors without AVX-512 and on those with
# AMX), divides sums among threads unless it is told to give the same bits at any number of them. It reads this when it
# multiplies for the first time; whoever has set another value keeps it.
_CAPABILITY = "AVX512" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "AVX2"
os.environ.setdefault("MKL_CBWR", f"{_CAPABILITY},STRICT")

_LIKE_UPDATES = (  # rows, inputs, outputs
    *((256, 256, 1), (256, 1, 8), (1024, 256, 12), (700, 4, 1), (512, 64, 64)),
    *product((8, 16, 32, 64), (16, 17), (4, 12, 16)),  # some of these differ on processors of AMD
)


@cache
def _exact() -> bool:
    """Whether oneDNN, allowed to use bfloat16, computes float32 products to float32 accuracy on this processor.

    Not so where it has bfloat16 matrix units (AMX): oneDNN would use them, at 8 bits of mantissa. MKL is faster there.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    with _allowed():
        error = (a @ b).double() - a.double() @ b.double()
    return float(error.abs().max()) < 1e-3  # float32 gives about 5e-5, bfloat16 about 1e-1


@contextlib.contextmanager
def _allowed() -> Iterator[None]:
    mkldnn: Any = torch.backends.mkldnn  # its type stubs do not know `matmul`
    settings = mkldnn.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


@contextlib.contextmanager
def fast_matmul() -> Iterator[None]:
    """Within the block, torch multiplies float32 matrices with oneDNN instead of its default library.

    On processors with AVX-512 that made the products of a learner's update twice as fast, at the same accuracy.
    Nothing changes where oneDNN is missing or would lose accuracy.
    """
    with _allowed() if _exact() else contextlib.nullcontext():
        yield


@cache
def thread_independent() -> bool:
    """Whether products like those of a learner's update are the same at any number of threads on this machine.

    Tried, not looked up: which library multiplies depends on the processor, the sizes and how torch was built.
    """
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    sizes = [(random(rows, n), random(rows, m), random(n, m)) for rows, n, m in _LIKE_UPDATES]
    before = torch.get_num_threads()
    results: list[list[torch.Tensor]] = []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            with fast_matmul():
                results.append([p for x, y, w in sizes for p in (x @ w, y @ w.mT, y.mT @ x)])
    finally:
        torch.set_num_threads(before)
    return all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
