"""The catalogue: every quantity that can differ between worlds, with mode, unit, limits and a sensible range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["scale", "add", "absolute"]
Target = Literal["body", "geom", "joint", "actuator", "axis", "component", "none"]
Channel = Literal["physics", "action", "observation"]


@dataclass(frozen=True)
class Quantity:
    """Something that can differ between worlds.

    Attributes:
        name: as configurations spell it.
        channel: where it acts.
        mode: scale multiplies the nominal value, add is added to it, absolute replaces it.
        target: the kind of object that it belongs to.
        unit: of lambda ("1" for factors).
        nominal: lambda of the calibrated world.
        limits: values outside make no sense.
        default_range: a sensible range to start from.
        writes: model fields written.
        description: one line for people.
    """

    name: str
    channel: Channel
    mode: Mode
    target: Target
    unit: str
    nominal: float
    limits: tuple[float, float]
    default_range: tuple[float, float]
    writes: tuple[str, ...]
    description: str


_INF = float("inf")
QUANTITIES: dict[str, Quantity] = {
    q.name: q
    for q in (
        Quantity(
            "body_mass", "physics", "scale", "body", "1", 1.0, (1e-3, _INF), (0.5, 2.0),
            ("body_mass", "body_inertia"), "mass; the inertia scales with it, as with a change of density",
        ),
        Quantity(
            "body_inertia", "physics", "scale", "body", "1", 1.0, (1e-3, _INF), (0.7, 1.4), ("body_inertia",),
            "rotational inertia, all axes alike, so that it stays physical",
        ),
        Quantity(
            "geom_friction", "physics", "scale", "geom", "1", 1.0, (0.0, _INF), (0.7, 1.3), ("geom_friction",),
            "sliding, spinning and rolling friction; a contact uses the larger of its two geoms",
        ),
        Quantity(
            "joint_damping", "physics", "scale", "joint", "1", 1.0, (0.0, _INF), (0.5, 2.0), ("dof_damping",),
            "viscous damping of a joint",
        ),
        Quantity(
            "actuator_gain", "physics", "scale", "actuator", "1", 1.0, (0.0, _INF), (0.75, 1.5),
            ("actuator_gainprm", "actuator_biasprm"), "gain with its bias (kp and kd of a position servo together)",
        ),
        Quantity(
            "gravity", "physics", "add", "axis", "m/s^2", 0.0, (-_INF, _INF), (-0.5, 0.5), ("opt.gravity",),
            "added to gravity along a world axis: x, y or z",
        ),
        Quantity(
            "action_delay", "action", "absolute", "none", "ms", 0.0, (0.0, 10_000.0), (0.0, 40.0), (),
            "time until a command takes effect, at the resolution of a physics step; fixed during an episode",
        ),
        Quantity(
            "observation_noise", "observation", "absolute", "component", "unit", 0.0, (0.0, _INF), (0.0, 0.01), (),
            "standard deviation of independent noise at every step, in the component's unit",
        ),
        Quantity(
            "observation_bias", "observation", "absolute", "component", "unit", 0.0, (0.0, _INF), (0.0, 0.01), (),
            "standard deviation of an offset drawn once per episode, in the component's unit",
        ),
    )
}  # fmt: skip
