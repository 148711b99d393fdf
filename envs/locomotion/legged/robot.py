"""A legged robot as a task sees it: which bodies are feet, how it stands, what its motors do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mujoco

from envs.common.errors import TaskError
from envs.task import Fixed


@dataclass(frozen=True)
class Foot(Fixed):
    """A foot.

    Args:
        name: of the foot; its site, and its sensors in the model, are called by it.
        body: that it belongs to.
        sole: the middle of what touches the ground, in the body's frame, m.
        radius_m: how far the ground is below `sole`, as under the middle of a ball.
        shapes: of the body's, those that touch the ground: names, or numbers in its order; () for all that collide.
    """

    name: str
    body: str
    sole: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius_m: float = 0.0
    shapes: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class LeggedRobot(Fixed):
    """A robot on legs. Joints, actuators and what is said of each are in one order, leg by leg.

    Args:
        file: its MJCF; or a function that makes the specification.
        base: the body with the free joint; one is added where there is none.
        trunk: a body fixed to it that falls and carries loads, where that is another one, as of many URDFs.
        feet: in the order of the legs.
        joints: that the policy moves.
        stance: their angles when it stands, rad.
        height_m: of the base's origin above the ground, when it stands.
        stiffness, damping: of the joints' position controllers, N m/rad and N m s/rad.
        effort: largest torque of each motor, N m.
        speed: largest speed of each motor, rad/s; empty where it is not known.
        armature: inertia of rotors as joints feel it, kg m^2; empty: as in the model.
        scale: how far an action of 1 moves the target of each joint, rad.
        held: joints that are kept at an angle (rad), as arms are.
        held_stiffness, held_damping: of their position controllers, N m/rad and N m s/rad.
        timestep_s: of physics.
    """

    file: Path | str | Callable[[], mujoco.MjSpec]
    base: str
    feet: tuple[Foot, ...]
    joints: tuple[str, ...]
    stance: tuple[float, ...]
    height_m: float
    stiffness: tuple[float, ...]
    damping: tuple[float, ...]
    effort: tuple[float, ...]
    scale: tuple[float, ...]
    speed: tuple[float, ...] = ()
    armature: tuple[float, ...] = ()
    held: tuple[tuple[str, float], ...] = ()
    held_stiffness: float = 60.0
    held_damping: float = 2.0
    trunk: str = ""
    timestep_s: float = 0.005

    def __post_init__(self) -> None:
        size = len(self.joints)
        if not self.feet or not size:
            raise TaskError("LeggedRobot: expected feet and joints, got none")
        for name in ("stance", "stiffness", "damping", "effort", "scale", "speed", "armature"):
            values = getattr(self, name)
            if len(values) != size and (values or name not in ("speed", "armature")):
                raise TaskError(f"LeggedRobot: {name}: expected {size} values, one for each joint, got {len(values)}")

    def spec(self) -> mujoco.MjSpec:
        """The robot's specification, to edit. Raises TaskError where there is no such file."""
        if callable(self.file):
            return self.file()
        try:
            return mujoco.MjSpec.from_file(str(self.file))
        except ValueError as error:
            raise TaskError(f"LeggedRobot: {self.file}: {' '.join(str(error).split())}") from None
