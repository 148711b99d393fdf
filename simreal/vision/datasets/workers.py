"""Chunks rendered ahead by processes of their own: OpenGL in software takes a processor for each, and a context belongs
to the thread that made it."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any

import numpy as np
import torch
from torch import Tensor

import simreal
from envs.platform.processors import available_threads
from simreal.common.errors import UserError
from simreal.common.trusted_code import trust
from simreal.vision.datasets.maker import Chunk, ChunkMaker
from simreal.vision.datasets.plan import PicturePlan

# A chunk's number, the state of the looks' sampler that it is drawn with, and how many pictures of each environment.
Job = tuple[int, dict[str, Any] | None, int | None]
_makers: dict[str, ChunkMaker] = {}  # of a worker


class ChunkSource:
    """Chunks of a plan, in the order in which they were asked for, rendered beside what the caller does.

    Args:
        plan: what to render.
        workers: processes; 0: in this one, when a chunk is taken. None: one for every processor of this process, where
            it has several.
        trusted: see `ChunkMaker`.

    Attributes:
        maker: of this process; workers have their own.
        ahead: chunks that are worth asking for before the first is taken.

    Raises:
        UserError, RandomizationError: see `ChunkMaker`.
    """

    def __init__(self, plan: PicturePlan, workers: int | None = None, trusted: str | None = None) -> None:
        self.maker = ChunkMaker(plan, trusted=trusted)
        if workers is None:
            workers = available_threads() if available_threads() > 1 else 0
        self.ahead = max(1, 2 * workers)
        self._pool = None
        self._asked: deque[Future[Chunk] | Job] = deque()
        if workers:
            self._pool = ProcessPoolExecutor(
                workers, get_context("spawn"), initializer=_start, initargs=(plan, trusted)
            )

    def ask(self, number: int, looks: dict[str, Any] | None = None, pictures: int | None = None) -> None:
        """Have chunk `number` rendered, with a sampler of looks in that state (None: as it begins); with `pictures`,
        only so many of each environment."""
        job = (number, None if looks is None else _arrays(looks), pictures)
        self._asked.append(job if self._pool is None else self._pool.submit(_render, job))

    def take(self) -> Chunk:
        """The chunk that was asked for first, once it is there. Raises UserError where a worker cannot render, or was
        killed."""
        asked = self._asked.popleft()
        if not isinstance(asked, Future):
            return _rendered(self.maker, asked)
        try:
            return asked.result()
        except BrokenProcessPool:
            raise UserError("a process that rendered pictures was killed; is there too little memory?") from None

    def frames(self, start: int, end: int) -> Iterator[Chunk]:
        """Chunks with frames `start`, where one begins, to `end`; some of them are rendered ahead, and the last one
        only as far as it is wanted."""
        chunking = self.maker.chunking
        for number in range(start // chunking.size, -(-end // chunking.size)):
            self.ask(number, None, chunking.steps(end - number * chunking.size))
            if len(self._asked) >= self.ahead:
                yield self.take()
        while self._asked:
            yield self.take()

    def close(self) -> None:
        """End the workers, and free the renderer."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._asked.clear()
        self.maker.close()


def _rendered(maker: ChunkMaker, job: Job) -> Chunk:
    number, looks, pictures = job
    if looks is not None:
        maker.worlds.looks.load_state_dict(_tensors(looks))
    return maker.chunk(number, pictures)


def _arrays(state: Any) -> Any:
    """A tree of mappings with arrays in place of its tensors: torch would send those through files of its own."""
    if isinstance(state, Mapping):
        return {key: _arrays(value) for key, value in state.items()}
    return state.numpy().copy() if isinstance(state, Tensor) else state


def _tensors(state: Any) -> Any:
    """The tree that `_arrays` was given."""
    if isinstance(state, Mapping):
        return {key: _tensors(value) for key, value in state.items()}
    return torch.from_numpy(state.copy()) if isinstance(state, np.ndarray) else state


def _start(plan: PicturePlan, trusted: str | None) -> None:
    """Begin a worker: the terminal's Ctrl-C is its parent's business, and it does not outlive that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    torch.set_num_threads(1)
    simreal.register()
    os.environ.setdefault("LP_NUM_THREADS", "0")  # of Mesa's renderer: as many processes as processors draw already
    if trusted is not None:
        trust(trusted)
    _makers["maker"] = ChunkMaker(plan, trusted=trusted)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _render(job: Job) -> Chunk:
    return _rendered(_makers["maker"], job)
