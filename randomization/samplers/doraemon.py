"""DORAEMON: maximum entropy domain randomization (Tiboni et al., ICLR 2024, arXiv 2311.01885).

Worlds come from independent Beta distributions over the parameters' ranges. After every `buffer_size` episodes the
distribution p becomes the solution of

    maximise  H(p)   subject to   S(p) >= success_rate   and   KL(p || p_old) <= kl,
    S(p) = 1/K sum_k p(x_k) / q_k(x_k) * success_k       (q_k: what episode k was drawn from)

and, where no p within the trust region is good enough, of: maximise S(p) subject to KL(p || p_old) <= kl.

Beta distributions are an exponential family, so entropy, KL, their gradients and the Fisher information are closed
forms. To first order the solution lies in the plane of the natural gradients of H and S (the KKT conditions with the
KL as its quadratic form); candidates in that plane, brought exactly onto or within the trust region, are judged by
the true H, S and KL in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from randomization.parameters import Parameter, RandomizationError
from randomization.samplers.base import WIDTH_FLOOR, NamedState
from randomization.samplers.device_cache import DeviceCache

_SMALLEST, _LARGEST = 1.0, 1e4  # of Beta parameters: one mode, and a width that float64 and the table resolve
_NODES = 8193  # of the table that inverts the distribution function
_MIXES = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)  # weight of the gradient of S against that of H
_FRACTIONS = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0], dtype=torch.float64)  # of the way to the trust region
_KEPT = 16  # distributions remembered for episodes that began before the last updates
_TAIL = 0.025  # `lower` and `upper` are the quantiles at this and one minus this


def beta_entropy(a: Tensor, b: Tensor) -> Tensor:
    """Differential entropy of Beta(a, b), nats, elementwise."""
    psi = torch.digamma
    return _log_beta(a, b) - (a - 1) * psi(a) - (b - 1) * psi(b) + (a + b - 2) * psi(a + b)


def beta_kl(a: Tensor, b: Tensor, a_old: Tensor, b_old: Tensor) -> Tensor:
    """KL(Beta(a, b) || Beta(a_old, b_old)), nats, elementwise. Cancellation demands float64."""
    psi = torch.digamma
    shift = (a - a_old) * psi(a) + (b - b_old) * psi(b) + (a_old - a + b_old - b) * psi(a + b)
    return _log_beta(a_old, b_old) - _log_beta(a, b) + shift


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _trigamma(x: Tensor) -> Tensor:
    return torch.special.polygamma(1, x)


class Doraemon(NamedState):
    """Beta distributions that widen as far as the policy keeps succeeding.

    Args:
        parameters: what lambda consists of; their limits are the supports.
        success_rate: alpha, the least probability of success.
        kl: epsilon, the largest KL divergence between successive distributions, nats (over all parameters).
        buffer_size: K, episodes per update.
        success_at: an episode whose performance reaches this is a success.
        concentration: of the first distribution around the calibrated world; Beta(1 + c m, 1 + c (1 - m)) with the
            calibrated value at the share m of the range.

    Attributes:
        a, b: [d] float64, the present Beta parameters.
        lower, upper: [d] float64, between which 95 % of each parameter's values lie.
        updates: made so far.
        backups: updates that could only raise the success rate.
    """

    _state = ("a", "b", "updates", "backups", "_history", "_worlds", "_success", "_log_q")

    def __init__(
        self,
        parameters: Sequence[Parameter],
        success_rate: float = 0.5,
        kl: float = 0.01,
        buffer_size: int = 500,
        success_at: float = 0.5,
        concentration: float = 100.0,
    ) -> None:
        if not 0.0 < success_rate <= 1.0:
            raise RandomizationError(f"success_rate: expected above 0 to 1, got {success_rate}")
        if not kl > 0.0:
            raise RandomizationError(f"kl: expected a positive number, got {kl}")
        if buffer_size < 1:
            raise RandomizationError(f"buffer_size: expected at least 1, got {buffer_size}")
        if not 0.0 <= concentration <= _LARGEST:
            raise RandomizationError(f"concentration: expected 0 to {_LARGEST:g}, got {concentration}")
        self.parameters = list(parameters)
        self.success_rate, self.kl, self.success_at = float(success_rate), float(kl), float(success_at)
        self.buffer_size = int(buffer_size)
        limits = torch.tensor([p.limits for p in self.parameters], dtype=torch.float64).reshape(-1, 2)
        nominal = torch.tensor([p.nominal for p in self.parameters], dtype=torch.float64)
        self._low, self._width = limits[:, 0], limits[:, 1] - limits[:, 0]
        share = (nominal - self._low) / self._width.clamp(min=1e-300)
        self.a, self.b = 1.0 + concentration * share, 1.0 + concentration * (1.0 - share)
        self.updates = self.backups = 0
        self._copies = DeviceCache()
        self._history = torch.stack((self.a, self.b))[None]  # [kept, 2, d], newest last
        self._worlds = torch.zeros(0, len(self.parameters), dtype=torch.float64)  # in (0, 1)
        self._success, self._log_q = (torch.zeros(0, dtype=torch.float64) for _ in range(2))
        self._tabulate()

    def _tabulate(self) -> None:
        """The distribution functions at evenly spaced nodes [d, nodes], for inversion."""
        t = torch.linspace(0.0, 1.0, _NODES, dtype=torch.float64)
        a, b = self.a[:, None], self.b[:, None]
        density = (torch.special.xlogy(a - 1, t) + torch.special.xlog1py(b - 1, -t) - _log_beta(a, b)).exp()
        mass = torch.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), dim=1)
        self._cdf = torch.nn.functional.pad(mass / mass[:, -1:], (1, 0))
        ends = torch.tensor([[_TAIL, 1.0 - _TAIL]], dtype=torch.float64).expand(len(self.a), 2)
        quantile = self._invert(ends.T)
        self.lower, self.upper = self._low + self._width * quantile[0], self._low + self._width * quantile[1]

    def _invert(self, u: Tensor) -> Tensor:
        """Values in (0, 1) [n, d] at which the distribution functions are u [n, d]."""
        cdf = self._copies("cdf", self._cdf, u.device)
        columns = u.T.contiguous()
        right = torch.searchsorted(cdf, columns).clamp(1, _NODES - 1)
        below, above = cdf.gather(1, right - 1), cdf.gather(1, right)
        inside = (columns - below) / (above - below).clamp(min=1e-300)
        return ((right - 1 + inside.clamp(0.0, 1.0)) / (_NODES - 1)).T

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`: every episode is ordinary; the code says which update the world was drawn after."""
        low, width = self._copies("low", self._low, u.device), self._copies("width", self._width, u.device)
        code = -1 - self.updates if explore else -1
        return low + width * self._invert(u), torch.full((len(u),), code, dtype=torch.int64, device=u.device)

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        """Add episodes [k] to the buffer; update the distribution when it is full."""
        if lam is None:
            raise ValueError("DORAEMON needs the worlds lam that were played")
        boundary, lam = torch.as_tensor(boundary).cpu().long(), lam.cpu().double()
        success = (torch.as_tensor(performance).cpu().double() >= self.success_at).double()
        age = self.updates - (-1 - boundary)  # updates made since the world was drawn
        keep = (age >= 0) & (age < len(self._history))
        x = ((lam[keep] - self._low) / self._width.clamp(min=1e-300)).clamp(1e-12, 1.0 - 1e-12)
        drawn = self._history[len(self._history) - 1 - age[keep]]  # [k, 2, d]
        self._worlds = torch.cat((self._worlds, x))
        self._success = torch.cat((self._success, success[keep]))
        self._log_q = torch.cat((self._log_q, self._log_density(x, drawn[:, 0], drawn[:, 1])))
        if len(self._success) >= self.buffer_size and len(self.parameters):
            self._update()

    def _log_density(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """log p [...] of worlds x [..., d] in (0, 1); parameters whose range is a point do not count."""
        terms = (a - 1) * x.log() + (b - 1) * torch.log1p(-x) - _log_beta(a, b)
        return torch.where(self._width > 0, terms, 0.0).sum(-1)

    def success_of(self, a: Tensor, b: Tensor) -> Tensor:
        """S(p), estimated from the buffer, of distributions a, b [c, d]."""
        good = self._success > 0  # the others add nothing
        x = self._worlds[good]
        moving = (self._width > 0).double()
        log_p = (a - 1) * moving @ x.log().T + (b - 1) * moving @ torch.log1p(-x).T
        log_p = log_p - (_log_beta(a, b) * moving).sum(1, keepdim=True)
        return (log_p - self._log_q[good]).exp().sum(1) / len(self._success)

    def _update(self) -> None:
        """Take the best candidate within the trust region, and empty the buffer."""
        a, b = self._candidates()
        success = self.success_of(a, b)
        entropy = (beta_entropy(a, b) * (self._width > 0)).sum(1)
        feasible = success >= self.success_rate
        backup = not bool(feasible.any())
        score = success if backup else torch.where(feasible, entropy, -torch.inf)
        best = int(score.argmax())
        self.a, self.b = a[best].clone(), b[best].clone()
        self.updates += 1
        self.backups += backup
        self._history = torch.cat((self._history, torch.stack((self.a, self.b))[None]))[-_KEPT:]
        self._worlds, self._success, self._log_q = self._worlds[:0], self._success[:0], self._log_q[:0]
        self._tabulate()

    def _candidates(self) -> tuple[Tensor, Tensor]:
        """Distributions a, b [c, d] within the trust region, in the plane of the two natural gradients."""
        a, b = self.a, self.b
        together = _trigamma(a + b)
        entropy = (-(a - 1) * _trigamma(a) + (a + b - 2) * together, -(b - 1) * _trigamma(b) + (a + b - 2) * together)
        x, mean = self._worlds, torch.digamma(a + b)
        weight = (self._log_density(x, a, b) - self._log_q).exp() * self._success / len(x)
        success = (
            (weight[:, None] * (x.log() - torch.digamma(a) + mean)).sum(0),
            (weight[:, None] * (torch.log1p(-x) - torch.digamma(b) + mean)).sum(0),
        )
        one, other = self._natural(*entropy), self._natural(*success)
        mix = _MIXES[:, None, None]
        direction = (1.0 - mix) * one + mix * other  # [mixes, 2, d]
        reach = self._reach_within_kl(direction)
        steps = (reach[:, None] * _FRACTIONS)[:, :, None, None] * direction[:, None]  # [mixes, fractions, 2, d]
        moved = self._moved(steps.flatten(0, 1))
        return moved[:, 0], moved[:, 1]

    def _natural(self, grad_a: Tensor, grad_b: Tensor) -> Tensor:
        """The natural gradient [2, d], of unit length in the Fisher metric; bounds that it points beyond hold it."""
        a, b, together = self.a, self.b, _trigamma(self.a + self.b)
        moving = self._width > 0
        f_aa, f_bb, f_ab = _trigamma(a) - together, _trigamma(b) - together, -together
        determinant = f_aa * f_bb - f_ab * f_ab
        d_a = (f_bb * grad_a - f_ab * grad_b) / determinant
        d_b = (f_aa * grad_b - f_ab * grad_a) / determinant
        held_a, held_b = (a <= _SMALLEST) & (d_a < 0), (b <= _SMALLEST) & (d_b < 0)
        d_a, d_b = torch.where(held_b, grad_a / f_aa, d_a), torch.where(held_a, grad_b / f_bb, d_b)
        d_a, d_b = d_a.masked_fill(held_a | ~moving, 0.0), d_b.masked_fill(held_b | ~moving, 0.0)
        length = (f_aa * d_a**2 + f_bb * d_b**2 + 2 * f_ab * d_a * d_b).sum().clamp(min=0.0).sqrt()
        return torch.stack((d_a, d_b)) / length.clamp(min=1e-12)

    def _reach_within_kl(self, direction: Tensor) -> Tensor:
        """How far [c] one can go along directions [c, 2, d] until the KL divergence is `kl`, by bisection."""
        low = torch.zeros(len(direction), dtype=torch.float64)
        high = torch.full_like(low, 16.0 * (2.0 * self.kl) ** 0.5)
        for _ in range(50):
            middle = 0.5 * (low + high)
            moved = self._moved(middle[:, None, None] * direction)
            inside = beta_kl(moved[:, 0], moved[:, 1], self.a, self.b).sum(1) <= self.kl
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return low

    def _moved(self, step: Tensor) -> Tensor:
        """Beta parameters [c, 2, d] after steps [c, 2, d], within their bounds."""
        return (torch.stack((self.a, self.b)) + step).clamp(_SMALLEST, _LARGEST)

    def entropy(self) -> float:
        """Of the distribution, nats per dimension; a range that is a point counts as `base.WIDTH_FLOOR` wide."""
        if not self.parameters:
            return 0.0
        width = self._width.clamp(min=WIDTH_FLOOR)
        return float((torch.where(self._width > 0, beta_entropy(self.a, self.b), 0.0) + width.log()).mean())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises RandomizationError if it is of other parameters."""
        super().load_state_dict(state)
        self._tabulate()
