"""Which objects of a task a quantity makes sense for, and does something to."""

from __future__ import annotations

import mujoco

from envs.task import Task
from randomization.catalogue.table import RandomizableQuantity
from randomization.physics.model_edits import COM, UNSUITABLE, edits_of, is_zero
from randomization.targets.appearance import SUITABLE, is_suitable
from randomization.targets.effective import idle_because, only_shown
from randomization.targets.names import object_places
from randomization.targets.objects import has_gear, has_input, is_motor_or_servo

# What happens to commands within a control step, or to single controls: only tasks that leave commands to the engine
# can have it.
OF_COMMANDS = {
    "action_delay": "action_latency (whole control steps)",
    "action_delay_jitter": "action_latency (whole control steps)",
    "actuator_stuck": "actuator_failure (no force at all)",
    "actuator_backlash": "action_bias or action_dropout",
    "actuator_backlash_spread": "action_bias or action_dropout",
}
_BACKLASH = ("actuator_backlash", "actuator_backlash_spread")

# What an object has to be for a quantity; named when it is not.
EXPECTED: dict[str, str] = {
    **UNSUITABLE,
    **SUITABLE,
    **dict.fromkeys(_BACKLASH, "motor, servo or PID with one input"),
    "actuator_fade": UNSUITABLE["actuator_strength"],
    "actuator_failure": "actuator with a gear or a force to take away",
    "actuator_stuck": "actuator with an input",
}


def has_commands_for(task: Task, quantity: RandomizableQuantity) -> bool:
    """False for what acts on single commands where the task hands whole actions to an environment of its own."""
    needed = "ctrl" in task.command_fields if quantity.target == "actuator" else bool(task.command_fields)
    return needed or quantity.name not in OF_COMMANDS


_OFF = mujoco.mjtDisableBit
_SWITCHES: dict[
    str, tuple[mujoco.mjtDisableBit, ...]
] = {  # beginnings of quantities' names, and what has to be on for them
    "actuator_": (_OFF.mjDSBL_ACTUATION,),
    "gravity": (_OFF.mjDSBL_GRAVITY,),
    "base_": (_OFF.mjDSBL_GRAVITY,),
    "joint_range": (_OFF.mjDSBL_LIMIT, _OFF.mjDSBL_CONSTRAINT),
    "tendon_range": (_OFF.mjDSBL_LIMIT, _OFF.mjDSBL_CONSTRAINT),
    "backlash_range": (_OFF.mjDSBL_LIMIT, _OFF.mjDSBL_CONSTRAINT),
    "joint_frictionloss": (_OFF.mjDSBL_FRICTIONLOSS, _OFF.mjDSBL_CONSTRAINT),
    "joint_stiffness": (_OFF.mjDSBL_SPRING,),
    "tendon_stiffness": (_OFF.mjDSBL_SPRING,),
    "tendon_length_spring": (_OFF.mjDSBL_SPRING,),
    "joint_damping": (_OFF.mjDSBL_DAMPER,),
    **dict.fromkeys(
        ("geom_friction", "geom_sol", "geom_margin", "geom_gap"), (_OFF.mjDSBL_CONTACT, _OFF.mjDSBL_CONSTRAINT)
    ),
}


def switched_off(task: Task, quantity: RandomizableQuantity) -> str:
    """What a quantity acts through and the model has switched off, as the model's file calls it; or nothing."""
    flags = next((flags for start, flags in _SWITCHES.items() if quantity.name.startswith(start)), ())
    off = [flag.name for flag in flags if int(task.model.opt.disableflags) & int(flag)]
    return off[0].removeprefix("mjDSBL_").lower() if off else ""


def makes_sense(task: Task, quantity: RandomizableQuantity, index: int) -> bool:
    """Whether a quantity makes sense for object `index` of its kind: not the range of a joint without limits, or the
    size of a mesh. `EXPECTED` says what the object would have to be."""
    model, name = task.model, quantity.name
    if quantity.channel == "visual":
        return is_suitable(model, name, index)
    if quantity.target == "actuator" and _group_is_off(model, index):
        return False
    if name == "actuator_fade":
        return bool(edits_of(model, "actuator_strength", index))
    if name == "actuator_failure":
        return has_gear(model, index) or bool(edits_of(model, "actuator_strength", index))
    if name == "actuator_stuck":
        return has_input(model, index)
    if name in _BACKLASH:
        return is_motor_or_servo(model, index)
    if quantity.channel != "physics":
        return True
    if name in COM and model.body_simple[index] and not task.compiles_again:
        return False  # compiled with a diagonal inertia, and only another compilation could change that
    return bool(edits_of(model, name, index))


def why_unsuitable(task: Task, quantity: RandomizableQuantity, name: str, index: int) -> str:
    """What is wrong with an object that a quantity makes no sense for."""
    if quantity.target == "actuator" and _group_is_off(task.model, index):
        return f"{name} belongs to a group of actuators that the model has switched off"
    return f"{name} is no {EXPECTED[quantity.name]}"


def _group_is_off(model: mujoco.MjModel, actuator: int) -> bool:
    group = int(model.actuator_group[actuator])
    return 0 <= group < 31 and bool(int(model.opt.disableactuator) >> group & 1)


def does_nothing(task: Task, quantity: RandomizableQuantity, index: int) -> bool:
    """Whether a quantity would leave an object that it makes sense for as it is: a factor of zero."""
    return quantity.channel == "physics" and quantity.mode == "scale" and is_zero(task, quantity.name, index)


def usable(task: Task, quantity: RandomizableQuantity, index: int) -> bool:
    """Whether a quantity makes sense for an object and does something to it."""
    if idle_because(task, quantity, index) or only_shown(task, quantity, index):
        return False
    return makes_sense(task, quantity, index) and not does_nothing(task, quantity, index)


def usable_names(task: Task, quantity: RandomizableQuantity) -> list[str]:
    """Labels of the objects that a quantity makes sense for: those that the pattern '*' chooses."""
    if not has_commands_for(task, quantity) or switched_off(task, quantity):
        return []
    return [name for name, index in object_places(task, quantity.target).items() if usable(task, quantity, index)]
