"""Runs on several ranks, each a fork of this process; gloo connects them."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as group

from envs.common.ranks import ProcessRanks, Ranks
from tiny import fork

TIMEOUT = timedelta(seconds=60)


def on_ranks(size: int, action: Callable[[Ranks], Any]) -> list[Any]:
    """What `action` returns on each of `size` ranks, an exception included. Raises AssertionError where one died."""
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(size):
            child = fork()
            if not child:
                _be(rank, size, Path(folder), action)
            children.append(child)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert statuses == [0] * size, statuses
        return [pickle.loads((Path(folder) / f"result-{rank}").read_bytes()) for rank in range(size)]


def _be(rank: int, size: int, folder: Path, action: Callable[[Ranks], Any]) -> None:
    """A rank's life."""
    try:
        torch.set_num_threads(1)
        store = group.FileStore(str(folder / "store"), size)
        group.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        try:
            result: Any = action(ProcessRanks(rank, size))
        except Exception as error:
            traceback.print_exc()
            result = error
        (folder / f"result-{rank}").write_bytes(pickle.dumps(result))
        sys.stderr.flush()
        os._exit(0)
    finally:
        os._exit(1)
