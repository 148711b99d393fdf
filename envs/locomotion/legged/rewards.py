"""What a legged robot is paid for, per second, before weights: a table of pure functions of what it does.

The first sixteen are those of `Go1Velocity-v0`. The others ask for a gait that one would let loose on a machine: a
level trunk at its height, swings of a stated height at a stated time, torques and speeds that motors have, smooth
actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SWING_S = 0.3  # air time of a step that is rewarded in full
_SPARE = 0.8  # share of a motor's torque or speed that costs nothing


@dataclass(frozen=True)
class Moves:
    """What a robot of F feet and J joints does in a control step, for N environments.

    Attributes:
        period_s: of control.
        linear_scale, turning_scale: errors at which tracking rewards fall to 1/e, m/s and rad/s.
        clearance_m: height of a swinging foot.
        height_m: of the base when it stands.
        linear_error, turning_error: [N] m/s, rad/s.
        upright: [N] cosine of the base's tilt.
        fell: [N] bool.
        moving: [N] 1 where the command is to move, else 0.
        base_velocity: [N, 6] of the base: linear in the world's axes, angular in its own.
        base_height: [N] above the ground, m.
        down: [N, 3] direction of gravity in the base's frame.
        joints, off_stance, joint_speed, torque: [N, J] rad, rad, rad/s, N m.
        limits: [2, J] of the joints, with some room.
        most_torque, most_speed: [J].
        forces: [N, A] of all actuators, N m.
        touching: [N, F] 1 or 0.
        air_s: [N, F] time in the air, this step included.
        landed: [N, F] 1 where a foot has just come down.
        load: [N, F] force on the feet over the robot's weight.
        foot_height: [N, F] of the soles above the ground, m.
        foot_speed: [N, F] along the ground, squared, m2/s2.
        action, previous, before: [N, J] the last three actions, the newest first.
        same, opposite: pairs of feet that should touch together, and by turns.
        wanted_up, wanted_height: [N, F] by the clock; None without one.
    """

    period_s: float
    linear_scale: float
    turning_scale: float
    clearance_m: float
    height_m: float
    linear_error: Tensor
    turning_error: Tensor
    upright: Tensor
    fell: Tensor
    moving: Tensor
    base_velocity: Tensor
    base_height: Callable[[], Tensor]
    down: Callable[[], Tensor]
    joints: Tensor
    off_stance: Tensor
    joint_speed: Tensor
    torque: Tensor
    limits: Tensor
    most_torque: Tensor
    most_speed: Tensor
    forces: Tensor
    touching: Tensor
    air_s: Tensor
    landed: Tensor
    load: Callable[[], Tensor]
    foot_height: Tensor
    foot_speed: Tensor
    action: Tensor
    previous: Tensor
    before: Tensor
    same: list[tuple[int, int]]
    opposite: list[tuple[int, int]]
    wanted_up: Tensor | None = None
    wanted_height: Tensor | None = None


def length_squared(vector: Tensor) -> Tensor:
    """Squared lengths [...] of short vectors [..., k]: term by term, which is much quicker than a sum over k."""
    first, *others = vector.unbind(dim=-1)
    total = first * first
    for value in others:
        total = torch.addcmul(total, value, value)
    return total


def alternation(touching: Tensor, same: list[tuple[int, int]], opposite: list[tuple[int, int]]) -> Tensor:
    """How much contacts [N, F] look like the gait [N]: 1 where all pairs of feet do what they should; of a trot, 0.5 is
    all feet alike."""
    feet = touching.unbind(dim=1)
    total = torch.zeros_like(feet[0])
    for a, b in same:
        total = total + (feet[a] == feet[b]).to(total)
    for a, b in opposite:
        total = total + (feet[a] != feet[b]).to(total)
    return total / (len(same) + len(opposite))


def _air_time(m: Moves) -> Tensor:
    return (m.landed * (m.air_s.clamp(max=SWING_S) - 0.2 * SWING_S)).sum(dim=1) * m.moving / m.period_s


def _joint_limit(m: Moves) -> Tensor:
    beyond = (m.limits[0] - m.joints).clamp(min=0.0) + (m.joints - m.limits[1]).clamp(min=0.0)
    return beyond.sum(dim=1)


def _clearance(m: Moves) -> Tensor:
    too_low = (m.foot_height - m.clearance_m).square() * m.foot_speed.sqrt()
    return too_low.sum(dim=1) * m.moving


def _in_step(m: Moves) -> Tensor:
    """Share of the feet that touch the ground when the clock says so, and do not when it does not, less a half."""
    assert m.wanted_up is not None
    up = m.wanted_up * m.moving[:, None]
    return ((1.0 - m.touching) * up + m.touching * (1.0 - up)).mean(dim=1) - 0.5


def _unload(m: Moves) -> Tensor:
    """How much of the weight is on feet that the clock has in the air (Siekmann et al., arXiv 2011.01387): it falls
    before a foot leaves the ground, where contact alone says nothing yet."""
    assert m.wanted_up is not None
    return (m.load().clamp(max=1.0) * m.wanted_up).sum(dim=1) * m.moving


def _swing(m: Moves) -> Tensor:
    """How close feet are to the height that the clock asks for, in units of the clearance, squared."""
    assert m.wanted_height is not None
    off = (m.foot_height.clamp(min=0.0) - m.wanted_height * m.moving[:, None]) / m.clearance_m
    return off.square().sum(dim=1)


def _beyond(share: Tensor) -> Tensor:
    return (share - _SPARE).clamp(min=0.0).square().sum(dim=1)


TERMS: dict[str, Callable[[Moves], Tensor]] = {
    "track_linear": lambda m: torch.exp(-m.linear_error / m.linear_scale),
    "track_turning": lambda m: torch.exp(-m.turning_error / m.turning_scale),
    "bounce": lambda m: m.base_velocity[:, 2].square(),
    "rock": lambda m: length_squared(m.base_velocity[:, 3:5]),
    "tilt": lambda m: 1.0 - m.upright.square(),
    "torque": lambda m: m.forces.square().sum(dim=1),
    "action_rate": lambda m: (m.action - m.previous).square().sum(dim=1),
    "joint_limit": _joint_limit,
    "air_time": _air_time,
    "trot": lambda m: (alternation(m.touching, m.same, m.opposite) - 0.5) * m.moving,
    "slip": lambda m: (m.touching * m.foot_speed).sum(dim=1),
    "clearance": _clearance,
    "posture": lambda m: m.off_stance.square().sum(dim=1),
    "stand_still": lambda m: m.off_stance.square().sum(dim=1) * (1.0 - m.moving),
    "stand_feet": lambda m: (m.touching.shape[1] - m.touching.sum(dim=1)) * (1.0 - m.moving),
    "fall": lambda m: m.fell.to(m.air_s.dtype) / m.period_s,
    # for a gait that one would let loose on a machine
    "level": lambda m: length_squared(m.down()[:, :2]),
    "height": lambda m: ((m.base_height() - m.height_m) / m.height_m).square(),
    "in_step": _in_step,
    "swing": _swing,
    "unload": _unload,
    "jerk": lambda m: (m.action - 2.0 * m.previous + m.before).square().sum(dim=1),
    "strain": lambda m: _beyond(m.torque.abs() / m.most_torque),
    "overspeed": lambda m: _beyond(m.joint_speed.abs() / m.most_speed),
    "alive": lambda m: 1.0 - m.fell.to(m.air_s.dtype),
}
CLOCKED = ("in_step", "swing", "unload")  # need a clock

GO1_WEIGHTS: dict[str, float] = {
    "track_linear": 3.0, "track_turning": 1.5, "bounce": -1.0, "rock": -0.02, "tilt": -2.5, "torque": -1e-4,
    "action_rate": -0.03, "joint_limit": -1.0, "air_time": 0.4, "trot": 0.8, "slip": -0.05, "clearance": -2.0,
    "posture": -0.1, "stand_still": -0.5, "stand_feet": -0.3, "fall": -20.0,
}  # fmt: skip
