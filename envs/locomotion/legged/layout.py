"""Where a legged robot's numbers are in its model, what its contract states, and its mirror image."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.locomotion.legged.gait import Gait
from envs.locomotion.legged.model import contact_sensor
from envs.locomotion.legged.robot import LeggedRobot
from envs.task import ActionComponent, Component, Fixed, Mirror, id_of, vector
from envs.validation.drives import find_drive

_OBJECT = mujoco.mjtObj
_SOFT = 0.95  # share of a joint's range within which its limit costs nothing
_PLACE_M, _ALIGNED, _ALIKE_RAD = 0.02, 0.98, 0.03  # by which images of joints may differ: places, cosines, stances


class Layout(Fixed):
    """Where things are.

    Attributes:
        base_q, base_v: of the base's free joint.
        qpos, qvel, outputs: of the joints that the policy moves: slices where they are in a row.
        ctrl: of their actuators.
        all_driven: whether the action is all of ctrl, in its order.
        home: [nq], with held joints at their angles.
        hold: [nu] commands of an action of 0.
        sites, first_sensor: of the feet.
        actuators: by joint.
        soft_limits: [2, J] rad.
    """

    def __init__(self, model: mujoco.MjModel, robot: LeggedRobot) -> None:
        base = id_of(model, _OBJECT.mjOBJ_BODY, robot.base)
        free = int(model.body_jntadr[base])
        self.base_q, self.base_v = int(model.jnt_qposadr[free]), int(model.jnt_dofadr[free])
        joints = [id_of(model, _OBJECT.mjOBJ_JOINT, name) for name in robot.joints]
        self.joints = joints
        drives = _drives(model)
        self.actuators = tuple(drives[joint][0] for joint in joints)
        columns = [drives[joint][1] for joint in joints]
        ids = [id_of(model, _OBJECT.mjOBJ_ACTUATOR, name) for name in self.actuators]
        self.qpos = _run([int(model.jnt_qposadr[j]) for j in joints])
        self.qvel = _run([int(model.jnt_dofadr[j]) for j in joints])
        self.outputs, self.ctrl = _run([int(model.actuator_outadr[i]) for i in ids]), _run(columns)
        self.all_driven = columns == list(range(model.nu))
        self.home, self.hold = model.qpos0.copy(), np.zeros(model.nu)
        for name, angle in robot.held:
            joint = id_of(model, _OBJECT.mjOBJ_JOINT, name)
            self.home[model.jnt_qposadr[joint]] = angle
            self.hold[drives[joint][1]] = angle
        self.sites = [id_of(model, _OBJECT.mjOBJ_SITE, foot.name) for foot in robot.feet]
        first = id_of(model, _OBJECT.mjOBJ_SENSOR, contact_sensor(robot.feet[0].name))
        self.first_sensor = int(model.sensor_adr[first])
        limits = np.where(model.jnt_limited[joints, None], model.jnt_range[joints], [-1e6, 1e6])
        middle, half = limits.mean(axis=1), (limits[:, 1] - limits[:, 0]) / 2
        self.soft_limits = np.stack((middle - _SOFT * half, middle + _SOFT * half))


def _drives(model: mujoco.MjModel) -> dict[int, tuple[str, int]]:
    """Name and column of ctrl of each joint's actuator."""
    found = {}
    for i in range(model.nactuator):
        drive = find_drive(model, i)
        if drive is not None and drive.joint is not None:
            found[drive.joint] = (drive.name, drive.column)
    return found


def _run(places: list[int]) -> slice | list[int]:
    """Places as a slice where they are in a row, which copies nothing."""
    first = places[0]
    return slice(first, first + len(places)) if places == list(range(first, first + len(places))) else places


def action_component(robot: LeggedRobot, layout: Layout) -> ActionComponent:
    """Targets of the joints' position controllers."""
    return ActionComponent(
        "joint_target", len(robot.joints), "rad", robot.scale, robot.stance, robot.joints, robot.joints,
        layout.actuators, frame="joint", stiffness=robot.stiffness, damping=robot.damping, effort_limit=robot.effort,
        description="targets of the joints' position controllers",
    )  # fmt: skip


def observation_components(robot: LeggedRobot, layout: Layout, gait: Gait) -> tuple[Component, ...]:
    """What is observed, of both groups."""
    base, privileged, size = (robot.base,), "privileged", len(robot.joints)
    feet, frame = tuple(foot.name for foot in robot.feet), robot.base
    actions, commands = tuple(f"{name}_action" for name in layout.actuators), ("forward", "left", "turn_left")
    policy = (
        vector("gyro", "rad/s", base, f"angular velocity of the {frame}", frame=frame),
        vector("projected_gravity", "1", base, "down", frame=frame, limits=(-1.0, 1.0)),
        Component("joint_pos", size, "rad", "joint", robot.joints, robot.joints, description="joint angles"),
        Component("joint_vel", size, "rad/s", "joint", robot.joints, robot.joints, description="joint velocities"),
        Component(
            "last_action", size, "1", "joint", actions, measured=False, limits=(-1.0, 1.0), description="last action"
        ),
        Component("command", 3, "m/s, rad/s", frame, commands, measured=False, description="wanted velocity"),
    )
    if gait.period_s is not None:
        text = f"sin and cos of 2 pi t / {gait.period_s:g} s, t since the policy began"
        clock = Component("gait_clock", 2, "1", "world", ("sin", "cos"), measured=False, limits=(-1.0, 1.0),
                          description=text)  # fmt: skip
        policy = (*policy, clock)
    n = len(feet)
    return (
        *policy,
        vector("base_linvel", "m/s", base, f"{frame}'s velocity", frame=frame, group=privileged),
        Component("base_height", 1, "m", "world", ("z",), bodies=base, group=privileged, description="above ground"),
        Component("foot_contact", n, "1", "world", feet, bodies=feet, group=privileged, description="touches or not"),
        Component("foot_force", n, "N", "world", feet, bodies=feet, group=privileged, description="contact force"),
        Component("foot_height", n, "m", "world", feet, bodies=feet, group=privileged, description="above ground"),
        Component("foot_air_time", n, "s", "world", feet, bodies=feet, group=privileged, description="since contact"),
    )


