"""The catalogue of effects in time: what happens to commands, what sensors report, who disturbs.

`table` holds the whole catalogue. An effect whose nominal value is not zero only shapes another one (`needs`).
"""

from __future__ import annotations

from typing import Any

import mujoco

from envs.task import Task
from randomization.catalogue.motors import MOTORS
from randomization.catalogue.quantity import Channel, Quantity, Target
from randomization.effects.actions.backlash import Backlash
from randomization.effects.actions.commands import CommandDelay, CommandDropout, StuckActuators
from randomization.effects.actions.motor_fade import LimpActuators, MotorFade
from randomization.effects.actions.noise import ActionLatency, ActionNoise
from randomization.effects.disturbances.adversary import Adversary
from randomization.effects.disturbances.forces import MovingBase, Pushes, RandomForces
from randomization.effects.disturbances.terrain import TerrainDifficulty
from randomization.effects.effect import Effect
from randomization.effects.sensors.errors import SensorErrors
from randomization.effects.sensors.timing import SensorTiming
from randomization.physics.model_edits import actuator_strength
from randomization.targets.effective import even_ground, no_action, steady_base
from randomization.targets.objects import has_gear, has_input, is_motor_or_servo

_INF = float("inf")
_LATE: dict[str, Any] = {"instead": "action_latency (whole control steps)"}
_SLACK: dict[str, Any] = {
    "suits": lambda task, i: is_motor_or_servo(task.model, i), "expected": "motor, servo or PID with one input",
    "instead": "action_bias or action_dropout",
}  # fmt: skip
_BASE: dict[str, Any] = {"idle": steady_base, "switches": (mujoco.mjtDisableBit.mjDSBL_GRAVITY,)}


def _has_strength(task: Task, actuator: int) -> bool:
    """Whether an actuator has a force that is a multiple of some of its numbers."""
    return bool(actuator_strength(task.model, actuator))


def _can_be_limp(task: Task, actuator: int) -> bool:
    """Whether an actuator has something without which it exerts no force."""
    return has_gear(task.model, actuator) or _has_strength(task, actuator)


def _effect(
    name: str, channel: Channel, target: Target, unit: str, limits: tuple[float, float], usual: tuple[float, float],
    description: str, effect: type[Effect] | None = None, **more: Any,
) -> Quantity:  # fmt: skip
    """A quantity that takes the place of its nominal value and writes no model field at reset."""
    if channel == "action" and target != "actuator":
        more["idle"] = no_action
    return Quantity(
        name=name, channel=channel, target=target, unit=unit, limits=limits, default_range=usual,
        description=description, effect=effect, **more,
    )  # fmt: skip


_ACTION = (
    _effect("action_noise", "action", "action", "1", (0.0, _INF), (0.0, 0.05),
        "standard deviation of independent noise added to the action at every step; actions span [-1, 1]", ActionNoise,
        suggested=True),
    _effect("action_bias", "action", "action", "1", (0.0, _INF), (0.0, 0.02),
        "standard deviation of an offset of the action, drawn once per episode", ActionNoise, suggested=True),
    _effect("action_noise_multiplicative", "action", "action", "1", (0.0, _INF), (0.0, 0.02),
        "standard deviation of independent relative noise at every step: action * (1 + noise)", ActionNoise),
    _effect("action_latency", "action", "none", "steps", (0.0, 100.0), (0.0, 2.0),
        "whole control steps between an action and its execution; rounded", ActionLatency),
    _effect("action_delay", "action", "none", "ms", (0.0, 10_000.0), (0.0, 40.0),
        "time until a command takes effect, at the resolution of a physics step; fixed during an episode", CommandDelay,
        **_LATE, suggested=True),
    _effect("action_delay_jitter", "action", "none", "ms", (0.0, 10_000.0), (0.0, 5.0),
        "standard deviation of what is added to each command's delay; no command overtakes an earlier one",
        CommandDelay, **_LATE),
    _effect("action_burst_delay", "action", "none", "ms", (0.0, 10_000.0), (0.0, 100.0),
        "what a command's delay grows by while the line is congested; congestion comes and goes at random",
        CommandDelay),
    _effect("action_burst_rate", "action", "none", "1/s", (0.0, _INF), (0.2, 2.0),
        "rate at which a free line becomes congested", nominal=1.0, needs="action_burst_delay"),
    _effect("action_burst_time", "action", "none", "s", (1e-3, _INF), (0.1, 0.5),
        "mean time that a line stays congested", nominal=0.2, needs="action_burst_delay"),
    _effect("action_dropout", "action", "none", "1", (0.0, 1.0), (0.0, 0.1),
        "probability per control step that a command is lost and the one before it holds", CommandDropout),
    _effect("actuator_backlash", "action", "actuator", "s", (0.0, 0.5), (0.0, 0.1),
        "slack of a motor: 1/delta, the seconds that a command one unit away takes through half the gap", Backlash,
        **_SLACK),
    _effect("actuator_backlash_spread", "action", "actuator", "1", (0.0, 1.0), (0.0, 0.2),
        "how backlash differs between episodes and directions: delta^n with n ~ N(1, spread^2)",
        needs="actuator_backlash", **_SLACK),
    _effect("actuator_failure", "action", "actuator", "1", (0.0, 1.0), (0.0, 0.05),
        "probability per episode that an actuator is limp: it exerts no force", LimpActuators, suits=_can_be_limp,
        expected="actuator with a gear or a force to take away"),
    _effect("actuator_fade", "action", "actuator", "1", (0.0, 1.0), (0.0, 0.3),
        "share of an actuator's force that is gone by the end of the longest episode; it declines evenly", MotorFade,
        suits=_has_strength,
        expected="motor, servo, damper, muscle or PID (one without feedforward) with a force to scale"),
    _effect("actuator_stuck", "action", "actuator", "1", (0.0, 1.0), (0.0, 0.05),
        "probability per episode that an actuator ignores commands and keeps the one of the start", StuckActuators,
        suits=lambda task, i: has_input(task.model, i), expected="actuator with an input",
        instead="actuator_failure (no force at all)"),
)  # fmt: skip

