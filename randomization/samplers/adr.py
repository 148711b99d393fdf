"""Automatic domain randomization (OpenAI et al. 2019, arXiv 1910.07113, algorithm 1), vectorised.

Every parameter has a range that starts at its calibrated value with width zero. A share of the episodes is
played at one boundary of one parameter; the mean performance of `buffer_size` such episodes moves that boundary
outwards by the parameter's step when it is at or above the high threshold, inwards at or below the low one, and
clears the buffer whichever way it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.common.messages import nearest
from randomization.parameters import Parameter, RandomizationError
from randomization.samplers.base import NamedState, no_boundary, range_entropy
from randomization.samplers.device_cache import DeviceCache


class ADR(NamedState):
    """Ranges that widen where the policy does well.

    Bounds never pass the calibrated value or a parameter's limits; a side whose limit is the calibrated value
    (a latency below 0, say) cannot move and gets no boundary episodes.

    Args:
        parameters: Parameter records, mappings of their arguments, or a mapping from names to such.
        boundary_probability: share of episodes at a boundary (p_b).
        buffer_size: episodes per decision about a boundary (m).
        thresholds: (low, high) mean performance that narrows or widens (t_L, t_H).
        seed: of `sample`.

    Attributes:
        lower, upper: [d] float64, the present bounds.
        moves: [2d] int64, times that each boundary moved outwards minus inwards.
    """

    _state = ("lower", "upper", "_sum", "_count", "moves", "judged", "decisions")

    def __init__(
        self,
        parameters: Iterable[Parameter | Mapping[str, Any]] | Mapping[str, Any],
        boundary_probability: float = 0.5,
        buffer_size: int = 240,
        thresholds: tuple[float, float] = (10.0, 20.0),
        seed: int = 0,
    ) -> None:
        self.parameters = _as_parameters(parameters)
        low, high = (float(t) for t in thresholds)
        if not 0.0 <= boundary_probability <= 1.0:
            raise RandomizationError(f"boundary_probability: expected 0 to 1, got {boundary_probability}")
        if buffer_size < 1:
            raise RandomizationError(f"buffer_size: expected at least 1, got {buffer_size}")
        if not low <= high:
            raise RandomizationError(f"thresholds: low {low:g} is above high {high:g}")
        self.boundary_probability = float(boundary_probability)
        self.buffer_size = int(buffer_size)
        self.thresholds = (low, high)
        nominal = torch.tensor([p.nominal for p in self.parameters], dtype=torch.float64)
        limits = torch.tensor([p.limits for p in self.parameters], dtype=torch.float64).reshape(-1, 2)
        self.nominal = nominal
        self.lower, self.upper = nominal.clone(), nominal.clone()
        self._limit = limits  # [d, 2]
        self._step = torch.tensor([p.step for p in self.parameters], dtype=torch.float64)
        d = len(self.parameters)
        self._sum = torch.zeros(2 * d, dtype=torch.float64)  # performance in each boundary's buffer
        self._count = torch.zeros(2 * d, dtype=torch.int64)
        self.moves = torch.zeros(2 * d, dtype=torch.int64)
        self.judged = torch.zeros(2 * d, dtype=torch.float64)  # mean performance of the last full buffers
        self.decisions = torch.zeros(2 * d, dtype=torch.int64)  # number of full buffers
        movable = torch.stack((limits[:, 0] < nominal, limits[:, 1] > nominal), dim=1).flatten()
        self._movable = movable.nonzero().squeeze(1)  # boundaries 2i, 2i + 1 that can move
        self._generator = torch.Generator().manual_seed(seed)
        self._copies = DeviceCache()

    @property
    def movable_sides(self) -> int:
        """Boundaries that can move; each has the same share of the boundary episodes."""
        return len(self._movable)

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """n worlds: lambda [n, d] and boundary [n] (-1 none, 2*i lower side of i, 2*i + 1 upper side)."""
        d = len(self.parameters)
        # NumPy draws twice as fast as torch, whose generator is the state: every call has a seed of its own from it.
        seed = int(torch.randint(2**62, (), generator=self._generator))
        u = torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).random((n, d + 2)))
        return self.draw(u[:, :d], u[:, d:])

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`: lambda uniform in the ranges, one entry set to a boundary in boundary episodes."""
        lower, upper = self._copies("lower", self.lower, u.device), self._copies("upper", self.upper, u.device)
        lam = torch.lerp(lower, upper, u)
        none = no_boundary(u)
        if not explore or not len(self._movable):
            return lam, none
        movable = self._copies("movable", self._movable, u.device)
        picked = movable[(choice[:, 1] * len(movable)).long().clamp(max=len(movable) - 1)]
        boundary = torch.where(choice[:, 0] < self.boundary_probability, picked, none)
        column = picked // 2
        value = torch.where(picked % 2 == 0, lower[column], upper[column])
        current = lam.gather(1, column[:, None]).squeeze(1)
        value = torch.where(boundary >= 0, value, current)
        return lam.scatter_(1, column[:, None], value[:, None]), boundary

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        """Add performance [k] to the buffers named by boundary [k] (-1 is ignored), in order; move bounds.

        A buffer that fills up in the middle of the call decides, is cleared, and takes the rest. With the worlds
        lam [k, d] given, episodes whose boundary has moved since they began are left out: they say nothing of
        where it is now. Minus infinity, the return of an episode that failed, counts as the low threshold.
        """
        boundary = torch.as_tensor(boundary).cpu().long()
        performance = torch.as_tensor(performance).cpu().double()
        performance = torch.where(performance.isneginf(), self.thresholds[0], performance)
        keep = boundary >= 0
        if lam is not None and len(self.parameters):
            column = (boundary // 2).clamp(min=0)
            bound = torch.where(boundary % 2 == 0, self.lower[column], self.upper[column])
            keep &= lam.cpu().gather(1, column[:, None]).squeeze(1) == bound
        boundary, performance = boundary[keep], performance[keep]
        if len(boundary) == 0:
            return
        if int(boundary.max()) >= 2 * len(self.parameters):
            raise ValueError(f"boundary {int(boundary.max())}: there are {2 * len(self.parameters)}")
        order = torch.argsort(boundary, stable=True)
        boundary, performance = boundary[order], performance[order]
        while len(boundary):
            # Position of each entry within its own boundary's run of the sorted list.
            start = torch.searchsorted(boundary, boundary)
            position = torch.arange(len(boundary)) - start
            fits = position < self.buffer_size - self._count[boundary]
            self._sum.index_add_(0, boundary[fits], performance[fits])
            self._count.index_add_(0, boundary[fits], torch.ones_like(boundary[fits]))
            self._decide()
            boundary, performance = boundary[~fits], performance[~fits]

    def _decide(self) -> None:
        """Move the boundaries whose buffers are full, and clear those buffers."""
        full = self._count >= self.buffer_size
        if not bool(full.any()):
            return
        mean = self._sum / self._count.clamp(min=1)
        low, high = self.thresholds
        widen, narrow = full & (mean >= high), full & (mean <= low)
        narrow &= ~widen
        self.judged = torch.where(full, mean, self.judged)
        self.decisions += full
        move = widen.to(torch.int64) - narrow.to(torch.int64)  # [2d] outwards
        lower, upper = move[0::2] * self._step, move[1::2] * self._step
        old = torch.stack((self.lower, self.upper), dim=1).flatten()
        self.lower = torch.minimum(torch.maximum(self.lower - lower, self._limit[:, 0]), self.nominal)
        self.upper = torch.maximum(torch.minimum(self.upper + upper, self._limit[:, 1]), self.nominal)
        self.moves += move * (torch.stack((self.lower, self.upper), dim=1).flatten() != old)
        self._sum[full] = 0.0
        self._count[full] = 0

    def entropy(self) -> float:
        """Nats per dimension: (1/d) sum_i log(upper_i - lower_i), each width at least `base.WIDTH_FLOOR`."""
        return range_entropy(self.lower, self.upper)

    def state_dict(self) -> dict[str, Any]:
        """Bounds, buffers, and the generator of `sample`."""
        return super().state_dict() | {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises RandomizationError if it is of other parameters."""
        super().load_state_dict(state)
        self._generator.set_state(state["generator"])


def _as_parameters(parameters: Iterable[Any] | Mapping[str, Any]) -> list[Parameter]:
    if isinstance(parameters, Mapping):
        items = [{"name": name, **(vars(p) if isinstance(p, Parameter) else p)} for name, p in parameters.items()]
    else:
        items = list(parameters)
    known = [f.name for f in fields(Parameter)]
    for item in items:
        if not isinstance(item, Parameter):
            for key in item.keys() - set(known):
                raise RandomizationError(f"{item['name']}: unknown key {key!r}{nearest(key, known)}")
    result = [p if isinstance(p, Parameter) else Parameter(**p) for p in items]
    names = [p.name for p in result]
    if len(set(names)) != len(names):
        raise RandomizationError(f"parameter names must differ, got {names}")
    return result
