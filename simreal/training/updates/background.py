"""An update beside the collecting of the next steps, on a thread of its own.

Threads of one Python process take turns: one of them executes Python at a time. Physics (C), products of matrices and
the backward pass let the other go on meanwhile. A thread that wants its turn asks for it after `_TURN_S`. 400 small
torch operations, as many as a step of the environments has, took 0.9 ms alone; beside a thread with larger ones 18 ms
with Python's usual 5 ms, and 1.0 ms with these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch

from envs.common.fast_matmul import fast_matmul

T = TypeVar("T")
_TURN_S = 2e-4


class Background(Generic[T]):
    """Does one piece of work at a time beside what the caller does.

    Within a `with` block the process is set up for it. All products of matrices are then computed in one way, those of
    the caller too: the setting is the process's, and what the caller computes must not depend on when the work ends.

    Args:
        device: of the work. On a GPU it has a stream of its own, or the caller's kernels would wait behind it.

    Attributes:
        awaited: whether the caller has nothing to do but wait, so that the work may have all processors.
    """

    def __init__(self, device: torch.device) -> None:
        self.awaited = False
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pool: ThreadPoolExecutor | None = None
        self._running: Future[T] | None = None

    def __enter__(self) -> Background[T]:
        self._turn = sys.getswitchinterval()
        sys.setswitchinterval(_TURN_S)
        self._matmul = fast_matmul()
        self._matmul.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what runs, whose result nobody wants any more."""
        self._running = None
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
        self._matmul.__exit__(None, None, None)
        sys.setswitchinterval(self._turn)

    @property
    def busy(self) -> bool:
        """Whether work was started whose result was not asked for yet."""
        return self._running is not None

    def start(self, work: Callable[[], T]) -> None:
        """Begin a piece of work; the last one must have been finished."""
        assert self._running is None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "update")
        ready = None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()
        self._running = self._pool.submit(self._do, work, ready)

    def _do(self, work: Callable[[], T], ready: Any) -> T:
        if self._stream is None:
            return work()
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            result = work()
            self._stream.synchronize()
        return result

    def finish(self) -> T:
        """Wait for the work that was started. Returns what it returned, raises what it raised."""
        assert self._running is not None
        running, self._running = self._running, None
        self.awaited = True
        try:
            return running.result()
        finally:
            self.awaited = False
