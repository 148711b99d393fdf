"""What chooses the worlds: one interface for fixed ranges, ADR and whatever comes later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from envs.common.messages import nearest
from envs.common.rng import EpisodeRandom
from envs.common.stateful import Stateful
from randomization.parameters import Parameter, RandomizationError
from randomization.samplers.device_cache import DeviceCache


class Sampler(Protocol):
    """Draws worlds lambda [n, d] and learns from how episodes in them went."""

    parameters: list[Parameter]
    lower: Tensor  # [d] float64, ends of the present ranges
    upper: Tensor  # [d]

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """Worlds for uniform numbers u [n, d] and choice [n, 2] in (0, 1).

        Returns:
            lambda [n, d]; boundary [n] int64: negative for an ordinary episode (-1, or a number by which the sampler
            knows the distribution it was drawn from), 2*i (lower) or 2*i + 1 (upper) for an episode at a boundary of
            parameter i. With explore=False every episode is ordinary.
        """
        ...

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        """Tell how episodes went: boundary [k] as drawn, performance [k], and the worlds lam [k, d] played.

        Minus infinity is the return of an episode whose simulation became unstable: a failure, whatever it gathered.
        """
        ...

    def entropy(self) -> float:
        """Entropy of the distribution in nats per dimension."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


class NamedState(Stateful):
    """The state of a sampler that learns: it goes with the names of its parameters."""

    parameters: list[Parameter]

    def state_dict(self) -> dict[str, Any]:
        """The state, and whose it is."""
        return {"names": [p.name for p in self.parameters]} | super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises RandomizationError if it is of other parameters."""
        names = [p.name for p in self.parameters]
        if state["names"] != names:
            raise RandomizationError(f"the state is of parameters {state['names']}, expected {names}")
        super().load_state_dict(state)


WIDTH_FLOOR = 1e-6  # the logarithm of a width of zero is taken at this width


def range_entropy(lower: Tensor, upper: Tensor) -> float:
    """(1/d) sum_i log(upper_i - lower_i), nats per dimension (arXiv 1910.07113, eq. 2); widths at least WIDTH_FLOOR."""
    if not len(lower):
        return 0.0
    return float((upper - lower).clamp(min=WIDTH_FLOOR).log().mean())


def no_boundary(u: Tensor) -> Tensor:
    """The boundary [n] of n ordinary episodes, drawn by numbers u [n, d]; see `Sampler.draw`."""
    return torch.full((len(u),), -1, dtype=torch.int64, device=u.device)


_EDGE = 2.0  # normal ranges end at this many standard deviations
_BELOW = 0.5 * (1.0 - math.erf(_EDGE / math.sqrt(2.0)))  # probability mass cut off on either side


_ROUNDED = -0.02  # eigenvalue of correlations that were rounded; below it they contradict each other


def _mixing(parameters: list[Parameter], correlations: Sequence[tuple[str, str, float]]) -> Tensor:
    """A matrix [d, d] that makes numbers with these correlations of independent normal ones."""
    place = {parameter.name: i for i, parameter in enumerate(parameters)}
    wanted = torch.eye(len(parameters), dtype=torch.float64)
    for a, b, r in correlations:
        for name in (a, b):
            if name not in place:
                raise RandomizationError(f"correlations: no parameter {name!r}{nearest(name, place)}")
            if parameters[place[name]].group:
                raise RandomizationError(f"correlations: {name!r} is of a group, whose members share a number")
        if a == b or not -1.0 <= r <= 1.0:
            raise RandomizationError(f"correlations: [{a}, {b}, {r:g}]: expected two parameters and r from -1 to 1")
        wanted[place[a], place[b]] = wanted[place[b], place[a]] = r
    values, vectors = torch.linalg.eigh(wanted)
    if float(values.min()) < _ROUNDED:
        raise RandomizationError("correlations: no numbers can have all of these at once (not positive semidefinite)")
    mixing = vectors * values.clamp(min=0.0).sqrt() @ vectors.T  # symmetric: what is alone stays as it is
    return mixing / mixing.norm(dim=1, keepdim=True)


class Manual(Stateful):
    """Fixed ranges: every parameter uniform, log-uniform, normal or log-normal within its limits.

    Normal parameters have their mean in the middle of the range and two standard deviations on either side; what
    would lie outside is not drawn. Parameters of one group share a uniform number.

    Args:
        parameters: with their ranges as limits.
        correlations: (name, name, r) of pairs; r is that of normal variables that are mapped to each parameter's own
            distribution (a Gaussian copula), which therefore stays as it is.

    Raises:
        RandomizationError: a correlation names no parameter, or they contradict each other.
    """

    def __init__(self, parameters: list[Parameter], correlations: Sequence[tuple[str, str, float]] = ()) -> None:
        self.parameters = parameters
        self._mixing = _mixing(parameters, correlations) if correlations else None
        self.lower = torch.tensor([p.limits[0] for p in parameters], dtype=torch.float64)
        self.upper = torch.tensor([p.limits[1] for p in parameters], dtype=torch.float64)
        kinds = [p.distribution for p in parameters]
        self._log = torch.tensor([k in ("loguniform", "lognormal") for k in kinds], dtype=torch.bool)
        self._normal = torch.tensor([k in ("normal", "lognormal") for k in kinds], dtype=torch.bool)
        first = {p.group: i for i, p in reversed(list(enumerate(parameters))) if p.group}
        self._copies = DeviceCache()
        self._source = torch.tensor([first.get(p.group, i) for i, p in enumerate(parameters)], dtype=torch.int64)

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`."""
        here = lambda name, tensor: self._copies(name, tensor, u.device)  # noqa: E731
        u = u[:, here("source", self._source)]
        if self._mixing is not None:
            u = torch.special.ndtr(torch.special.ndtri(u) @ here("mixing", self._mixing).T)
        lower, upper = here("lower", self.lower), here("upper", self.upper)
        if bool(self._normal.any()):
            z = torch.special.ndtri(_BELOW + (1.0 - 2.0 * _BELOW) * u)
            u = torch.where(here("normal", self._normal), 0.5 + z.clamp(-_EDGE, _EDGE) / (2.0 * _EDGE), u)
        lam = lower + (upper - lower) * u
        if bool(self._log.any()):
            logs = here("log", self._log)
            safe_low, safe_high = torch.where(logs, lower, 1.0).log(), torch.where(logs, upper, 1.0).log()
            lam = torch.where(logs, (safe_low + (safe_high - safe_low) * u).exp(), lam)
        return lam, no_boundary(u)

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        """Does nothing: the ranges are fixed."""

    def entropy(self) -> float:
        """See `range_entropy`."""
        return range_entropy(self.lower, self.upper)


