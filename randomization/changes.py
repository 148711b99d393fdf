"""Worlds that change during an episode: at a time, at once or slowly, some parameters of lambda take other values.

lambda(0) is what a sampler draws. Each change, in the order of their times, leads from what is there to a target:

    lambda_i(t) = lambda_i + s * (target_i - lambda_i),   s = clamp((t - at) / over, 0, 1),   or 1 from `at` on

A control step that begins at `at` or later is the first in another world; what was measured before it was measured in
the world before. Targets are drawn once per episode, so that an episode is the same whatever else is played.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from envs.common.messages import listed, nearest
from envs.common.stateful import Stateful
from envs.environment import Environment
from randomization.catalogue.table import QUANTITIES
from randomization.effects.effect import Effect
from randomization.parameters import Parameter, RandomizationError
from randomization.samplers.base import Sampler

_ROUNDING_S = 1e-6  # by which a step may begin too early and still count as on time


@dataclass(frozen=True)
class Change:
    """One change within an episode.

    Attributes:
        at_s: when it begins, s since the beginning of the episode.
        over_s: how long it takes; 0: at once.
        values: label of a parameter: lowest and highest value that it may end at, uniform.
    """

    at_s: float
    over_s: float
    values: Mapping[str, tuple[float, float]]


class Changing:
    """A sampler whose worlds change during the episodes.

    Args:
        begins: draws the worlds that episodes begin in.
        changes: what happens to them; none: nothing, in worlds that are drawn in the same way.
        others: changes of other worlds that these are to be compared with: parameters have room for them too.

    Attributes:
        parameters: those of `begins`, with limits that hold all values they come to.

    Raises:
        RandomizationError: a change names no parameter, one that holds for a whole episode, or values that make no
            sense.
    """

    def __init__(self, begins: Sampler, changes: Sequence[Change], others: Sequence[Change] = ()) -> None:
        self.begins, self.others = begins, tuple(others)
        self.changes = tuple(sorted(changes, key=lambda change: change.at_s))
        labels = [p.name for p in begins.parameters]
        reached: dict[str, list[float]] = {}
        for change in (*changes, *others):
            for label, ends in change.values.items():
                if label not in labels:
                    raise RandomizationError(
                        f"{label}: no such parameter{nearest(label, labels)}; a change is of one that has a range to "
                        f"begin with, there are: {listed(labels) if labels else 'none'}"
                    )
                reached.setdefault(label, []).extend(ends)
        self.parameters = [_widened(p, reached.get(p.name, ())) for p in begins.parameters]
        self.lower, self.upper = begins.lower, begins.upper

    @property
    def unchanged(self) -> Changing:
        """The same worlds, which stay as they begin."""
        return Changing(self.begins, (), self.changes)

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """Worlds that episodes begin in; see `Sampler.draw`."""
        return self.begins.draw(u, choice, explore)

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        """See `Sampler.record`."""
        self.begins.record(boundary, performance, lam)

    def entropy(self) -> float:
        """That of the worlds that episodes begin in; see `Sampler.entropy`."""
        return self.begins.entropy()

    def state_dict(self) -> dict[str, Any]:
        """See `Sampler.state_dict`."""
        return self.begins.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.begins.load_state_dict(state)


def _widened(parameter: Parameter, values: Sequence[float]) -> Parameter:
    """A parameter whose limits hold other values too."""
    if not values:
        return parameter
    quantity = QUANTITIES[parameter.quantity]
    if reason := fixed_because(parameter.quantity):
        raise RandomizationError(f"{parameter.name}: {parameter.quantity} {reason}")
    least, most = quantity.limits
    for value in values:
        if not least <= value <= most:
            raise RandomizationError(f"{parameter.name}: {value:g} is not within [{least:g}, {most:g}]")
    low, high = parameter.limits
    limits = min(low, *values), max(high, *values)
    return replace(parameter, limits=limits, distribution="uniform", group="")


def fixed_because(name: str) -> str:
    """Why a quantity cannot change within an episode; "" if it can."""
    quantity = QUANTITIES[name]
    effect = quantity.effect or (QUANTITIES[quantity.needs].effect if quantity.needs else None)
    if quantity.changes_timestep:
        return "cannot change within an episode: times are counted in its steps"
    if quantity.channel == "visual":
        return "cannot change within an episode: it is looked at where one begins"
    if effect is not None and (not effect.overrides("change") or name in effect.whole_episodes):
        return "holds for a whole episode and cannot change within one"
    return "" if effect is not None or quantity.channel == "physics" else "cannot change within an episode"


class EpisodeChanges(Stateful):
    """What the worlds of N environments have become so far.

    Args:
        sampler: says what changes.
        environment: whose episodes they are.
        period_s: duration of a control step [N, 1]; live where worlds differ in it.
    """

    _state = ("_begin", "_targets")

    def __init__(self, sampler: Changing, environment: Environment, period_s: Tensor) -> None:
        self._environment, self._period_s, device = environment, period_s, environment.device
        column = {p.name: i for i, p in enumerate(sampler.parameters)}
        pairs = [(change, label, ends) for change in sampler.changes for label, ends in change.values.items()]
        self._columns = [column[label] for _, label, _ in pairs]
        self._times = [(change.at_s, change.over_s) for change, _, _ in pairs]
        ends = torch.tensor([ends for _, _, ends in pairs], dtype=torch.float64, device=device).reshape(-1, 2)
        self._low, self._width = ends[:, 0], ends[:, 1] - ends[:, 0]
        n = environment.num_envs
        self._begin = torch.zeros(n, len(sampler.parameters), dtype=torch.float64, device=device)
        self._targets = torch.zeros(n, len(pairs), dtype=torch.float64, device=device)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Begin episodes in mask [N] in the worlds lam [N, d]."""
        drawn = self._low + self._width * self._environment.rng.episode_uniform("changes", len(self._columns))
        self._begin = torch.where(mask[:, None], lam, self._begin)
        self._targets = torch.where(mask[:, None], drawn, self._targets)

    def steer(self, lam: Tensor) -> None:
        """Take lam [N, d] for the worlds that the present episodes began in."""
        self._begin = lam.to(self._begin)

    def now(self) -> Tensor:
        """The worlds [N, d] of the control step that begins now."""
        time_s = self._environment.steps * self._period_s[:, 0]
        lam = self._begin.clone()
        for i, (column, (at_s, over_s)) in enumerate(zip(self._columns, self._times, strict=True)):
            if over_s > 0.0:
                part = ((time_s - at_s) / over_s).clamp(0.0, 1.0)
            else:
                part = (time_s >= at_s - _ROUNDING_S).double()
            lam[:, column] = torch.lerp(lam[:, column], self._targets[:, i], part)
        return lam


def refuse_together(effects: Mapping[str, Effect], parameters: Sequence[Parameter], changes: Sequence[Change]) -> None:
    """Raise RandomizationError where something else has written, for a whole episode, what a change writes to."""
    changed = {label for change in changes for label in change.values}
    fields = {name for p in parameters if p.name in changed for name in p.writes}
    for quantity, effect in effects.items():
        if both := sorted(fields & effect.held_fields()):
            raise RandomizationError(
                f"{quantity}: holds for a whole episode and writes {both[0]}, which {listed(sorted(changed))} changes "
                "within one; leave one of them out"
            )
