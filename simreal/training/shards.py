"""The state of a run on many ranks: brought together for a checkpoint, dealt out again, compared.

A checkpoint is that of a run on one process: the rows of all environments in their order, and once what all ranks have
alike. So it does not tell how many ranks there were, and any number can go on from it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from envs.common.ranks import Ranks, Share
from envs.environment import Environment
from simreal.common.errors import ElsewhereError, UserError
from simreal.learners.base import Divided, Rows

_SUM = "sum"
_SOME = 2, 3, 5, 7  # environments of the one that shows which dimension is theirs: another number than any rank has


class Layout:
    """How a state is divided among ranks: for every part the dimension [N] of environments in its tensors, "sum" of
    what each rank counts, or None where all ranks have the same. A list with one entry for each environment has "list".

    Args:
        rows: of a learner, see `Learner.ROWS`.
        environment: its state.
        probe: makes an environment like it, of another size.
    """

    def __init__(self, rows: Mapping[str, Rows], environment: Environment, probe: Callable[[int], Environment]) -> None:
        share = environment.share
        taken = {share.total, *(b - a for a, b in zip(share.bounds, share.bounds[1:], strict=False))}
        other = probe(next(n for n in _SOME if n not in taken))
        sizes = environment.num_envs, other.num_envs
        found = _compared(environment.state_dict(), other.state_dict(), *sizes)
        found["divergences"] = _SUM
        found["layer"]["reporter"] = 1  # what waits there has steps first
        if "constants" in found.get("engine", {}):
            found["engine"]["constants"] = 0  # a rank has those that are not as in the model
        self._engine, self._bounds = environment.engine, share.bounds
        self._layout = {"learner": rows, "environment": found}

    def join(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """The state of the whole run, of what each rank has. Raises UserError where they should be alike and differ."""
        self._complete([state["environment"]["engine"].get("constants", {}) for state in states])
        return _join("", states, self._layout)

    def _complete(self, constants: list[dict[str, Tensor]]) -> None:
        """Give every rank the constants that any has."""
        for rank, mine in enumerate(constants):
            count = self._bounds[rank + 1] - self._bounds[rank]
            for name in {name for each in constants for name in each} - mine.keys():
                nominal = self._engine.nominal(name).cpu()
                mine[name] = nominal.expand(count, *nominal.shape).clone()

    def split(self, state: dict[str, Any], share: Share) -> list[dict[str, Any]]:
        """What each rank has of the state of the whole run."""
        return [_split(state, self._layout, share, rank) for rank in range(share.ranks.size)]


def _compared(mine: Any, other: Any, n: int, m: int) -> Any:
    """Where two states that differ in the number of environments, n and m, show it."""
    if isinstance(mine, Mapping):
        return {key: _compared(value, other.get(key), n, m) for key, value in mine.items()}
    if isinstance(mine, (list, tuple)):
        if len(mine) == n and len(other) == m:
            return "list"
        return dict(enumerate(_compared(a, b, n, m) for a, b in zip(mine, other, strict=False)))
    if isinstance(mine, Tensor) and isinstance(other, Tensor) and mine.dim() == other.dim():
        return next((i for i in range(mine.dim()) if (mine.shape[i], other.shape[i]) == (n, m)), None)
    return None


def _inner(layout: Any, key: Any) -> Any:
    """The layout of a part."""
    return layout.get(key) if isinstance(layout, Mapping) else layout


def _join(path: str, parts: list[Any], layout: Any) -> Any:
    first = parts[0]
    if isinstance(layout, Divided):
        return layout.join(parts)
    if layout == "list":
        return [item for part in parts for item in part]
    if isinstance(first, Mapping):
        return {key: _join(f"{path}.{key}", [part[key] for part in parts], _inner(layout, key)) for key in first}
    if isinstance(first, (list, tuple)):
        rows = zip(*parts, strict=True)
        return [_join(f"{path}.{i}", list(row), _inner(layout, i)) for i, row in enumerate(rows)]
    if layout == _SUM and first is not None:
        return sum(parts[1:], start=first)
    if isinstance(layout, int) and isinstance(first, Tensor):
        return torch.cat(parts, dim=layout)
    if isinstance(first, bool):  # a note that something has to be done in some environment
        return any(parts)
    alike = [torch.equal(first, part) if isinstance(first, Tensor) else first == part for part in parts]
    if not all(alike):
        raise UserError(f"{path[1:]} differs between rank 0 and rank {alike.index(False)}; the run cannot go on")
    return first


def _split(value: Any, layout: Any, share: Share, rank: int) -> Any:
    start, stop = share.bounds[rank : rank + 2]
    if isinstance(layout, Divided):
        return layout.split(value, start, stop, rank == 0)
    if layout == "list":
        return value[start:stop]
    if isinstance(value, Mapping):
        return {key: _split(item, _inner(layout, key), share, rank) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_split(item, _inner(layout, i), share, rank) for i, item in enumerate(value)]
    if layout == _SUM and value is not None:
        return value if rank == 0 else value * 0
    if isinstance(layout, int) and isinstance(value, Tensor):
        return value.narrow(layout, start, stop - start).clone()
    return value


def check_alike(state: Mapping[str, Any], ranks: Ranks) -> None:
    """Compare what all ranks should have alike, by checksums. Raises UserError, naming what differs, on the first rank
    and ElsewhereError on the others."""
    sums: dict[str, int] = {}
    _checksums("", state, sums)
    everywhere = ranks.objects(sums)
    for rank, other in enumerate(everywhere):
        differ = [name for name in sorted({*everywhere[0], *other}) if everywhere[0].get(name) != other.get(name)]
        if differ and not ranks.first:
            raise ElsewhereError("another rank tells what differs")
        if differ:
            names = ", ".join(differ[:5]) + (" and others" if len(differ) > 5 else "")
            raise UserError(f"rank {rank} differs from rank 0 in {names}; the run cannot go on")


def _checksums(path: str, value: Any, found: dict[str, int]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _checksums(f"{path}.{key}" if path else str(key), item, found)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _checksums(f"{path}.{i}", item, found)
    elif isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found[path] = zlib.crc32(data.numpy().data)
    else:
        found[path] = zlib.crc32(repr(value).encode())
