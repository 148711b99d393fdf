"""The catalogue of effects in time: what happens to commands, what sensors report, who disturbs.

`table` holds the whole catalogue. An effect whose nominal value is not zero only shapes another one (`needs`).
"""

from __future__ import annotations

from randomization.catalogue.quantity import Channel, RandomizableQuantity, Target

_INF = float("inf")


def _effect(
    name: str,
    channel: Channel,
    target: Target,
    unit: str,
    limits: tuple[float, float],
    default_range: tuple[float, float],
    description: str,
    nominal: float = 0.0,
    needs: str = "",
) -> RandomizableQuantity:
    """A quantity that takes the place of its nominal value and writes no model field at reset."""
    return RandomizableQuantity(
        name, channel, "absolute", target, unit, nominal, limits, default_range, (), description, needs
    )  # fmt: skip


_ACTION = (
    _effect("action_noise", "action", "action", "1", (0.0, _INF), (0.0, 0.05),
        "standard deviation of independent noise added to the action at every step; actions span [-1, 1]"),
    _effect("action_bias", "action", "action", "1", (0.0, _INF), (0.0, 0.02),
        "standard deviation of an offset of the action, drawn once per episode"),
    _effect("action_noise_multiplicative", "action", "action", "1", (0.0, _INF), (0.0, 0.02),
        "standard deviation of independent relative noise at every step: action * (1 + noise)"),
    _effect("action_latency", "action", "none", "steps", (0.0, 100.0), (0.0, 2.0),
        "whole control steps between an action and its execution; rounded"),
    _effect("action_delay", "action", "none", "ms", (0.0, 10_000.0), (0.0, 40.0),
        "time until a command takes effect, at the resolution of a physics step; fixed during an episode"),
    _effect("action_delay_jitter", "action", "none", "ms", (0.0, 10_000.0), (0.0, 5.0),
        "standard deviation of what is added to each command's delay; no command overtakes an earlier one"),
    _effect("action_burst_delay", "action", "none", "ms", (0.0, 10_000.0), (0.0, 100.0),
        "what a command's delay grows by while the line is congested; congestion comes and goes at random"),
    _effect("action_burst_rate", "action", "none", "1/s", (0.0, _INF), (0.2, 2.0),
        "rate at which a free line becomes congested", nominal=1.0, needs="action_burst_delay"),
    _effect("action_burst_time", "action", "none", "s", (1e-3, _INF), (0.1, 0.5),
        "mean time that a line stays congested", nominal=0.2, needs="action_burst_delay"),
    _effect("action_dropout", "action", "none", "1", (0.0, 1.0), (0.0, 0.1),
        "probability per control step that a command is lost and the one before it holds"),
    _effect("actuator_backlash", "action", "actuator", "s", (0.0, 0.5), (0.0, 0.1),
        "slack of a motor: 1/delta, the seconds that a command one unit away takes through half the gap"),
    _effect("actuator_backlash_spread", "action", "actuator", "1", (0.0, 1.0), (0.0, 0.2),
        "how backlash differs between episodes and directions: delta^n with n ~ N(1, spread^2)",
        needs="actuator_backlash"),
    _effect("actuator_failure", "action", "actuator", "1", (0.0, 1.0), (0.0, 0.05),
        "probability per episode that an actuator is limp: it exerts no force"),
    _effect("actuator_fade", "action", "actuator", "1", (0.0, 1.0), (0.0, 0.3),
        "share of an actuator's force that is gone by the end of the longest episode; it declines evenly"),
    _effect("actuator_stuck", "action", "actuator", "1", (0.0, 1.0), (0.0, 0.05),
        "probability per episode that an actuator ignores commands and keeps the one of the start"),
)  # fmt: skip

_OBSERVATION = (
    _effect("observation_scale", "observation", "component", "1", (0.0, _INF), (0.0, 0.02),
        "standard deviation of a sensor's gain error: value * (1 + error), drawn once per episode and value"),
    _effect("observation_bias", "observation", "component", "unit", (0.0, _INF), (0.0, 0.01),
        "standard deviation of an offset drawn once per episode, in the component's unit"),
    _effect("observation_noise", "observation", "component", "unit", (0.0, _INF), (0.0, 0.01),
        "standard deviation of independent noise at every step, in the component's unit"),
    _effect("observation_quantization", "observation", "component", "unit", (0.0, _INF), (0.0, 0.005),
        "size of the steps in which a sensor reports, in the component's unit; 0 for none"),
    _effect("observation_delay", "observation", "component", "ms", (0.0, 10_000.0), (0.0, 80.0),
        "age of what a sensor reports, rounded to whole control steps"),
    _effect("observation_delay_jitter", "observation", "component", "ms", (0.0, 10_000.0), (0.0, 20.0),
        "standard deviation of what is added to the delay at every step; no reading overtakes an earlier one"),
    _effect("observation_dropout", "observation", "component", "1", (0.0, 1.0), (0.0, 0.1),
        "probability per control step that a sensor delivers nothing and its last value holds"),
    _effect("observation_freeze", "observation", "component", "1/s", (0.0, _INF), (0.0, 0.2),
        "rate at which a sensor freezes for one second, as when a marker is hidden"),
)  # fmt: skip

_DISTURBANCE = (
    _effect("force_size", "disturbance", "moving body", "m/s^2", (0.0, _INF), (0.0, 1.0),
        "random forces on bodies: standard deviation per axis of force / mass"),
    _effect("force_probability", "disturbance", "none", "1", (0.0, 1.0), (0.001, 0.1),
        "probability per control step and body that a new random force replaces the last one", nominal=0.01,
        needs="force_size"),
    _effect("force_decay", "disturbance", "none", "1", (0.0, 1.0), (0.9, 1.0),
        "what is left of a random force after 80 ms", nominal=0.99, needs="force_size"),
    _effect("push_velocity", "disturbance", "floating body", "m/s", (0.0, _INF), (0.0, 0.5),
        "pushes: sudden change of a free body's horizontal velocity, in a random direction"),
    _effect("push_interval", "disturbance", "none", "s", (1e-3, _INF), (1.0, 5.0),
        "time between two pushes", nominal=2.0, needs="push_velocity"),
    _effect("base_acceleration", "disturbance", "none", "m/s^2", (0.0, _INF), (0.0, 0.5),
        "moving base: amplitude of its horizontal sinusoidal acceleration, in a random direction"),
    _effect("base_frequency", "disturbance", "none", "Hz", (1e-3, _INF), (0.2, 1.0),
        "frequency of the moving base", nominal=0.5, needs="base_acceleration"),
)  # fmt: skip

_ADVERSARY = (
    _effect("adversary_action", "adversary", "none", "1", (0.0, 1.0), (0.0, 0.2),
        "alpha: share of the action that a random network takes over"),
    _effect("adversary_wrench", "adversary", "floating body", "m/s^2", (0.0, _INF), (0.0, 1.0),
        "beta: a random network's force / mass on a free body, and its torque / inertia in rad/s^2"),
)  # fmt: skip

EFFECTS: tuple[RandomizableQuantity, ...] = (*_ACTION, *_OBSERVATION, *_DISTURBANCE, *_ADVERSARY)
