"""The quantities of a task's world as sliders: how far each goes, what was trained, where the policy was proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from envs.engines.base import EngineError
from envs.task import Task
from randomization.catalogue.table import QUANTITIES
from randomization.changes import Change, Changing, fixed_because
from randomization.parameters import Parameter, RandomizationError, build_parameters
from randomization.samplers.base import Manual, no_boundary
from randomization.samplers.frozen import entries_of
from simreal.cli.suggest import suggested_block
from simreal.common.errors import UserError
from simreal.evaluation.worlds import beyond
from simreal.training.run_directory import LoadedPolicy

_REACH = 1.0  # widths of a trained range that a slider goes beyond it, as `simreal evaluate --envelope` looks


@dataclass(frozen=True)
class Curve:
    """Success against one quantity, as an envelope has it: values and shares, [points] each."""

    values: tuple[float, ...]
    success: tuple[float, ...]


@dataclass(frozen=True)
class Dial:
    """One quantity of the world.

    Attributes:
        parameter: its limits are the ends of the slider, its nominal value is where the slider begins.
        trained: range of the training; None where it was not randomized.
        proven: its side of the envelope's box; None where there is none.
        curve: success along it; None where it was not measured.
        fixed: why it cannot change within an episode; "" if it can.
    """

    parameter: Parameter
    trained: tuple[float, float] | None = None
    proven: tuple[float, float] | None = None
    curve: Curve | None = None
    fixed: str = ""

    @property
    def label(self) -> str:
        """Its name in configurations."""
        return self.parameter.name

    @property
    def channel(self) -> str:
        """Where it acts: see `Quantity`."""
        return QUANTITIES[self.parameter.quantity].channel


class Held(Manual):
    """A sampler of one world, which somebody sets.

    Attributes:
        values: [d] of the world; writable.
    """

    def __init__(self, parameters: list[Parameter]) -> None:
        super().__init__(parameters)
        self.values = torch.tensor([p.nominal for p in parameters], dtype=torch.float64)

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`."""
        return self.values.to(u.device).expand(len(u), -1).clone(), no_boundary(u)


def steerable(dials: list[Dial]) -> tuple[Held, Changing]:
    """The world of these sliders, and the sampler of episodes that begin in it and follow it."""
    held = Held([dial.parameter for dial in dials])
    ends = {dial.label: dial.parameter.limits for dial in dials if not dial.fixed}
    return held, Changing(held, (), (Change(0.0, 0.0, ends),))


def make_dials(policy: LoadedPolicy, envelope: Mapping[str, Any] | None = None) -> list[Dial]:
    """A slider for each parameter of a policy's training, then for every other quantity of its task that is not about
    looks, as far as they go together.

    Args:
        policy: to be played.
        envelope: what `simreal evaluate --envelope` wrote of it.
    """
    task = policy.make_task()
    trained = {p.name: p.limits for p in policy.parameters}
    parameters = _parameters(policy, task)
    curves = {c["name"]: Curve(tuple(c["values"]), tuple(c["success"])) for c in (envelope or {}).get("parameters", ())}
    box = ((envelope or {}).get("box") or {}).get("ranges", {})
    return [
        Dial(
            p, trained.get(p.name), tuple(box[p.name]) if p.name in box else None,
            curves.get(p.name), fixed_because(p.quantity),
        )
        for p in parameters
    ]  # fmt: skip


def _parameters(policy: LoadedPolicy, task: Task) -> list[Parameter]:
    own = [replace(p, distribution="uniform", group="") for p in policy.parameters]
    own = [p for p in own if QUANTITIES[p.quantity].channel != "visual"]
    may = () if policy.config is None else policy.config.randomization.sampler_for(task).parameters
    most = {p.name: p.limits for p in may}  # that ADR may widen to
    wide = [replace(p, limits=_around(beyond(task, p, _REACH), most.get(p.name))) for p in own]
    wide = wide if _goes(policy, wide) else own
    others = {
        label: entry
        for label, entry in suggested_block(task)["parameters"].items()
        if entry.get("quantity", label) not in {p.quantity for p in own} and label not in {p.name for p in own}
    }
    known = entries_of(wide)

    def built(labels: list[str]) -> list[Parameter] | None:
        """All parameters with these others; None where they do not go together."""
        try:
            made = build_parameters(task, known | {label: _widened(label, others[label]) for label in labels})
        except RandomizationError:
            return None
        found = [*wide, *made[len(wide) :]]
        return found if _goes(policy, found) else None

    def accept(labels: list[str], group: list[str]) -> list[str]:
        """`labels`, and of a group those that go with them."""
        if not group or built([*labels, *group]) is not None:
            return [*labels, *group]
        if len(group) == 1:
            return labels
        half = len(group) // 2
        return accept(accept(labels, group[:half]), group[half:])

    return built(accept([], list(others))) or wide


def _around(one: tuple[float, float], other: tuple[float, float] | None) -> tuple[float, float]:
    """The range that holds both."""
    return one if other is None else (min(one[0], other[0]), max(one[1], other[1]))


def _widened(label: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry whose range holds the calibrated world."""
    quantity = QUANTITIES[entry.get("quantity", label)]
    low, high = entry["range"]
    least, most = quantity.limits
    nominal = min(max(quantity.nominal, least), most)
    return {**entry, "range": [min(low, nominal), max(high, nominal)], "nominal": nominal}


def _goes(policy: LoadedPolicy, parameters: list[Parameter]) -> bool:
    """Whether a world can have all of these parameters."""
    try:
        _, sampler = steerable([Dial(p, fixed=fixed_because(p.quantity)) for p in parameters])
        policy.make_environment(1, sampler, 0)
    except (RandomizationError, UserError, EngineError):
        return False
    return True
