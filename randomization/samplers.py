"""What chooses the worlds: one interface for fixed ranges, ADR and whatever comes later."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from randomization.parameters import Parameter


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
        """Tell how episodes went: boundary [k] as drawn, performance [k], and the worlds lam [k, d] played."""
        ...

    def entropy(self) -> float:
        """Entropy of the distribution in nats per dimension."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


WIDTH_FLOOR = 1e-6  # the logarithm of a width of zero is taken at this width


def range_entropy(lower: Tensor, upper: Tensor) -> float:
    """(1/d) sum_i log(upper_i - lower_i), nats per dimension (arXiv 1910.07113, eq. 2); widths at least WIDTH_FLOOR."""
    if not len(lower):
        return 0.0
    return float((upper - lower).clamp(min=WIDTH_FLOOR).log().mean())


_EDGE = 2.0  # normal ranges end at this many standard deviations
_BELOW = 0.5 * (1.0 - math.erf(_EDGE / math.sqrt(2.0)))  # probability mass cut off on either side


class Manual:
    """Fixed ranges: every parameter uniform, log-uniform, normal or log-normal within its limits.

    Normal parameters have their mean in the middle of the range and two standard deviations on either side; what
    would lie outside is not drawn. Parameters of one group share a uniform number.
    """

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = parameters
        self.lower = torch.tensor([p.limits[0] for p in parameters], dtype=torch.float64)
        self.upper = torch.tensor([p.limits[1] for p in parameters], dtype=torch.float64)
        kinds = [p.distribution for p in parameters]
        self._log = torch.tensor([k in ("loguniform", "lognormal") for k in kinds], dtype=torch.bool)
        self._normal = torch.tensor([k in ("normal", "lognormal") for k in kinds], dtype=torch.bool)
        first = {p.group: i for i, p in reversed(list(enumerate(parameters))) if p.group}
        self._source = torch.tensor([first.get(p.group, i) for i, p in enumerate(parameters)], dtype=torch.int64)

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        u = u[:, self._source.to(u.device)]
        lower, upper = self.lower.to(u.device), self.upper.to(u.device)
        if bool(self._normal.any()):
            z = torch.special.ndtri(_BELOW + (1.0 - 2.0 * _BELOW) * u)
            u = torch.where(self._normal.to(u.device), 0.5 + z.clamp(-_EDGE, _EDGE) / (2.0 * _EDGE), u)
        lam = lower + (upper - lower) * u
        if bool(self._log.any()):
            logs = self._log.to(u.device)
            safe_low, safe_high = torch.where(logs, lower, 1.0).log(), torch.where(logs, upper, 1.0).log()
            lam = torch.where(logs, (safe_low + (safe_high - safe_low) * u).exp(), lam)
        return lam, torch.full((len(u),), -1, dtype=torch.int64, device=u.device)

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        return None

    def entropy(self) -> float:
        return range_entropy(self.lower, self.upper)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None
