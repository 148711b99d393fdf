"""What actions do, as classes: each states its component of the contract; `Actions` makes commands of all of them.

One definition, for the task here and for the robot in `simreal/deploy/targets.py`; docs/deploy.md states it:

    target = base + offset + scale * action     limited to target_limits
    sent   = last + smoothing * (target - last)

`base` is nothing, what was sent last (`relative="target"`), or where sensors show the joint (`relative="joint"`). Of
`EndEffectorDelta`, offset + scale * action is a step of the tool, from which inverse kinematics makes steps of joints.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.parts.kinematics import WORLD, chain_to
from envs.parts.selection import (
    Patterns,
    Values,
    joint_limits,
    joint_of,
    per_value,
    select_drives,
    unit_of,
)
from envs.task import XYZ, ActionComponent, Component, InverseKinematics
from envs.validation.drives import Drive, Quantity

Relative = Literal["joint", "target"]
Limits = tuple[Values, Values]
_TURNS = ("turn_x", "turn_y", "turn_z")


class ActionSpec(ABC):
    """A part of the action; `component` says what it is in a model."""

    name: str

    @abstractmethod
    def component(self, model: mujoco.MjModel, observation: Sequence[Component]) -> ActionComponent:
        """Its component of the contract, beside the components `observation` that the policy sees.

        Raises:
            TaskError: the model has no such actuators, or a number does not fit them.
        """


@dataclass(frozen=True)
class JointPosition(ActionSpec):
    """Targets of position servos of joints, in rad or m.

    Args:
        scale: how far the target moves for an action of 1; one number, or one for each. Left out: half of the limits'
            range; not for relative targets.
        limits: lowest and highest target. Left out: the actuators' control ranges, or else the joints' ranges.
        smoothing: share of the way from the last command to the target that a new command goes; 1 is the target.
        relative: None: targets around `offset`. "target": the action is added to the last command. "joint": to where
            the policy's observation shows the joint; a `JointState` without stance has to be part of it.
        offset: the target for an action of 0. Left out: the middle of the limits; 0 for relative targets.
        of: names or patterns of actuators or joints. Left out: every position servo of a joint.
        start: the last command when an episode starts: where the joint is ("joint"), or the `offset`.
        name: of the component.
    """

    scale: Values | None = None
    limits: Limits | None = None
    smoothing: float = 1.0
    relative: Relative | None = None
    offset: Values | None = None
    of: Patterns = "*"
    start: Literal["joint", "offset"] = "joint"
    name: str = "joint_target"

    def component(self, model: mujoco.MjModel, observation: Sequence[Component]) -> ActionComponent:
        where = f"JointPosition {self.name!r}"
        drives = select_drives(where, model, self.of, "position")
        unit = _unit(model, drives, "rad", "m", where)
        low, high = _position_limits(where, model, drives, unit, self.limits)
        scale, offset = self._numbers(where, low, high)
        if self.start not in ("joint", "offset"):
            raise TaskError(f"{where}: start: expected 'joint' or 'offset', got {self.start!r}")
        joints = tuple(joint_of(model, drive) for drive in drives)
        begin = showing(observation, joints, unit) if self.start == "joint" else offset
        return ActionComponent(
            self.name, len(drives), unit, scale, offset, elements=joints, joints=joints,
            actuators=tuple(drive.name for drive in drives), frame="joint", **_servo(model, drives),
            description="targets of the joints' position servos" + _DESCRIBED.get(self.relative, ""),
            target_limits=None if np.isinf((low, high)).all() else (low, high), smoothing=self.smoothing,
            initial_target=begin,
            relative=_relative(where, self.relative, observation, joints, unit),
        )  # fmt: skip

    def _numbers(
        self, where: str, low: tuple[float, ...], high: tuple[float, ...]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Scale and offset."""
        size, bounded = len(low), bool(np.isfinite((low, high)).all())
        if (self.scale is None and self.relative is not None) or (self.scale is None and not bounded):
            why = "relative targets" if self.relative else "joints without limits"
            raise TaskError(f"{where}: scale: expected numbers, as {why} have no range to take it from")
        half = ((np.array(high) - low) / 2.0).tolist() if bounded else 1.0
        middle = ((np.array(high) + low) / 2.0).tolist() if bounded and not self.relative else 0.0
        given = middle if self.offset is None else self.offset
        scale = per_value(f"{where}: scale", half if self.scale is None else self.scale, size)
        offset = per_value(f"{where}: offset", given, size)
        reach = np.abs(scale)
        beyond = (np.array(offset) - reach > high) | (np.array(offset) + reach < low)
        if self.relative is None and beyond.any():  # degrees, for example
            i = int(beyond.argmax())
            raise TaskError(
                f"{where}: offset: no action gets from {offset[i]:g} to limits of {low[i]:g} to {high[i]:g} "
                f"with a scale of {reach[i]:g}"
            )
        return scale, offset


