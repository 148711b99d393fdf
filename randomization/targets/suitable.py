"""Which objects of a task a quantity makes sense for, and does something to."""

from __future__ import annotations

import mujoco

from envs.task import Task
from randomization.catalogue.quantity import Quantity
from randomization.targets.effective import idle_because, only_shown
from randomization.targets.names import object_places


def has_commands_for(task: Task, quantity: Quantity) -> bool:
    """False for what acts within a control step or on single controls, where the task hands whole actions to an
    environment of its own."""
    needed = "ctrl" in task.command_fields if quantity.target == "actuator" else bool(task.command_fields)
    return needed or not quantity.instead


def switched_off(task: Task, quantity: Quantity) -> str:
    """What a quantity acts through and the model has switched off, as the model's file calls it; or nothing."""
    flags = (*quantity.switches, *((mujoco.mjtDisableBit.mjDSBL_ACTUATION,) if quantity.target == "actuator" else ()))
    off = [flag.name for flag in flags if int(task.model.opt.disableflags) & int(flag)]
    return off[0].removeprefix("mjDSBL_").lower() if off else ""


def makes_sense(task: Task, quantity: Quantity, index: int) -> bool:
    """Whether a quantity makes sense for object `index` of its kind; `Quantity.expected` says what that would be."""
    if quantity.target == "actuator" and _group_is_off(task.model, index):
        return False
    if quantity.target == "actuator" and _left_out(task, quantity, index):
        return False
    if quantity.shifts_com and task.model.body_simple[index] and not task.compiles_again:
        return False  # compiled with a diagonal inertia, and only another compilation could change that
    return quantity.is_for(task, index)


def why_unsuitable(task: Task, quantity: Quantity, name: str, index: int) -> str:
    """What is wrong with an object that a quantity makes no sense for."""
    if quantity.target == "actuator" and _group_is_off(task.model, index):
        return f"{name} belongs to a group of actuators that the model has switched off"
    if quantity.target == "actuator" and _left_out(task, quantity, index):
        return f"{name} is driven by the task's actuator network, in which {quantity.name} has no part"
    return f"{name} is no {expected(quantity)}"


def _left_out(task: Task, quantity: Quantity, actuator: int) -> bool:
    """Whether an actuator network takes the place of what a quantity is of."""
    of_the_drive = quantity.name.startswith(("actuator_kd", "actuator_ki", "motor_", "gear_", "encoder_"))
    return of_the_drive and task.actuator is not None and actuator in task.actuator.drives(task.model)


def expected(quantity: Quantity) -> str:
    """What an object has to be for a quantity."""
    return quantity.expected or f"{quantity.target} that {quantity.name} could act on"


def _group_is_off(model: mujoco.MjModel, actuator: int) -> bool:
    group = int(model.actuator_group[actuator])
    return 0 <= group < 31 and bool(int(model.opt.disableactuator) >> group & 1)


def usable(task: Task, quantity: Quantity, index: int) -> bool:
    """Whether a quantity makes sense for an object and does something to it."""
    if idle_because(task, quantity, index) or only_shown(task, quantity, index):
        return False
    return makes_sense(task, quantity, index) and not quantity.multiplies_zero(task.model, index)


def usable_names(task: Task, quantity: Quantity) -> list[str]:
    """Labels of the objects that a quantity makes sense for: those that the pattern '*' chooses."""
    if not has_commands_for(task, quantity) or switched_off(task, quantity):
        return []
    return [name for name, index in object_places(task, quantity.target).items() if usable(task, quantity, index)]
