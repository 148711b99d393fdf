"""The processes of a run that torchrun started, and how they meet."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch

from envs.common.ranks import ALONE, ProcessRanks, Ranks
from envs.platform.processors import shared_by
from simreal.common.errors import ElsewhereError, UserError

_LONGEST_WAIT = timedelta(hours=6)  # for ranks that are late, as while the first one judges; dead ones are told at once
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
T = TypeVar("T")


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of the run, where torchrun started this process as one of several; elsewhere `ALONE`.

    Within the block this process's part of the processors is its own. Raises UserError where there are not enough GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not {"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        yield ALONE
        return
    import torch.distributed as group

    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    _end_with_parent()
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)
    on_gpu = 0 < local <= gpus  # NCCL wants a GPU for each rank
    begun = not group.is_initialized()
    if begun:
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        rank = int(os.environ["RANK"])
        group.init_process_group(backend, store=_store(size), rank=rank, world_size=size, timeout=_LONGEST_WAIT)
    try:
        with shared_by(local):
            yield ProcessRanks(group.get_rank(), size, on_gpu)
    finally:
        if begun:
            with contextlib.suppress(RuntimeError):
                group.destroy_process_group()


def restarted(ranks: Ranks) -> bool:
    """Whether torchrun started the ranks again after one had died."""
    return max(ranks.objects(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))) > 0


def together(ranks: Ranks, action: Callable[[], T]) -> T:
    """Do something on all ranks that may meet an error of the user: one rank tells it, and none goes on.

    Raises:
        UserError, TaskError, RandomizationError, EngineError: on the first rank that met one.
        ElsewhereError: on the others.
    """
    if ranks.size == 1:
        return action()
    error: Exception | None = None
    result: Any = None
    try:
        result = action()
    except (UserError, ValueError) as met:
        error = met
    failed = ranks.objects(error is not None)
    if not any(failed):
        return result
    if error is not None and failed.index(True) == ranks.rank:
        raise error
    raise ElsewhereError("another rank met an error")


def _store(size: int) -> Any:
    """The store in which ranks find each other: torchrun's, with a room for each of its attempts."""
    import torch.distributed as group

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by all attempts: it remembers dead addresses
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if shared else "0"
    store = group.TCPStore(host, port, size, not shared and os.environ["RANK"] == "0", timeout=timedelta(minutes=5))
    store.set_timeout(_LONGEST_WAIT)
    return group.PrefixStore(f"simreal/{attempt}", store)


def _end_with_parent() -> None:
    """Have the system send SIGTERM when torchrun is gone: its workers have a session of their own and would go on."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # elsewhere than on Linux
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
