"""One run on many processes: who plays which environments, and the few ways in which processes talk to each other.

A rank is one of `size` processes that torchrun started. `ALONE`, the default everywhere, is a process by itself: its
sums are its own, nothing is copied and no bit changes. Every method that talks has to be called by all ranks, in the
same order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


class LostRankError(Exception):
    """Another rank of the run ended or cannot be reached: this one cannot go on."""


class Ranks:
    """A process alone. `ProcessRanks` overrides what needs others.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        waited_s: seconds spent in talking, which includes waiting for those that are late.
        sent_bytes: that this process contributed to sums and gathered rows.
    """

    rank, size = 0, 1
    waited_s, sent_bytes = 0.0, 0

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def sum_(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over ranks, in one message; the same bits on all ranks."""

    def rows(self, values: Tensor, as_many: bool = False) -> Tensor:
        """Rows [k, ...] of all ranks below each other, in the order of ranks; k may differ unless `as_many`."""
        return values

    def objects(self, value: Any) -> list[Any]:
        """Plain values of all ranks."""
        return [value]

    def collected(self, value: Any) -> list[Any] | None:
        """Values of all ranks, tensors on the CPU among them; None on all but the first."""
        return [value]

    def dealt(self, values: Sequence[Any] | None) -> Any:
        """This rank's of the values that the first one has, one for each."""
        assert values is not None
        return values[0]

    def beside(self) -> Ranks:
        """The same ranks for another thread, which may talk while this one does; all of them have to ask for it."""
        return self

    def share(self, total: int) -> Share:
        """This rank's part of `total` environments."""
        return Share(self, total)

    def summed(self, vector: Tensor, log: dict[str, Tensor]) -> dict[str, Tensor]:
        """Replace a vector by its sum over ranks, and return the sums of scalars [] beside it, in one message."""
        if self.size == 1:
            return log
        scalars = torch.stack([value.to(vector) for value in log.values()]) if log else vector[:0].clone()
        self.sum_(vector, scalars)
        return dict(zip(log, scalars.unbind(), strict=True))