class Extremes(Manual):
    """Worlds around given ranges, not in them: the regime E around R of Packer et al. (arXiv 1810.12282).

    A parameter is uniform over what its limits leave below and above R; one that R fills stays in R.

    Args:
        parameters: with the outer ends of E as limits.
        inner: [d, 2] the ranges R, within those limits.
        only: [d] bool, the parameters that may leave R; None: all.
        one_at_a_time: in each episode one of them leaves R, chosen at random, and the others are uniform in R.
    """

    def __init__(
        self, parameters: list[Parameter], inner: Tensor, only: Tensor | None = None, one_at_a_time: bool = False
    ) -> None:
        super().__init__(parameters)
        self.inner = inner.double()
        self.one_at_a_time = one_at_a_time
        free = self.upper - self.lower > inner[:, 1] - inner[:, 0]
        self.extreme = free if only is None else free & only

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`."""
        lower, upper, extreme = (x.to(u.device) for x in (self.lower, self.upper, self.extreme))
        low, high = self.inner.to(u.device).unbind(dim=1)
        way = u * ((low - lower) + (upper - high))
        outside = torch.where(way < low - lower, lower + way, upper - ((low - lower) + (upper - high) - way))
        leaves = extreme.expand(len(u), -1)
        if self.one_at_a_time and bool(extreme.any()):
            which = extreme.nonzero()[:, 0]
            picked = which[(choice[:, 0] * len(which)).long().clamp(max=len(which) - 1)]
            leaves = torch.nn.functional.one_hot(picked, len(extreme)).bool()
        lam = torch.where(leaves, outside, low + (high - low) * u)
        return lam, no_boundary(u)


class Points(Manual):
    """Chosen worlds, one after the other: episode k plays point k modulo their number.

    Args:
        parameters: with limits that hold every point.
        inner: [d, 2] where a point leaves a parameter free (NaN), it is uniform in this range.
        points: [M, d] values or NaN.
    """

    def __init__(self, parameters: list[Parameter], inner: Tensor, points: Tensor) -> None:
        super().__init__(parameters)
        self.inner, self.points = inner.double(), points.double()
        self._rng: EpisodeRandom | None = None

    def follow(self, rng: EpisodeRandom) -> None:
        """Take the numbers of the episodes that begin from an environment's random numbers."""
        self._rng = rng

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`."""
        if self._rng is None:
            raise RuntimeError("follow an environment's random numbers first")
        low, high = self.inner.to(u.device).unbind(dim=1)
        point = self.points.to(u.device)[self._rng.episode.to(u.device) % len(self.points)]
        lam = torch.where(point.isnan(), low + (high - low) * u, point)
        return lam, no_boundary(u)