def mirror_of(model: mujoco.MjModel, robot: LeggedRobot, layout: Layout, gait: Gait) -> Mirror | None:
    """Left and right exchanged; None where the robot is not its own mirror image, or its gait is not."""
    data = mujoco.MjData(model)
    data.qpos[:] = layout.home
    data.qpos[layout.base_q : layout.base_q + 7] = (0, 0, robot.height_m, 1, 0, 0, 0)
    data.qpos[layout.qpos] = robot.stance
    mujoco.mj_kinematics(model, data)
    across = np.array([1.0, -1.0, 1.0])
    feet = [_image(data.site_xpos[layout.sites], at * across) for at in data.site_xpos[layout.sites]]
    images = [_joint_image(data, layout.joints, j, robot.stance) for j in range(len(robot.joints))]
    if None in feet or None in images:
        return None
    clock = _clock_signs(robot, gait, [f for f in feet if f is not None])
    if clock is None:
        return None
    found = [image for image in images if image is not None]
    order, signs = tuple(j for j, _ in found), tuple(s for _, s in found)
    if any(order[order[j]] != j for j in range(len(order))):
        return None
    size, count = len(order), len(feet)
    index = (*range(6), *(6 + i for i in order), *(6 + size + i for i in order), *(6 + 2 * size + i for i in order),
             *range(6 + 3 * size, 9 + 3 * size + len(clock)))  # fmt: skip
    sign = (-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, *signs, *signs, *signs, 1.0, -1.0, -1.0, *clock)
    privileged = (*range(4), *(4 + count * block + foot for block in range(4) for foot in feet if foot is not None))
    privileged_sign = (1.0, -1.0, *([1.0] * (2 + 4 * count)))
    exchanged = _exchanged(model, robot, layout, order, [f for f in feet if f is not None])
    return Mirror(index, sign, order, signs, privileged, privileged_sign, exchanged, ("body_com_y",))


def _image(places: np.ndarray, wanted: np.ndarray) -> int | None:
    """The place that is nearest to the wanted one; None where none is near."""
    away = np.linalg.norm(places - wanted, axis=1)
    nearest = int(away.argmin())
    return nearest if away[nearest] < _PLACE_M else None


def _joint_image(data: mujoco.MjData, joints: list[int], j: int, stance: tuple[float, ...]) -> tuple[int, float] | None:
    """The joint that is the mirror image of joint j, and the sign between their angles; None where there is none."""
    anchor = data.xanchor[joints[j]] * [1.0, -1.0, 1.0]
    axis = data.xaxis[joints[j]] * [-1.0, 1.0, -1.0]  # an axis of rotation is a pseudovector
    best: tuple[float, int, float] | None = None
    for k, other in enumerate(joints):
        away, along = float(np.linalg.norm(data.xanchor[other] - anchor)), float(axis @ data.xaxis[other])
        if away < _PLACE_M and abs(along) > _ALIGNED and (best is None or away < best[0]):
            best = (away, k, 1.0 if along > 0 else -1.0)
    if best is None or abs(stance[best[1]] - best[2] * stance[j]) > _ALIKE_RAD:
        return None
    return best[1], best[2]


def _clock_signs(robot: LeggedRobot, gait: Gait, image: list[int]) -> tuple[float, ...] | None:
    """Signs of the clock in the mirror: half a period later where left and right take turns; None where neither."""
    if gait.period_s is None:
        return ()
    begins = np.array(gait.offsets(tuple(foot.name for foot in robot.feet)))
    for shift, sign in ((0.0, 1.0), (0.5, -1.0)):
        if np.allclose(np.mod(begins[image] - begins - shift + 0.25, 1.0), 0.25):
            return (sign, sign)
    return None


def _exchanged(
    model: mujoco.MjModel, robot: LeggedRobot, layout: Layout, order: tuple[int, ...], feet: list[int]
) -> dict[str, str]:
    """Names that change places: of joints, their actuators and bodies, and of feet."""
    found: dict[str, str] = {}

    def note(one: str, other: str) -> None:
        if one != other and one and other:
            found[one] = other

    for j, k in enumerate(order):
        note(robot.joints[j], robot.joints[k])
        note(layout.actuators[j], layout.actuators[k])
        bodies = [model.body(int(model.jnt_bodyid[layout.joints[i]])).name for i in (j, k)]
        note(bodies[0], bodies[1])
    for foot, image in enumerate(feet):
        one, other = robot.feet[foot], robot.feet[image]
        note(one.name, other.name)
        note(one.body, other.body)
        for a, b in zip(one.shapes, other.shapes, strict=False):
            if isinstance(a, str) and isinstance(b, str):
                note(a, b)
    if any(found.get(other) != one for one, other in found.items()):
        raise TaskError(f"LeggedRobot: {robot.base}: names of left and right do not belong together")
    return found
