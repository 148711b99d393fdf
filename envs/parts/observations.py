"""What is observed, as classes: each states its components of the contract and how their values come about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import mujoco
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.messages import listed, nearest
from envs.common.names import label_of
from envs.common.spatial import constant, matrix_to_quat
from envs.engines.base import Stage
from envs.parts.kinematics import WORLD
from envs.parts.readings import (
    FromJoints,
    Scene,
    Source,
    TruePose,
    accelerometer_at,
    columns_of,
    from_joints,
    goal_of,
    targets_of,
    tidied,
    true_pose,
    true_turning,
)
from envs.parts.selection import Patterns, Values, per_value, select_joints, unit_of
from envs.task import XYZ, ActionComponent, Component, Group

Rotation = Literal["6d", "quat"]
QUAT = ("w", "x", "y", "z")
COLUMNS = tuple(f"{axis}{row}" for axis in ("x", "y") for row in XYZ)  # of a rotation matrix: its first two


class ObservationSpec(ABC):
    """A part of the observation; `sources` says what it is in a model."""

    @abstractmethod
    def sources(
        self, model: mujoco.MjModel, action: Sequence[ActionComponent], before: Sequence[Component]
    ) -> tuple[Source, ...]:
        """Its components, beside the components of the action and those that stand `before` it.

        Raises:
            TaskError: the model has no such joints or bodies.
        """

    def stage_needed(self) -> Stage | None:
        """The stage of MuJoCo's computation that has to be of the present state for its values."""
        return None

    about_action: ClassVar[bool] = False  # whether what is shown depends on the components of the action


@dataclass(frozen=True)
class JointState(ObservationSpec):
    """Positions and velocities of hinges and slides, as encoders show them: `joint_pos` and `joint_vel`.

    Args:
        of: names or patterns of joints. Left out: every hinge and slide.
        stance: positions are shown as differences from it; one number, or one for each.
        position, velocity: which of the two are shown.
        prefix: of the components' names.
        group: "privileged" for what only a simulator knows.
    """

    of: Patterns = "*"
    stance: Values | None = None
    position: bool = True
    velocity: bool = True
    prefix: str = "joint"
    group: Group = "policy"

    def sources(
        self, model: mujoco.MjModel, action: Sequence[ActionComponent], before: Sequence[Component]
    ) -> tuple[Source, ...]:
        where = f"JointState {self.prefix!r}"
        ids = select_joints(where, model, self.of)
        names = tuple(label_of(model, "joint", i) for i in ids)
        stance = () if self.stance is None else per_value(f"{where}: stance", self.stance, len(ids))
        shown = "joint positions" + (" from the stance" if stance else "")
        qpos, qvel = ([int(a) for a in model.jnt_qposadr[ids]], [int(a) for a in model.jnt_dofadr[ids]])

        def part(what: str, unit: str, text: str, **more: Any) -> Component:
            return Component(f"{self.prefix}_{what}", len(ids), unit, "joint", names, names, group=self.group,
                             description=text, **more)  # fmt: skip

        def positions(scene: Scene) -> Tensor:
            values = columns_of(scene.engine, "qpos", qpos)
            return values - constant(stance, values.dtype, values.device) if stance else values

        found: list[Source] = []
        if self.position:
            unit = unit_of(model, ids, "rad", "m")
            found.append(Source(part("pos", unit, shown, relative_to=stance), positions))
        if self.velocity:
            unit = unit_of(model, ids, "rad/s", "m/s")
            found.append(Source(part("vel", unit, "joint velocities"), lambda s: columns_of(s.engine, "qvel", qvel)))
        return tuple(found)


@dataclass(frozen=True)
class LastAction(ObservationSpec):
    """The policy's last action, zeros at first."""

    name: str = "last_action"
    about_action: ClassVar[bool] = True

    def sources(
        self, model: mujoco.MjModel, action: Sequence[ActionComponent], before: Sequence[Component]
    ) -> tuple[Source, ...]:
        names = tuple(f"{part.name}.{i}" for part in action for i in (part.elements or range(part.size)))
        size = sum(part.size for part in action)
        made = Component(self.name, size, "1", "action", names, measured=False, limits=(-1.0, 1.0),
                         description="the action before this one")  # fmt: skip
        return (Source(made, lambda scene: scene.action),)


