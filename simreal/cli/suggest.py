"""A `randomization:` block to start from: every quantity that a task has, with sensible ranges."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import mujoco

from envs.common.names import labels_of
from envs.task import Task
from randomization.catalogue.table import QUANTITIES, RandomizableQuantity
from randomization.parameters import has_air
from simreal.cli.describe import available, nominal_text, sensible_range

# What is on from the start; the others refine, replace or complement these and are given as comments.
_FIRST = frozenset({
    "body_mass", "body_com", "body_size", "geom_friction", "geom_solref", "joint_damping", "joint_frictionloss",
    "joint_stiffness", "joint_armature", "joint_range", "tendon_stiffness", "tendon_length_spring", "tendon_range",
    "actuator_gain", "actuator_force_range", "gravity", "timestep", "action_noise", "action_bias", "action_delay",
    "observation_noise", "observation_bias", "observation_delay", "force_size",
})  # fmt: skip
_AXIS = {"gravity": "z", "wind": "x"}  # one axis at a time: one lambda for all of them would move along a diagonal
_FREE = int(mujoco.mjtJoint.mjJNT_FREE)


def suggested_yaml(task: Task) -> str:
    """The block as YAML; it loads as it stands, and so does every entry in a comment."""
    lines = [
        f"# Worlds for {task.id}. Measure what you can, keep what you cannot, and see `simreal describe {task.id}`.",
        "randomization:",
        "  sampler: manual # or adr, doraemon: start at the calibrated world and widen up to these ranges",
        "  parameters:",
    ]
    channel = ""
    offered = available(task)
    for name, names in offered.items():
        quantity = QUANTITIES[name]
        if quantity.needs and quantity.needs not in offered:
            continue
        if quantity.channel != channel:
            channel = quantity.channel
            lines.append(f"    # {channel}")
        of = _of(task, quantity, names)
        on = name in _FIRST and not (name == "body_size" and of == '"*"')
        lines.append(f"    {'' if on else '# '}{_entry(task, quantity, names, of)}")
    return "\n".join(lines) + "\n"


def suggested_block(task: Task, only: Collection[str] | None = None) -> dict[str, Any]:
    """The block with every entry on that is not about looks, or with those of `only` that the task has."""
    offered = available(task)
    parameters: dict[str, Any] = {}
    for name, names in offered.items():
        quantity = QUANTITIES[name]
        missing = bool(quantity.needs) and quantity.needs not in offered
        if missing or quantity.channel == "visual" or (only is not None and name not in only):
            continue
        of = {"of": _patterns(task, quantity, names)} if names else {}
        parameters[name] = of | {"range": list(sensible_range(task, quantity, names))}
    return {"sampler": "manual", "parameters": parameters}


def _of(task: Task, quantity: RandomizableQuantity, names: list[str]) -> str:
    """What `of` says, as YAML."""
    pattern = _patterns(task, quantity, names)
    return pattern if quantity.name in _AXIS and isinstance(pattern, str) and pattern != "y" else json.dumps(pattern)


def _patterns(task: Task, quantity: RandomizableQuantity, names: list[str]) -> str | list[str]:
    """What `of` says: everything, one axis, or the loose objects for their size."""
    if quantity.name in _AXIS:
        return _AXIS[quantity.name] if _AXIS[quantity.name] in names else names[0]
    loose = _loose_bodies(task) if quantity.name == "body_size" else []
    return [name for name in names if name in loose] or "*"


def _entry(task: Task, quantity: RandomizableQuantity, names: list[str], of: str) -> str:
    low, high = sensible_range(task, quantity, names)
    settings = [f"of: {of}"] if names else []
    settings.append(f"range: [{_number(low)}, {_number(high)}]")
    unit = {"1": "", "unit": ", in the component's unit"}.get(quantity.unit, f", {quantity.unit}")
    nominal = f"; nominal {nominal_text(task, quantity, names)}" if quantity.channel == "physics" else ""
    needs = quantity.needs or ("air_density or air_viscosity" if quantity.name == "wind" and not has_air(task) else "")
    needs = f"; goes with {needs}" if needs else ""
    return f"{quantity.name}: {{{', '.join(settings)}}} # {quantity.mode}{unit}: {quantity.description}{nominal}{needs}"


def _number(value: float) -> str:
    """As YAML 1.1 reads it back: 2e-05 would be a string, 2.0e-05 is a number."""
    text = f"{value:g}"
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _loose_bodies(task: Task) -> list[str]:
    """Bodies with a free joint and nothing attached: objects rather than robots."""
    model = task.model
    parents = set(model.body_parentid.tolist())
    return [
        label
        for i, label in enumerate(labels_of(model, "body"))
        if model.body_jntnum[i] and int(model.jnt_type[model.body_jntadr[i]]) == _FREE and i not in parents
    ]
