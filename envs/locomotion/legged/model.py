"""Compiles a legged robot on its ground: actuators as described, contacts of feet and base alone, sensors of feet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import mujoco

from envs.common.errors import TaskError
from envs.common.messages import nearest
from envs.locomotion.legged.ground import Terrain, add_ground, check_terrain
from envs.locomotion.legged.robot import Foot, LeggedRobot
from envs.robots.servos import Servo, put_servos
from envs.task import SpecEdit, compile_spec, spec_edits

BASE_CONTACT = "base_contact"
_CONTACT, _VELOCITY = "_contact", "_velocity"
_FREE = int(mujoco.mjtJoint.mjJNT_FREE)


def build_model(
    robot: LeggedRobot, terrain: Terrain, roughness_m: float, full: Sequence[int] = (), version: str = ""
) -> mujoco.MjModel:
    """Compile the robot on its ground.

    Feet and base touch the ground; legs do not touch each other.

    Args:
        robot: its description.
        terrain: what it stands on.
        roughness_m: height of bumps of rough ground, m.
        full: see `compile_spec`.
        version: of what `robot.file` makes, where that may change.

    Raises:
        TaskError: the model has no such bodies or joints.
        ValueError: there is no such ground.
    """
    check_terrain(terrain, roughness_m)
    return _compiled(robot, version, terrain, roughness_m if terrain == "rough" else 0.0, tuple(full), spec_edits())


@cache
def _compiled(
    robot: LeggedRobot, _version: str, terrain: Terrain, roughness_m: float, full: tuple[int, ...],
    _edits: tuple[SpecEdit, ...],
) -> mujoco.MjModel:  # fmt: skip
    """One model of all tasks that ask for the same; `_edits` are those that `compile_spec` makes."""
    spec = robot.spec()
    option = spec.option
    option.timestep = robot.timestep_s
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    option.impratio = 1.0
    _set_base(spec, robot)
    _set_contacts(spec, robot)
    _set_motors(spec, robot)
    add_ground(spec, terrain, roughness_m, robot.height_m)
    _add_sensors(spec, robot)
    return compile_spec(spec, full)


def contact_sensor(name: str) -> str:
    """The name of the sensor of what a foot touches: 1 or 0, and the force [3], N, in the world's axes."""
    return f"{name}{_CONTACT}"


def velocity_sensor(name: str) -> str:
    """The name of the sensor of a foot's velocity [3], m/s, in the world's axes."""
    return f"{name}{_VELOCITY}"


def _set_base(spec: mujoco.MjSpec, robot: LeggedRobot) -> None:
    base = spec.body(robot.base)
    if base is None:
        names = [body.name for body in spec.bodies]
        raise TaskError(f"LeggedRobot: base: no body {robot.base!r}{nearest(robot.base, names)}")
    driven = {actuator.target for actuator in spec.actuators}
    whole = any(int(joint.type) == _FREE for joint in base.joints) and all(name in driven for name in robot.joints)
    if not any(int(joint.type) == _FREE for joint in base.joints):
        base.add_freejoint()
    for key in list(spec.keys) if not whole else []:
        spec.delete(key)  # of a model with fewer coordinates or commands; the task has its own stance
    for geom in list(spec.worldbody.geoms):
        spec.delete(geom)  # a floor of the file's


def _set_contacts(spec: mujoco.MjSpec, robot: LeggedRobot) -> None:
    feet = {foot.body: foot for foot in robot.feet}
    missing = {foot.name for foot in robot.feet}
    for body in spec.bodies[1:]:
        foot = feet.get(body.name)
        for number, geom in enumerate(body.geoms):
            if geom.contype == 0 and geom.conaffinity == 0:
                continue  # looks only
            sole = foot is not None and (not foot.shapes or geom.name in foot.shapes or number in foot.shapes)
            geom.contype, geom.conaffinity = int(sole or body.name in (robot.base, robot.trunk)), 0
            if sole and foot is not None:
                geom.condim = 3
                missing.discard(foot.name)
    if missing:
        raise TaskError(f"LeggedRobot: feet: no shape that collides for {', '.join(sorted(missing))}")


def _set_motors(spec: mujoco.MjSpec, robot: LeggedRobot) -> None:
    """Position servos on the joints that the policy moves, and on those that are held."""
    armatures = robot.armature or (None,) * len(robot.joints)
    parts = zip(robot.joints, robot.stiffness, robot.damping, robot.effort, armatures, strict=True)
    held = [Servo(name, robot.held_stiffness, robot.held_damping) for name, _ in robot.held]
    put_servos(spec, [*(Servo(*part) for part in parts), *held])


def _add_sensors(spec: mujoco.MjSpec, robot: LeggedRobot) -> None:
    """Feet: does it touch, with what force (world frame, of all its contacts), how fast does it move."""
    found, force = int(mujoco.mjtConDataField.mjCONDATA_FOUND), int(mujoco.mjtConDataField.mjCONDATA_FORCE)
    net_force = 3
    sites = {site.name for site in spec.sites}
    for foot in robot.feet:
        if foot.name not in sites:
            spec.body(foot.body).add_site(name=foot.name, pos=foot.sole, size=[0.01, 0.01, 0.01], group=4)
    for foot in robot.feet:
        kind, of = _stands_on(foot)
        spec.add_sensor(
            name=contact_sensor(foot.name), type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=kind, objname=of,
            intprm=[1 << found | 1 << force, net_force, 1],
        )  # fmt: skip
    for foot in robot.feet:
        spec.add_sensor(
            name=velocity_sensor(foot.name), type=mujoco.mjtSensor.mjSENS_FRAMELINVEL,
            objtype=mujoco.mjtObj.mjOBJ_SITE, objname=foot.name,
        )  # fmt: skip
    spec.add_sensor(
        name=BASE_CONTACT, type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname=robot.trunk or robot.base, intprm=[1 << found, 0, 1],
    )  # fmt: skip


def _stands_on(foot: Foot) -> tuple[mujoco.mjtObj, str]:
    """What a foot's sensor looks at: its one shape by name, or all of its body's."""
    if len(foot.shapes) == 1 and isinstance(foot.shapes[0], str):
        return mujoco.mjtObj.mjOBJ_GEOM, foot.shapes[0]
    return mujoco.mjtObj.mjOBJ_BODY, foot.body