@dataclass(frozen=True)
class LastTarget(ObservationSpec):
    """What the robot's controller was told last: targets of an action component, limited and smoothed.

    Args:
        of: the action component. Left out: the first.
        name: of the component.
    """

    of: str | None = None
    name: str = "last_target"
    about_action: ClassVar[bool] = True

    def sources(
        self, model: mujoco.MjModel, action: Sequence[ActionComponent], before: Sequence[Component]
    ) -> tuple[Source, ...]:
        known = [part.name for part in action]
        of = (self.of or known[0]) if known else ""
        part = next((part for part in action if part.name == of), None)
        if part is None:
            raise TaskError(f"LastTarget: of: no action {of!r}{nearest(of, known)}; there are: {listed(known)}")
        unit = part.unit if part.inverse is None else part.inverse.unit
        made = Component(self.name, part.sent_size, unit, "joint", part.joints, part.joints, measured=False,
                         description=f"{of} as it was sent last")  # fmt: skip
        return (Source(made, lambda scene: targets_of(scene).meant(of)),)


@dataclass(frozen=True)
class Command(ObservationSpec):
    """What is wanted of the robot, drawn anew at the start of episodes, and in `ComposedTask.commanded` by its name.

    Args:
        name: of the component.
        low, high: between which each value is drawn, uniformly.
        unit: of the values.
        elements: a name for each value.
        frame: of reference.
        every_s: drawn anew after this time, s; None: once an episode.
        still: share of draws in which all values are 0.
    """

    name: str
    low: Sequence[float]
    high: Sequence[float]
    unit: str
    elements: tuple[str, ...] = ()
    frame: str = WORLD
    every_s: float | None = None
    still: float = 0.0

    def sources(
        self, model: mujoco.MjModel, action: Sequence[ActionComponent], before: Sequence[Component]
    ) -> tuple[Source, ...]:
        if len(self.low) != len(self.high) or not self.low:
            raise TaskError(f"Command {self.name!r}: expected as many lowest as highest values, got {self.low!r} and "
                            f"{self.high!r}")  # fmt: skip
        made = Component(self.name, len(self.low), self.unit, self.frame, tuple(self.elements), measured=False,
                         description="what is wanted of the robot")  # fmt: skip
        return (Source(made, lambda scene: scene.commanded[self.name]),)


@dataclass(frozen=True)
class Goal(ObservationSpec):
    """The position that a body, site or geom is to reach: `desired_goal`, the last component of a goal task.

    What it reaches is the truth, whatever sensors show; `ComposedTask.goal` [N, 3] is yours to write in `start`.

    Args:
        of: body, site or geom.
        frame: "world", or the body whose frame goals are in.
        turned: a goal says how it is to be turned as well: [N, 7], a position and a quaternion w, x, y, z with w >= 0.
    """

    of: str
    frame: str = WORLD
    turned: bool = False

    @property
    def size(self) -> int:
        """Values of a goal."""
        return 7 if self.turned else 3

    def sources(
        self, model: mujoco.MjModel, action: Sequence[ActionComponent], before: Sequence[Component]
    ) -> tuple[Source, ...]:
        true_pose(model, self.of, self.frame)  # whether there are such bodies
        elements, unit = (XYZ + tuple(f"q{axis}" for axis in QUAT), "m, 1") if self.turned else (XYZ, "m")
        made = Component("desired_goal", self.size, unit, self.frame, elements, measured=False,
                         description=f"where {self.of} is to be")  # fmt: skip
        return (Source(made, goal_of),)

    def stage_needed(self) -> Stage | None:
        return "kinematics"