@dataclass(frozen=True)
class _Driven(ActionSpec):
    """Targets of actuators that follow a speed or a force."""

    scale: Values | None = None
    limits: Limits | None = None
    smoothing: float = 1.0
    offset: Values = 0.0
    of: Patterns = "*"
    name: str = "target"
    _follows: ClassVar[Quantity]
    _units: ClassVar[tuple[str, str]]
    _says: ClassVar[str]

    def component(self, model: mujoco.MjModel, observation: Sequence[Component]) -> ActionComponent:
        where = f"{type(self).__name__} {self.name!r}"
        drives = select_drives(where, model, self.of, self._follows)
        unit = _unit(model, drives, *self._units, where)
        ranges = [drive.clips(model) for drive in drives]
        factors = [abs(drive.per_ctrl(model, unit) or 0.0) for drive in drives]
        most = tuple(max(map(abs, ends)) * f if ends else np.inf for ends, f in zip(ranges, factors, strict=True))
        if self.scale is None and np.isinf(most).any():
            drive = drives[int(np.isinf(most).argmax())]
            raise TaskError(f"{where}: scale: expected numbers, as actuator {drive.name!r} has no control range")
        joints = tuple(joint_of(model, drive) for drive in drives)
        limits = None if self.limits is None else _pair(where, self.limits, len(drives))
        return ActionComponent(
            self.name, len(drives), unit, per_value(f"{where}: scale", most if self.scale is None else self.scale,
            len(drives)), per_value(f"{where}: offset", self.offset, len(drives)), elements=joints, joints=joints,
            actuators=tuple(drive.name for drive in drives), frame="joint", description=self._says,
            effort_limit=_servo(model, drives).get("effort_limit", ()) if self._follows == "velocity" else (),
            target_limits=limits, smoothing=self.smoothing,
            initial_target=(0.0,) * len(drives),
        )  # fmt: skip


@dataclass(frozen=True)
class JointVelocity(_Driven):
    """Targets of velocity servos of joints, in rad/s or m/s.

    For position servos, a velocity is `JointPosition(relative="target", scale=speed * control period)`.

    Args:
        scale: the speed for an action of 1. Left out: the most that the actuator's control range lets through.
        limits, smoothing, of, name: as of `JointPosition`; smoothing starts from standing still.
        offset: the speed for an action of 0.
    """

    name: str = "joint_velocity"
    _follows: ClassVar[Quantity] = "velocity"
    _units: ClassVar[tuple[str, str]] = ("rad/s", "m/s")
    _says: ClassVar[str] = "targets of the joints' velocity servos"


@dataclass(frozen=True)
class JointTorque(_Driven):
    """Torques or forces of motors on joints, in N m or N.

    Args:
        scale: the torque for an action of 1. Left out: the most that the motor's control range lets through.
        limits, smoothing, of, name: as of `JointPosition`; smoothing starts from none.
        offset: the torque for an action of 0.
    """

    name: str = "joint_torque"
    _follows: ClassVar[Quantity] = "force"
    _units: ClassVar[tuple[str, str]] = ("N m", "N")
    _says: ClassVar[str] = "torques of the joints' motors"


@dataclass(frozen=True)
class EndEffectorDelta(ActionSpec):
    """Steps of a tool in m (and rad), from which damped least squares make steps of joints: targets of their servos.

    What the robot needs for that, the way from its base to the tool, becomes part of the contract.

    Args:
        tool: body, site or geom that moves.
        scale: the step for an action of 1, m; one number, or one for each direction.
        turn_scale: the turn for an action of 1, rad, about the three axes; None: the tool is not turned on purpose.
        limits, smoothing, of, name: as of `JointPosition`; limits are of joints.
        relative: from where the tool moves: where the last command would have it ("target"), or where the joints are
            seen ("joint"), which sag under load.
        base: the body whose axes the steps are along, and that carries the tool.
        damping: of least squares, m (and rad): near singular poses joints move less.
    """

    tool: str
    scale: Values = 0.02
    turn_scale: Values | None = None
    limits: Limits | None = None
    smoothing: float = 1.0
    relative: Relative = "target"
    base: str = WORLD
    of: Patterns = "*"
    damping: float = 0.05
    name: str = "tool_step"

    def component(self, model: mujoco.MjModel, observation: Sequence[Component]) -> ActionComponent:
        where = f"EndEffectorDelta {self.name!r}"
        try:
            chain = chain_to(model, self.tool, self.base)
        except ValueError as error:
            raise TaskError(f"{where}: {error}") from None
        drives = {joint_of(model, d): d for d in select_drives(where, model, self.of, "position")}
        missing = next((joint for joint in chain.joints if joint not in drives), None)
        if missing is not None or not chain.joints:
            got = "none between them" if missing is None else f"{missing!r} without a position servo in `of`"
            raise TaskError(f"{where}: expected servos on all joints from {self.base!r} to {self.tool!r}, got {got}")
        if not self.damping > 0.0:
            raise TaskError(f"{where}: damping: expected a number above 0, got {self.damping!r}")
        driven, joints = [drives[joint] for joint in chain.joints], chain.joints
        unit = _unit(model, driven, "rad", "m", where)
        scale, elements = per_value(f"{where}: scale", self.scale, 3), XYZ
        if self.turn_scale is not None:
            scale, elements = scale + per_value(f"{where}: turn_scale", self.turn_scale, 3), XYZ + _TURNS
        return ActionComponent(
            self.name, len(scale), "m" if len(scale) == 3 else "m, rad", scale, (0.0,) * len(scale), elements=elements,
            joints=joints, actuators=tuple(drive.name for drive in driven), frame=self.base, **_servo(model, driven),
            description=f"steps of {self.tool}; sent are targets of the joints' position servos",
            target_limits=_position_limits(where, model, driven, unit, self.limits), smoothing=self.smoothing,
            initial_target=showing(observation, joints, unit),
            relative=_relative(where, self.relative, observation, joints, unit),
            inverse=InverseKinematics(chain, self.damping, unit),
        )  # fmt: skip


