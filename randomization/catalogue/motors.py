"""The catalogue of motors, gears, encoders and the supply: what `randomization.effects.motors` applies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mujoco

from envs.task import Task
from randomization.catalogue.quantity import QUANTITIES, Quantity, Target
from randomization.effects.motors.equations import UNLIMITED
from randomization.effects.motors.motors import Motors
from randomization.targets.motors import has_largest_torque, is_motor, is_servo
from randomization.targets.suitable import usable_names

_INF = float("inf")
_DRY_FRICTION = (mujoco.mjtDisableBit.mjDSBL_FRICTIONLOSS, mujoco.mjtDisableBit.mjDSBL_CONSTRAINT)


def _of_model(suits: Callable[[mujoco.MjModel, int], bool], task: Task, actuator: int) -> bool:
    return suits(task.model, actuator)


def _nothing_to_shape(task: Task, quantity: Quantity, index: int) -> str:  # noqa: ARG001
    return "" if usable_names(task, QUANTITIES[quantity.needs]) else "changes nothing: the task has no motor for it"


_KIND = "motor or servo at a hinge or slide, without dynamics or delay of its own"
_MOTOR: dict[str, Any] = {"suits": partial(_of_model, is_motor), "expected": _KIND}
_RUBS: dict[str, Any] = {**_MOTOR, "switches": _DRY_FRICTION}
_LIMITED: dict[str, Any] = {
    "suits": partial(_of_model, has_largest_torque), "expected": f"{_KIND} and with a largest force"
}  # fmt: skip
_SERVO: dict[str, Any] = {"suits": partial(_of_model, is_servo), "expected": f"{_KIND} that acts on its angle"}


def _motor(
    name: str, target: Target, unit: str, limits: tuple[float, float], usual: tuple[float, float], nominal: float,
    description: str, needs: str = "", **more: Any,
) -> Quantity:  # fmt: skip
    """A quantity of motors; one that `needs` another shapes that."""
    if target == "none":
        more["idle"] = _nothing_to_shape
    return Quantity(
        name=name, channel="action", target=target, unit=unit, limits=limits, default_range=usual, nominal=nominal,
        description=description, needs=needs, effect=None if needs else Motors, **more,
        instead="" if target == "none" else "actuator_strength",
    )  # fmt: skip


MOTORS = (
    _motor("motor_no_load_speed", "actuator", "rad/s or m/s", (1e-3, UNLIMITED), (5.0, 30.0), UNLIMITED,
        "speed of the joint at which its motor's torque is gone, on a straight line from the stall torque", **_LIMITED),
    _motor("motor_stall_torque", "actuator", "1", (1e-3, _INF), (1.0, 2.0), 1.0,
        "torque at rest that the voltage would allow, as a multiple of the actuator's largest, where that line begins",
        "motor_no_load_speed", **_LIMITED),
    _motor("supply_sag", "none", "1/kW", (0.0, _INF), (0.0, 0.3), 0.0,
        "sag of the supply's voltage under the power of motors with a no-load speed: its resistance over the square "
        "of its voltage, as 0.17 for 0.1 Ohm at 24 V", "motor_no_load_speed"),
    _motor("motor_continuous_torque", "actuator", "1", (0.01, 1.0), (0.3, 1.0), 1.0,
        "torque that a motor bears for ever, as a share of its largest; warm ones are limited to it", **_LIMITED),
    _motor("motor_thermal_time", "none", "s", (1e-3, _INF), (20.0, 120.0), 60.0,
        "time constant of a motor's warming and cooling", "motor_continuous_torque"),
    _motor("motor_start_heat", "actuator", "1", (0.0, 1.0), (0.0, 1.0), 0.0,
        "temperature at the start of an episode, as a share of the rise that the motor may have",
        "motor_continuous_torque", **_LIMITED),
    _motor("motor_friction_load", "actuator", "1", (0.0, 1.0), (0.0, 0.1), 0.0,
        "dry friction as a share of the torque that a motor exerts", **_RUBS),
    _motor("motor_stiction", "actuator", "N m or N", (0.0, _INF), (0.0, 0.1), 0.0,
        "friction that a joint has at rest, on top of Coulomb's (joint_frictionloss), and loses with speed (Stribeck)",
        **_RUBS),
    _motor("motor_stribeck_speed", "none", "rad/s or m/s", (1e-6, _INF), (0.02, 0.5), 0.1,
        "speed at which a joint has lost 63 % of that", "motor_stiction"),
    _motor("gear_efficiency", "actuator", "1", (0.01, 1.0), (0.6, 1.0), 1.0,
        "share of a motor's torque that reaches the joint where it drives", **_RUBS),
    _motor("gear_backdrive_efficiency", "actuator", "1", (0.01, 1.0), (0.5, 1.0), 1.0,
        "share of a joint's torque that reaches the motor where the joint drives it; low ones hold by themselves",
        **_RUBS),
    _motor("encoder_resolution", "actuator", "rad or m", (0.0, _INF), (0.0, 0.002), 0.0,
        "steps of the angle on which a servo acts", **_SERVO),
)  # fmt: skip