_OBSERVATION = (
    _effect("observation_scale", "observation", "component", "1", (0.0, _INF), (0.0, 0.02),
        "standard deviation of a sensor's gain error: value * (1 + error), drawn once per episode and value",
        SensorErrors),
    _effect("observation_bias", "observation", "component", "unit", (0.0, _INF), (0.0, 0.01),
        "standard deviation of an offset drawn once per episode, in the component's unit", SensorErrors,
        suggested=True),
    _effect("observation_noise", "observation", "component", "unit", (0.0, _INF), (0.0, 0.01),
        "standard deviation of independent noise at every step, in the component's unit", SensorErrors, suggested=True),
    _effect("observation_quantization", "observation", "component", "unit", (0.0, _INF), (0.0, 0.005),
        "size of the steps in which a sensor reports, in the component's unit; 0 for none", SensorErrors),
    _effect("observation_delay", "observation", "component", "ms", (0.0, 10_000.0), (0.0, 80.0),
        "age of what a sensor reports, rounded to whole control steps", SensorTiming, suggested=True),
    _effect("observation_delay_jitter", "observation", "component", "ms", (0.0, 10_000.0), (0.0, 20.0),
        "standard deviation of what is added to the delay at every step; no reading overtakes an earlier one",
        SensorTiming),
    _effect("observation_dropout", "observation", "component", "1", (0.0, 1.0), (0.0, 0.1),
        "probability per control step that a sensor delivers nothing and its last value holds", SensorTiming),
    _effect("observation_freeze", "observation", "component", "1/s", (0.0, _INF), (0.0, 0.2),
        "rate at which a sensor freezes for one second, as when a marker is hidden", SensorTiming),
)  # fmt: skip

_DISTURBANCE = (
    _effect("force_size", "disturbance", "moving body", "m/s^2", (0.0, _INF), (0.0, 1.0),
        "random forces on bodies: standard deviation per axis of force / mass", RandomForces, suggested=True),
    _effect("force_probability", "disturbance", "none", "1", (0.0, 1.0), (0.001, 0.1),
        "probability per control step and body that a new random force replaces the last one", nominal=0.01,
        needs="force_size"),
    _effect("force_decay", "disturbance", "none", "1", (0.0, 1.0), (0.9, 1.0),
        "what is left of a random force after 80 ms", nominal=0.99, needs="force_size"),
    _effect("push_velocity", "disturbance", "floating body", "m/s", (0.0, _INF), (0.0, 0.5),
        "pushes: sudden change of a free body's horizontal velocity, in a random direction", Pushes),
    _effect("push_interval", "disturbance", "none", "s", (1e-3, _INF), (1.0, 5.0), "time between two pushes",
        nominal=2.0, needs="push_velocity"),
    _effect("base_acceleration", "disturbance", "none", "m/s^2", (0.0, _INF), (0.0, 0.5),
        "moving base: amplitude of its horizontal sinusoidal acceleration, in a random direction", MovingBase, **_BASE),
    _effect("base_frequency", "disturbance", "none", "Hz", (1e-3, _INF), (0.2, 1.0), "frequency of the moving base",
        nominal=0.5, needs="base_acceleration", **_BASE),
    _effect("terrain_difficulty", "disturbance", "none", "1", (0.0, 1.0), (0.0, 1.0),
        "level of the ground that an episode is on, from flat to the hardest", TerrainDifficulty, idle=even_ground),
)  # fmt: skip

_ADVERSARY = (
    _effect("adversary_action", "adversary", "none", "1", (0.0, 1.0), (0.0, 0.2),
        "alpha: share of the action that a random network takes over", Adversary, idle=no_action),
    _effect("adversary_wrench", "adversary", "floating body", "m/s^2", (0.0, _INF), (0.0, 1.0),
        "beta: a random network's force / mass on a free body, and its torque / inertia in rad/s^2", Adversary),
)  # fmt: skip

EFFECTS: tuple[Quantity, ...] = (*_ACTION, *MOTORS, *_OBSERVATION, *_DISTURBANCE, *_ADVERSARY)
