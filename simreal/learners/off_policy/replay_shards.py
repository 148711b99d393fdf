"""A replay divided among ranks by environment: brought together for a checkpoint, and dealt out again."""

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