@dataclass(frozen=True)
class BodyPose(ObservationSpec):
    """Where a body, site or geom is, and how it is turned: `<name>_pos`, and `<name>_rot` or `<name>_quat`.

    Where hinges and slides that a `JointState` before it shows lead from the frame to the body, its pose is computed
    from what they show, sensors' errors and all, as a robot does it, with the lengths of the calibrated model.
    Otherwise it is measured, as by a camera.

    Args:
        of: body, site or geom.
        name: of the components; `of` where left out.
        rotation: None, "6d" (the first two columns of the rotation matrix; Zhou et al. 2019), or "quat" (w, x, y, z,
            with w >= 0).
        position: whether the position is shown.
        frame: "world", or the body whose axes and origin the pose is about.
        derived: True: it has to be computed from joints; False: it is measured.
        group: "privileged" for what only a simulator knows.
    """

    of: str
    name: str | None = None
    rotation: Rotation | None = None
    position: bool = True
    frame: str = WORLD
    derived: bool | None = None
    group: Group = "policy"

    def sources(
        self, model: mujoco.MjModel, action: Sequence[ActionComponent], before: Sequence[Component]
    ) -> tuple[Source, ...]:
        where, true = f"BodyPose {self.of!r}", true_pose(model, self.of, self.frame)
        if self.rotation not in (None, "6d", "quat"):
            raise TaskError(f"{where}: rotation: expected '6d', 'quat' or None, got {self.rotation!r}")
        measured = None if self.derived is False or self.group == "privileged" else from_joints(
            model, self.of, self.frame, before)  # fmt: skip
        if self.derived and measured is None:
            raise TaskError(f"{where}: derived: no JointState before it shows the hinges and slides from "
                            f"{self.frame!r} to {self.of!r}")  # fmt: skip
        kinds: list[tuple[str, str, tuple[str, ...], Callable[[Tensor, Tensor], Tensor]]] = []
        if self.position:
            kinds.append(("pos", "m", XYZ, lambda pos, rot: pos))
        if self.rotation == "6d":
            kinds.append(("rot", "1", COLUMNS, lambda pos, rot: rot[..., :2].transpose(-1, -2).flatten(-2)))
        if self.rotation == "quat":
            kinds.append(("quat", "1", QUAT, lambda pos, rot: matrix_to_quat(rot)))
        return tuple(self._source(*kind, true, measured) for kind in kinds)

    def _source(
        self, what: str, unit: str, elements: tuple[str, ...], show: Callable[[Tensor, Tensor], Tensor],
        true: TruePose, measured: FromJoints | None,
    ) -> Source:  # fmt: skip
        texts = {"pos": "position of {}", "rot": "two columns of {}'s rotation matrix", "quat": "orientation of {}"}
        name, text = f"{self.name or self.of}_{what}", texts[what].format(self.of)
        limits = None if what == "pos" else (-1.0, 1.0)
        names = () if measured is None else measured.components
        made = Component(name, len(elements), unit, self.frame, elements, bodies=(self.of,), group=self.group,
                         derived_from=names, limits=limits, description=text)  # fmt: skip
        if measured is not None:
            return Source(made, lambda s: show(*measured.now(s)), lambda seen: show(*measured.of(seen)))
        tidy = None  # what noise does to a rotation is undone, as whoever measures it would
        if self.group == "policy" and what != "pos":
            tidy = lambda seen: tidied(seen[name])  # noqa: E731
        return Source(made, lambda s: show(*true(s.engine)), tidy)

    def stage_needed(self) -> Stage | None:
        return "kinematics"


@dataclass(frozen=True)
class Imu(ObservationSpec):
    """What an inertial sensor on a body or site shows, in its axes: `gyro`, `projected_gravity`, `acceleration`.

    Args:
        of: body or site.
        gyro: the angular velocity, rad/s.
        gravity: the direction of gravity (a unit vector that points down), as attitude filters estimate it.
        acceleration: what an accelerometer shows, m/s2; the model has to have one, as a sensor of the site.
        prefix: put before the names.
    """

    of: str
    gyro: bool = True
    gravity: bool = True
    acceleration: bool = False
    prefix: str = ""

    def sources(
        self, model: mujoco.MjModel, action: Sequence[ActionComponent], before: Sequence[Component]
    ) -> tuple[Source, ...]:
        turn, found = true_turning(model, self.of), list[Source]()

        def part(name: str, unit: str, text: str, read: Callable[[Scene], Tensor], **more: Any) -> None:
            made = Component(self.prefix + name, 3, unit, self.of, XYZ, bodies=(self.of,), description=text, **more)
            found.append(Source(made, read))

        if self.gyro:
            part("gyro", "rad/s", "angular velocity", turn.velocity)
        if self.gravity:
            part("projected_gravity", "1", "direction of gravity", turn.down, limits=(-1.0, 1.0))
        if self.acceleration:
            first = accelerometer_at(model, self.of)
            part("acceleration", "m/s2", "of an accelerometer: free fall shows 0",
                 lambda s: s.engine.data("sensordata")[:, first : first + 3])  # fmt: skip
        return tuple(found)

    def stage_needed(self) -> Stage | None:
        return "acceleration" if self.acceleration else None
