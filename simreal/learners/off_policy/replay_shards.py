"""A replay divided among ranks by environment, and a batch: brought together for a checkpoint, and dealt out again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from simreal.learners.base import Divided

_COLUMNS = "rows", "follows", "length", "valid"  # [slots, N, ...]


class ReplayShards(Divided):
    """How states of `HerReplayBuffer` are divided; see `simreal.learners.base.Rows`."""

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The state of the replay of the whole run, of what each rank holds."""
        whole = dict(parts[0])
        whole |= {name: torch.cat([part[name] for part in parts], dim=1) for name in _COLUMNS}
        whole["start"] = torch.cat([part["start"] for part in parts])
        whole["evidence"] = torch.stack([part["evidence"] for part in parts]).sum(dim=0)
        # Next observations stand there row by row, where they do not follow from the next step's.
        column = (~whole["follows"]).nonzero()[:, 1]
        whole["next"] = torch.zeros(len(column), whole["next"].shape[1], dtype=whole["next"].dtype)
        start = 0
        for part in parts:
            stop = start + len(part["start"])
            whole["next"][(column >= start) & (column < stop)] = part["next"]
            start = stop
        return whole

    def split(self, whole: dict[str, Any], start: int, stop: int, first: bool) -> dict[str, Any]:
        """What a rank holds: environments start to stop; the `first` one has what is counted over all."""
        column = (~whole["follows"]).nonzero()[:, 1]
        part = whole | {name: whole[name][:, start:stop].contiguous() for name in _COLUMNS}
        return part | {
            "start": whole["start"][start:stop],
            "next": whole["next"][(column >= start) & (column < stop)],
            "evidence": whole["evidence"] if first else torch.zeros_like(whole["evidence"]),
        }


class BatchShards(Divided):
    """How what an update works on (`Begun`) is divided: each rank has the transitions that it drew from its replay."""

    def join(self, parts: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
        """All transitions, in the order in which gradient steps take them."""
        batches = [part["batch"] for part in parts if part is not None]
        if not batches:
            return None
        order = torch.cat([batch["place"] for batch in batches]).argsort()
        return {**(parts[0] or {}), "batch": {k: torch.cat([b[k] for b in batches])[order] for k in batches[0]}}

    def split(self, whole: dict[str, Any] | None, start: int, stop: int, first: bool) -> dict[str, Any] | None:
        """Which rank has what makes no difference to sums: the first one has everything."""
        if whole is None or first:
            return whole
        return whole | {"batch": {name: part[:0] for name, part in whole["batch"].items()}}
