"""Makes waiting for the device an error, to find out where it happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

VARIABLE = "SIMREAL_GPU_WAITS"  # "error": where the step path is measured or tested, waiting for CUDA raises


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """Within, whatever makes the host wait for CUDA raises RuntimeError: reading a number, choosing rows by a mask, a
    copy from memory that is not pinned. On other devices nothing happens.

    torch cannot see what Warp waits for: that happens only where a sequence of launches is run for the first time.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def no_waits_if_asked(device: torch.device) -> Iterator[None]:
    """`no_waits` where the environment variable SIMREAL_GPU_WAITS is "error". Raises ValueError for anything else."""
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "error"):
        raise ValueError(f"{VARIABLE}: expected 'error' or nothing, got {asked!r}")
    if asked:
        with no_waits(device):
            yield
    else:
        yield