class ProcessRanks(Ranks):
    """The processes of torch's default group.

    Sums of tensors on a GPU stay there where the group can (NCCL); everything else passes through the CPU (gloo).

    Args:
        rank, size: see `Ranks`.
        on_gpu: whether the group talks from GPU to GPU.
        group: another group of the same processes than torch's default one.
    """

    def __init__(self, rank: int, size: int, on_gpu: bool = False, group: Any = None) -> None:
        self.rank, self.size, self._on_gpu, self._group = rank, size, on_gpu, group

    def beside(self) -> Ranks:
        import torch.distributed as group

        return ProcessRanks(self.rank, self.size, self._on_gpu, group.new_group())

    def sum_(self, *tensors: Tensor) -> None:
        flat = [tensor.reshape(-1).to(tensors[0]) for tensor in tensors]
        packed = torch.cat(flat) if len(flat) > 1 or flat[0].data_ptr() != tensors[0].data_ptr() else flat[0]
        moved = packed if self._on_gpu or packed.device.type == "cpu" else packed.cpu()
        with self._talking(moved) as group:
            group.all_reduce(moved, group=self._group)
        for tensor, part in zip(tensors, moved.split([tensor.numel() for tensor in tensors]), strict=True):
            if tensor.data_ptr() != part.data_ptr():
                tensor.copy_(part.view_as(tensor))

    def rows(self, values: Tensor, as_many: bool = False) -> Tensor:
        mine = values.detach().cpu().contiguous()
        with self._talking(mine) as group:
            counts = [len(mine)] * self.size
            if not as_many:
                numbers = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
                group.all_gather(numbers, torch.tensor([len(mine)]), group=self._group)
                counts = [int(number) for number in numbers]
            most = max(counts)
            if most == 0:
                return values
            padded = torch.zeros(most, *mine.shape[1:], dtype=mine.dtype)
            padded[: len(mine)] = mine
            gathered = [torch.empty_like(padded) for _ in range(self.size)]
            group.all_gather(gathered, padded, group=self._group)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)]).to(values)

    def objects(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with self._talking() as group:
            group.all_gather_object(found, value, group=self._group)
        return found

    def collected(self, value: Any) -> list[Any] | None:
        found: list[Any] | None = [None] * self.size if self.first else None
        with self._talking() as group:
            group.gather_object(value, found, group=self._group)
        return found

    def dealt(self, values: Sequence[Any] | None) -> Any:
        mine: list[Any] = [None]
        with self._talking() as group:
            group.scatter_object_list(mine, None if values is None else list(values), group=self._group)
        return mine[0]

    @contextlib.contextmanager
    def _talking(self, tensor: Tensor | None = None) -> Iterator[Any]:
        """Within the block, time counts as waiting, and a lost rank is told as such. Gives `torch.distributed`."""
        import torch.distributed as group

        began = time.perf_counter()
        try:
            yield group
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise LostRankError(f"rank {self.rank} of {self.size}: another rank is gone: {said[:200]}") from None
        finally:
            self.waited_s += time.perf_counter() - began
            self.sent_bytes += 0 if tensor is None else tensor.nbytes


ALONE = Ranks()


@dataclass(frozen=True)
class Share:
    """This rank's part of the N environments of a run: consecutive ones, as nearly as many on every rank.

    Attributes:
        ranks: of the run.
        total: N.
    """

    ranks: Ranks
    total: int

    @cached_property
    def bounds(self) -> list[int]:
        """[size + 1] Rank r plays environments bounds[r] to bounds[r + 1] - 1."""
        least, more = divmod(self.total, self.ranks.size)
        return [least * rank + min(rank, more) for rank in range(self.ranks.size + 1)]

    @cached_property
    def start(self) -> int:
        """Number, in the whole run, of this rank's first environment."""
        return self.bounds[self.ranks.rank]

    @cached_property
    def count(self) -> int:
        """Environments of this rank."""
        return self.bounds[self.ranks.rank + 1] - self.start

    def mine(self, rows: Tensor, dim: int = 0) -> Tensor:
        """This rank's rows of what the whole run has, along the dimension [N] of environments."""
        return rows if self.ranks.size == 1 else rows.narrow(dim, self.start, self.count)

    def gather(self, *parts: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
        """What the whole run has along the dimension [N] of environments, of each rank's parts; in one message."""
        if self.ranks.size == 1:
            return parts
        flat = [part.movedim(dim, 0).reshape(self.count, -1) for part in parts]
        whole = self.ranks.rows(torch.cat([rows.to(flat[0]) for rows in flat], dim=1))
        columns = whole.split([rows.shape[1] for rows in flat], dim=1)
        shapes = [part.movedim(dim, 0).shape[1:] for part in parts]
        return tuple(
            column.reshape(self.total, *shape).movedim(0, dim).to(part.dtype)
            for column, shape, part in zip(columns, shapes, parts, strict=True)
        )

    def mean(self, value: Tensor) -> Tensor:
        """The mean [] over all environments of means [] over those of each rank."""
        if self.ranks.size == 1:
            return value
        part = value.detach() * (self.count / self.total)
        self.ranks.sum_(part)
        return part

    def place(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the rows t * N + i of the whole run, numbered so for step t and environment i, are this rank's.

        Returns:
            [k] bool, and for those that are, t * count + i - start.
        """
        step, env = numbers // self.total, numbers % self.total - self.start
        here = (env >= 0) & (env < self.count)
        return here, (step * self.count + env)[here]


def sums(logs: Sequence[Mapping[str, Tensor]], ranks: Ranks) -> list[dict[str, Tensor]]:
    """Scalars [] logged by name, each summed over ranks; all of them in one message."""
    if ranks.size == 1 or not logs:
        return [dict(log) for log in logs]
    flat = torch.stack([value.float() for log in logs for value in log.values()])
    ranks.sum_(flat)
    values = iter(flat.unbind())
    return [{name: next(values) for name in log} for log in logs]
