"""The registry of what can be randomized, and how a configuration names it.

A *quantity* is something that can differ between worlds (mass, latency, noise of a sensor). A *parameter* is a
quantity of chosen objects with a range: one entry of lambda, the vector that describes a world. Samplers see
parameters only as numbers; `physics`, `latency` and `noise` turn the numbers into worlds.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import mujoco

from envs.task import Task
from randomization.appearance import SUITABLE, appearance_names, is_suitable
from randomization.fields import COM, UNSUITABLE, edits_of, nominal_values
from randomization.objects import BODIES, is_motor_or_servo
from randomization.quantities import QUANTITIES, Mode, Quantity, Target

Distribution = Literal["uniform", "loguniform", "normal", "lognormal"]


class RandomizationError(ValueError):
    """A randomization block that cannot be used; the message names the key and what exists."""


@dataclass(frozen=True)
class Parameter:
    """One entry of lambda.

    Attributes:
        name: label in the configuration.
        nominal: value of the calibrated world, where ADR starts.
        limits: lowest and highest value it may take; bounds stop there.
        step: ADR's Delta, in the parameter's unit.
        unit: of the value.
        mode: see `Quantity`.
        quantity: name of its quantity.
        targets: names of the objects it applies to.
        distribution: how fixed ranges are sampled; normal ones have their middle at the range's and two standard
            deviations on either side, and do not leave the range (lognormal: the same of the logarithm).
        group: fixed ranges of one group are drawn with one uniform number, so that they rise and fall together.
    """

    name: str
    nominal: float = 0.0
    limits: tuple[float, float] = (-4.0, 4.0)
    step: float = 0.02
    unit: str = "1"
    mode: Mode = "absolute"
    quantity: str = ""
    targets: tuple[str, ...] = ()
    distribution: Distribution = "uniform"
    writes: tuple[str, ...] = field(default=())
    group: str = ""

    def __post_init__(self) -> None:
        low, high = self.limits
        if not low <= high:
            raise RandomizationError(f"{self.name}: range [{low:g}, {high:g}] has its lower end above its upper")
        if not low <= self.nominal <= high:
            raise RandomizationError(f"{self.name}: the nominal value {self.nominal:g} is outside [{low:g}, {high:g}]")
        if not self.step > 0:
            raise RandomizationError(f"{self.name}: step {self.step:g} must be positive")
        if self.distribution in ("loguniform", "lognormal") and low <= 0:
            raise RandomizationError(
                f"{self.name}: a {self.distribution} range must be positive, got [{low:g}, {high:g}]"
            )


_INF = float("inf")
_OBJECTS = {  # kind, and the model's count of it
    "body": (mujoco.mjtObj.mjOBJ_BODY, "nbody"),
    "geom": (mujoco.mjtObj.mjOBJ_GEOM, "ngeom"),
    "joint": (mujoco.mjtObj.mjOBJ_JOINT, "njnt"),
    "tendon": (mujoco.mjtObj.mjOBJ_TENDON, "ntendon"),
    "actuator": (mujoco.mjtObj.mjOBJ_ACTUATOR, "nactuator"),  # one may have several controls: nu counts those
}
_ENTRY_KEYS = ("quantity", "of", "range", "step", "distribution", "group")


def object_names(task: Task, target: Target) -> list[str]:
    """Names that a pattern may match; unnamed objects are called `kind<index>`."""
    if target == "none":
        return []
    if target == "axis":
        return ["x", "y", "z"]
    if target in ("camera", "light", "material"):
        return appearance_names(task.model, target)
    if target == "component":
        return [c.name for c in task.components("policy") if c.measured and not c.derived_from]
    if target == "action":
        return [c.name for c in task.action]
    if target in BODIES:
        return [_body_name(task.model, i) for i in BODIES[target](task.model)]
    model, (kind, count) = task.model, _OBJECTS[target]
    first = 1 if target == "body" else 0  # the world does not move
    return [mujoco.mj_id2name(model, kind, i) or f"{target}{i}" for i in range(first, getattr(model, count))]


def _body_name(model: mujoco.MjModel, index: int) -> str:
    return mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, index) or f"body{index}"


def object_index(task: Task, target: Target, name: str) -> int:
    """Index in the model of a name given by `object_names`."""
    target = "body" if target in BODIES else target
    first = 1 if target == "body" else 0
    return object_names(task, target).index(name) + first


def nearest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for messages, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message, shortened."""
    names = list(names)
    shown = ", ".join(names[:most])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown or "none"