_DESCRIBED = {
    None: "", "joint": ", added to where the joint is seen", "target": ", added to the last command",
}  # fmt: skip


def showing(observation: Sequence[Component], joints: Sequence[str], unit: str) -> str | None:
    """The policy's component that shows the positions of joints, if there is one."""
    for part in observation:
        plain = part.unit == unit and part.measured and not part.derived_from and not part.relative_to
        if plain and part.group == "policy" and len(part.joints) == part.size and set(joints) <= set(part.joints):
            return part.name
    return None


def _relative(
    where: str, relative: Relative | None, observation: Sequence[Component], joints: Sequence[str], unit: str
) -> str | None:  # fmt: skip
    if relative is None or relative == "target":
        return relative
    if relative != "joint":
        raise TaskError(f"{where}: relative: expected 'joint', 'target' or None, got {relative!r}")
    name = showing(observation, joints, unit)
    if name is None:
        raise TaskError(f"{where}: relative: 'joint' needs an observation that shows the joints: add JointState()")
    return name


def _unit(model: mujoco.MjModel, drives: Sequence[Drive], hinge: str, slide: str, where: str) -> str:
    """The unit of drives' joints. Raises TaskError where hinges and slides are mixed."""
    unit = unit_of(model, [drive.joint for drive in drives if drive.joint is not None], hinge, slide)
    if "," in unit:
        raise TaskError(f"{where}: of: expected either hinges or slides, got both: use two parts, one for each")
    return unit


def _pair(where: str, limits: Limits, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if len(limits) != 2:
        raise TaskError(f"{where}: limits: expected a pair, lowest and highest, got {limits!r}")
    return per_value(f"{where}: limits", limits[0], size), per_value(f"{where}: limits", limits[1], size)


def _position_limits(
    where: str, model: mujoco.MjModel, drives: Sequence[Drive], unit: str, given: Limits | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:  # fmt: skip
    """Lowest and highest targets; infinite where there are none."""
    if given is not None:
        return _pair(where, given, len(drives))
    ends = [joint_limits(model, drive, unit) for drive in drives]
    return tuple(low for low, _ in ends), tuple(high for _, high in ends)


def _servo(model: mujoco.MjModel, drives: Sequence[Drive]) -> dict[str, Any]:
    """Stiffness, damping and effort limit, where every drive has them."""
    ids, gears = [drive.actuator for drive in drives], np.array([drive.gear for drive in drives])
    dofs = [int(model.jnt_dofadr[drive.joint]) for drive in drives]
    servo = -model.actuator_biasprm[ids, 2] * gears**2
    found = {
        "stiffness": model.actuator_gainprm[ids, 0] * gears**2,
        "damping": np.where(servo != 0.0, servo, model.dof_damping[dofs]),
    }
    limited = np.array(model.actuator_forcelimited[ids], dtype=bool)
    of_joint = np.array([model.jnt_actfrclimited[drive.joint] for drive in drives], dtype=bool)
    if (limited | of_joint).all():
        most = np.where(limited, np.abs(model.actuator_forcerange[ids]).max(axis=1) * np.abs(gears), np.inf)
        ranges = np.array([np.abs(model.jnt_actfrcrange[drive.joint]).max() for drive in drives])
        found["effort_limit"] = np.minimum(most, np.where(of_joint, ranges, np.inf))
    return {name: tuple(values.tolist()) for name, values in found.items()}