def build_parameters(task: Task, entries: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of a `randomization.parameters` block, checked against a task.

    Each entry is `label: {quantity, of, range, step, distribution}`: `quantity` is the label where that names a
    quantity; `of` a pattern, or several, of names (all where it is left out); `range` the fixed range, or what
    ADR may widen to; `step` ADR's Delta (a tenth of the range).

    Raises:
        RandomizationError: naming the entry, what was expected and what is nearest.
    """
    parameters = [_build(task, label, entry) for label, entry in entries.items()]
    _refuse_overlaps(parameters)
    _refuse_idle(parameters)
    _refuse_wind_without_air(task, parameters)
    return parameters


# What happens to commands within a control step, or to single controls: only tasks that leave commands to the engine
# can have it.
_OF_COMMANDS = {
    "action_delay": "action_latency (whole control steps)",
    "action_delay_jitter": "action_latency (whole control steps)",
    "actuator_stuck": "actuator_failure (no force at all)",
    "actuator_backlash": "action_bias or action_dropout",
    "actuator_backlash_spread": "action_bias or action_dropout",
}


def has_commands_for(task: Task, quantity: Quantity) -> bool:
    """False for what acts on single commands where the task hands whole actions to an environment of its own."""
    return bool(task.command_fields) or quantity.name not in _OF_COMMANDS


def _build(task: Task, label: str, entry: Any) -> Parameter:
    if not isinstance(entry, Mapping):
        raise RandomizationError(f"{label}: expected a mapping with a range, got {entry!r}")
    for key in entry:
        if key not in _ENTRY_KEYS:
            raise RandomizationError(f"{label}.{key}: unknown key{nearest(str(key), _ENTRY_KEYS)}")
    name = entry.get("quantity", label)
    if not isinstance(name, str) or name not in QUANTITIES:
        raise RandomizationError(
            f"{label}: unknown quantity {name!r}{nearest(str(name), QUANTITIES)}; there are: {listed(QUANTITIES)}"
        )
    quantity = QUANTITIES[name]
    if not has_commands_for(task, quantity):
        raise RandomizationError(
            f"{label}: {task.id} writes its controls itself, once per control step, so {name} cannot act on them; "
            f"there is {_OF_COMMANDS[name]}"
        )
    targets = _resolve(task, label, quantity, entry.get("of"))
    low, high = _range(label, quantity, entry.get("range", quantity.default_range))
    step = entry.get("step", (high - low) / 10.0 or 1.0)
    if not _is_number(step):
        raise RandomizationError(f"{label}.step: expected a number, got {step!r}")
    nominal = min(max(quantity.nominal, low), high)
    parameter = Parameter(label, nominal, (low, high), float(step), quantity.unit, quantity.mode, name, targets)
    distribution = entry.get("distribution", "uniform")
    if distribution not in get_args(Distribution):
        raise RandomizationError(
            f"{label}.distribution: expected {', '.join(map(repr, get_args(Distribution)))}, got {distribution!r}"
        )
    group = entry.get("group", "")
    if not isinstance(group, str):
        raise RandomizationError(f"{label}.group: expected a name, got {group!r}")
    return replace(parameter, distribution=distribution, writes=quantity.writes, group=group)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _range(label: str, quantity: Quantity, value: Any) -> tuple[float, float]:
    numbers = isinstance(value, (list, tuple)) and len(value) == 2
    if not numbers or not all(_is_number(v) for v in value):
        raise RandomizationError(f"{label}.range: expected two numbers [lower, upper], got {value!r}")
    low, high = float(value[0]), float(value[1])
    if low > high:
        raise RandomizationError(f"{label}.range: lower end {low:g} is above upper end {high:g}")
    if low < quantity.limits[0] or high > quantity.limits[1]:
        allowed = f"[{quantity.limits[0]:g}, {quantity.limits[1]:g}]"
        raise RandomizationError(f"{label}.range: [{low:g}, {high:g}] is not within {allowed}")
    return low, high


def _exists(task: Task, quantity: Quantity) -> bool:
    """Whether a task has anything that a quantity could belong to."""
    if not has_commands_for(task, quantity):
        return False
    return quantity.target == "none" or bool(object_names(task, quantity.target))


def _resolve(task: Task, label: str, quantity: Quantity, patterns: Any) -> tuple[str, ...]:
    """Names of the objects that the patterns match."""
    names = object_names(task, quantity.target)
    if quantity.target == "none":
        if patterns is not None:
            raise RandomizationError(f"{label}.of: {quantity.name} belongs to the whole task and takes no names")
        return ()
    if not names:
        others = [q.name for q in QUANTITIES.values() if q.channel == quantity.channel and _exists(task, q)]
        raise RandomizationError(
            f"{label}: {task.id} has no {quantity.target} to randomize {quantity.name} of; "
            f"of the {quantity.channel} channel it has: {listed(others)}"
        )
    patterns = ["*"] if patterns is None else [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, (list, tuple)) or not patterns or not all(isinstance(p, str) for p in patterns):
        raise RandomizationError(f"{label}.of: expected a name, a pattern or a list of them, got {patterns!r}")
    matched: list[str] = []
    for pattern in patterns:
        hits = fnmatch.filter(names, pattern)
        if not hits:
            raise RandomizationError(
                f"{label}.of: no {quantity.target} matches {pattern!r}{nearest(pattern, names)}; "
                f"{task.id} has: {listed(names)}"
            )
        if any(c in pattern for c in "*?["):  # a pattern may match what a factor does nothing to; a name may not
            hits = [hit for hit in hits if not (_unsuitable(task, quantity, hit) or _is_zero(task, quantity, hit))]
            if not hits:
                raise RandomizationError(_nothing_left(task, label, quantity, pattern, names))
        matched += [hit for hit in hits if hit not in matched]
    for name in matched:
        if _unsuitable(task, quantity, name):
            raise RandomizationError(f"{label}.of: {name} is no {_SUITABLE[quantity.name]}; name others with 'of'")
    return tuple(matched)


_SUITABLE = {  # what an object would have to be
    **UNSUITABLE, **SUITABLE, "actuator_backlash": "motor, servo or PID", "actuator_fade": "motor, servo or PID",
}  # fmt: skip


def _nothing_left(task: Task, label: str, quantity: Quantity, pattern: str, names: list[str]) -> str:
    """Why none of the objects that a pattern matches can be used."""
    hits = fnmatch.filter(names, pattern)
    if all(_unsuitable(task, quantity, hit) for hit in hits):
        return f"{label}.of: no {quantity.target} that matches {pattern!r} is a {_SUITABLE[quantity.name]}"
    field, kind = quantity.writes[0], quantity.target
    return f"{label}.of: {field} of every {kind} that matches {pattern!r} is zero, so a factor would do nothing"


def _unsuitable(task: Task, quantity: Quantity, name: str) -> bool:
    """Whether a quantity makes no sense for an object: a range of a joint without limits, the size of a mesh."""
    if quantity.channel == "visual":
        return not is_suitable(task.model, quantity.name, object_index(task, quantity.target, name))
    if quantity.name == "actuator_fade":
        return not edits_of(task.model, "actuator_strength", object_index(task, "actuator", name))
    if quantity.name == "actuator_backlash":
        return not is_motor_or_servo(task.model, object_index(task, "actuator", name))
    if quantity.channel != "physics":
        return False
    index = object_index(task, quantity.target, name)
    if quantity.name in COM and task.model.body_simple[index] and not task.compiles_again:
        return True  # compiled with a diagonal inertia, and only another compilation could change that
    return not edits_of(task.model, quantity.name, index)


def _is_zero(task: Task, quantity: Quantity, name: str) -> bool:
    """Whether a factor would do nothing to an object."""
    if quantity.channel != "physics" or quantity.mode != "scale":
        return False
    index = object_index(task, quantity.target, name)
    return not any(nominal_values(task, quantity.name, index))


def _refuse_idle(parameters: list[Parameter]) -> None:
    """A quantity that only shapes another one does nothing alone."""
    for parameter in parameters:
        needs = QUANTITIES[parameter.quantity].needs
        found = [p for p in parameters if p.quantity == needs]
        alone = sorted(set(parameter.targets) - {target for p in found for target in p.targets})
        if needs and (alone or not found):
            whose = f" of {listed(alone, 3)}" if alone else ""
            raise RandomizationError(f"{parameter.name}: does nothing without {needs}{whose}: add that")


def usable_names(task: Task, quantity: Quantity) -> list[str]:
    """Objects of a task for which a quantity makes sense: those that the pattern '*' chooses."""
    if not has_commands_for(task, quantity):
        return []
    names = object_names(task, quantity.target)
    return [n for n in names if not (_unsuitable(task, quantity, n) or _is_zero(task, quantity, n))]


def has_air(task: Task) -> bool:
    """Whether a task's model has a medium for wind to blow in."""
    return bool(task.model.opt.density or task.model.opt.viscosity)


def _refuse_wind_without_air(task: Task, parameters: list[Parameter]) -> None:
    """Wind acts through density and viscosity only."""
    air = has_air(task) or any(p.quantity in ("air_density", "air_viscosity") for p in parameters)
    for parameter in parameters:
        if parameter.quantity == "wind" and not air:
            raise RandomizationError(f"{parameter.name}: {task.id} has no air: add air_density or air_viscosity")


def _refuse_overlaps(parameters: list[Parameter]) -> None:
    """Factors multiply, but two absolute values of one thing contradict each other."""
    owners: dict[tuple[str, str], str] = {}
    for parameter in parameters:
        if parameter.mode != "absolute":
            continue
        for target in parameter.targets or ("",):
            key = (parameter.quantity, target)
            if key in owners:
                what = f"{parameter.quantity} of {target}" if target else parameter.quantity
                raise RandomizationError(f"{parameter.name}: {what} is set by {owners[key]!r} already")
            owners[key] = parameter.name
