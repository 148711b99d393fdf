"""Writes a package for a robot: its model, a task, a configuration with worlds, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mujoco
import numpy as np

from envs.common.errors import TaskError
from envs.locomotion.legged.describe import Described, describe_legged
from envs.locomotion.legged.velocity import LeggedVelocity
from envs.parts.kinematics import chain_to
from envs.robots.doctor.symptom import Symptom
from envs.robots.files import RobotFile
from envs.robots.ready import SINGLE, free_base, home_of
from envs.robots.servos import Servo, drives_of, fitting_servos, put_servos
from envs.task import Task
from simreal.adopt.model_files import write_model
from simreal.adopt.new import made_task
from simreal.adopt.starter import TEMPLATES, Starter, names, numbers, swings, text
from simreal.adopt.worlds import worlds_yaml
from simreal.common.errors import UserError

Kind = Literal["velocity", "reach", "hold"]
KINDS: tuple[Kind, ...] = ("velocity", "reach", "hold")
ABOUT = {"velocity": "walk as a velocity command says", "reach": "bring a tool to random places", "hold": "hold a pose"}
_REACH_PERIOD_S, _REACH_S = 0.05, 3.0
_ROOM_SHARE, _ROOM_RAD = 0.3, 0.9  # of a joint's range to either side of home, and at most
_TOLERANCE_SHARE = 0.03  # of the arm's length


@dataclass(frozen=True)
class Written:
    """A package that was written: its task, and of legged robots what was found out of them."""

    task: Task
    class_name: str
    left: list[Any]  # findings of the simulation that nothing was done about


def guess_kind(robot: RobotFile) -> Kind:
    """The task that fits a robot: legs walk, arms reach, all else holds. A URDF that begins with a link `world` says
    itself that it is fixed there; one that begins with its trunk does not."""
    assert robot.model is not None
    try:
        described = describe(robot)
    except TaskError:
        described = None
    bolted = free_base(robot.model) is None
    meant = robot.urdf is not None and robot.urdf.root == "world"
    if described is not None and not (bolted and (meant or len(described.robot.feet) < 2)):
        return "velocity"
    many = sum(_hinges_below(robot.model, body) > 1 for body in _branches(robot.model))
    return "reach" if bolted and many < 2 and len(tool_chain(robot.model)[1]) >= 3 else "hold"


def describe(robot: RobotFile, file: Path | str = "") -> Described:
    """A legged robot, from its file. Raises TaskError where it has no legs."""
    speeds = {} if robot.urdf is None else {
        joint.name: joint.velocity for joint in robot.urdf.joints.values() if joint.velocity and joint.velocity > 0.0
    }  # fmt: skip
    return describe_legged(robot.again, file, speeds)


def write_package(robot: RobotFile, kind: Kind, name: str, folder: Path, symptoms: Sequence[Symptom]) -> Written:
    """Write a package into an empty folder.

    Args:
        robot: whose model compiles.
        kind: of task.
        name: of the robot, for the class.
        folder: to write into.
        symptoms: of the doctor, for its README.

    Raises:
        UserError, TaskError: the robot does not fit the task.
    """
    model_file = write_model(robot, name, folder)
    write = {"velocity": _velocity, "reach": _reach, "hold": _hold}[kind]
    code, class_name, left = write(robot, name, folder / model_file, model_file)
    (folder / "task.py").write_text(code)
    task = made_task(folder / "task.py", "task", class_name)
    template = TEMPLATES.get_template("run.yaml.jinja" if kind == "hold" else f"{kind}.yaml.jinja")
    (folder / "config.yaml").write_text(template.render(
        name="task", class_name=class_name, worlds=worlds_yaml(task).rstrip(), mirrored=task.mirror is not None,
        biped=_is_biped(task), swings=swings(task),
    ))  # fmt: skip
    (folder / "README.md").write_text(TEMPLATES.get_template("README.md.jinja").render(
        class_name=class_name, name=robot.name, kind=kind, source=robot.path.name, about=ABOUT[kind],
        model_file=model_file, symptoms=symptoms,
    ))  # fmt: skip
    return Written(task, class_name, left)


def _is_biped(task: Task) -> bool:
    """Whether a robot walks on two legs: it must not be thrown over before it has learnt to stand, nor stay there."""
    return isinstance(task, LeggedVelocity) and len(task.robot.feet) <= 2


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_")) or "Robot"


def _velocity(robot: RobotFile, name: str, path: Path, model_file: str) -> tuple[str, str, list[Any]]:
    described, class_name = describe(robot, str(path)), _class_name(name)
    code = TEMPLATES.get_template("velocity.py.jinja").render(
        class_name=class_name, robot_name=name, model_file=model_file, robot=described.robot, gait=described.gait,
        command_limits=described.command_limits, found=described.stance_found, plain=_plain, names=names,
        numbers=numbers, text=text,
    )  # fmt: skip
    return code, class_name, []


def _reach(robot: RobotFile, name: str, path: Path, model_file: str) -> tuple[str, str, list[Any]]:
    make, servos = _served(robot, path)
    if free_base(make().compile()) is not None:
        raise UserError(f"{robot.name}: --task reach: its base floats; expected an arm that is bolted down")
    starter = Starter(path, name, make())
    tool, joints = tool_chain(starter.model)
    if not joints:
        raise UserError(f"{robot.name}: --task reach: expected a chain of hinges or slides that carries a tool")
    if unserved := [j for j in joints if j not in drives_of(starter.model)]:
        raise UserError(f"{robot.name}: --task reach: no servo on joint {starter.model.joint(unserved[0]).name!r}")
    home, room = _home_and_room(starter, joints)
    decimation = max(1, round(_REACH_PERIOD_S / starter.model.opt.timestep))
    code = TEMPLATES.get_template("reach.py.jinja").render(
        starter=starter, tool=tool, joints=[starter.model.joint(j).name for j in joints], home=home, room=room,
        decimation=decimation, steps=round(_REACH_S / _REACH_PERIOD_S), tolerance=_tolerance(starter.model, tool),
        servos=servos, model_file=model_file, names=names, numbers=numbers, text=text,
    )  # fmt: skip
    return code, starter.class_name, starter.left


def _hold(robot: RobotFile, name: str, path: Path, model_file: str) -> tuple[str, str, list[Any]]:
    make, servos = _served(robot, path, all_of=robot.urdf is not None)
    starter = Starter(path, name, make())
    parts = starter.parts()
    if not starter.composed(parts):
        raise UserError(
            f"{robot.name}: --task hold: expected servos or motors of joints alone; "
            f"`simreal new {robot.path.name}` writes a task for tendons, muscles and other actuators"
        )
    servoed = {drive.joint for drive in starter.drives if drive.follows == "position" and drive.joint is not None}
    judged = [j for j in starter.joints if j in servoed] or starter.joints
    several = len({part.drives[0].follows for part in parts}) < len(parts)
    patterns = {part.name: [d.name for d in part.drives] if several else [] for part in parts}
    code = TEMPLATES.get_template("hold.py.jinja").render(
        starter=starter, parts=parts, judged=starter.labels("joint", judged), room=starter.room(judged),
        moved=bool(servoed), patterns=patterns, servos=servos, model_file=model_file, names=names, numbers=numbers,
        text=text,
    )  # fmt: skip
    return code, starter.class_name, starter.left


def _served(robot: RobotFile, path: Path, all_of: bool = True) -> tuple[Callable[[], mujoco.MjSpec], list[Servo]]:
    """What makes the robot with servos on its joints, and the servos that it got; a robot with servos keeps them."""
    model = mujoco.MjModel.from_xml_path(str(path))
    drives = drives_of(model)
    following = {int(model.eq_obj1id[i]) for i in range(model.neq)
                 if int(model.eq_type[i]) == int(mujoco.mjtEq.mjEQ_JOINT) and int(model.eq_obj2id[i]) >= 0}  # fmt: skip
    lacking = [
        j for j in range(model.njnt)
        if int(model.jnt_type[j]) in SINGLE and j not in following
        and (j not in drives if robot.urdf is not None else (j in drives and drives[j].follows == "force"))
    ]  # fmt: skip
    servos = fitting_servos(model, home_of(model), lacking) if all_of and lacking else []

    def make() -> mujoco.MjSpec:
        spec = mujoco.MjSpec.from_file(str(path))
        if servos:
            for key in list(spec.keys) if robot.urdf is not None else []:
                spec.delete(key)
            put_servos(spec, servos)
        return spec

    return make, servos


def _children(model: mujoco.MjModel) -> dict[int, list[int]]:
    return {b: [c for c in range(1, model.nbody) if int(model.body_parentid[c]) == b] for b in range(model.nbody)}


def _hinges_below(model: mujoco.MjModel, body: int) -> int:
    """Degrees of freedom of a body and of all that it carries."""
    return sum(int(model.body_dofnum[b]) for b in [body, *_below(_children(model), body)])


def _branches(model: mujoco.MjModel) -> list[int]:
    """What moves on the first body that branches, from the world on, or on the first that moves: fingers of a hand,
    arms of a torso, or the one arm."""
    children, body = _children(model), 0
    while True:
        moving = [c for c in children[body] if _hinges_below(model, c)]
        if len(moving) != 1 or model.body_dofnum[moving[0]]:
            return moving
        body = moving[0]


def tool_chain(model: mujoco.MjModel) -> tuple[str, list[int]]:
    """The tool of an arm, and the joints that carry it: the longest chain from the world, up to where it branches."""
    children, body, joints, last = _children(model), 0, list[int](), 0
    while following := [c for c in children[body] if _hinges_below(model, c)]:
        if len(following) > 1 and joints:
            break
        body = max(following, key=lambda c: _hinges_below(model, c))
        first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
        own = [j for j in range(first, first + count) if int(model.jnt_type[j]) in SINGLE]
        if len(own) < count:
            return "", []
        joints, last = joints + own, body if own else last
    if not joints:
        return "", []
    carried = [last, *(b for b in _below(children, last) if int(model.body_weldid[b]) == last)]
    sites = [s for s in range(model.nsite) if int(model.site_bodyid[s]) in carried and model.site(s).name]
    if sites:
        return model.site(sites[-1]).name, joints
    named = [b for b in carried if model.body(b).name]
    return (model.body(named[-1]).name if named else ""), joints


def _below(children: dict[int, list[int]], body: int) -> list[int]:
    found = list[int]()
    for child in children[body]:
        found += [child, *_below(children, child)]
    return found


def _home_and_room(starter: Starter, joints: list[int]) -> tuple[list[float], list[float]]:
    """Home of joints away from the ends of their ranges, and how far from there goals may take them."""
    home, room = list[float](), list[float]()
    for joint in joints:
        value = float(starter.home[starter.model.jnt_qposadr[joint]])
        width = _ROOM_RAD
        if starter.model.jnt_limited[joint]:
            low, high = starter.model.jnt_range[joint].tolist()
            width = min(_ROOM_SHARE * (high - low), _ROOM_RAD)
            value = float(np.clip(value, low + width, high - width))
        home.append(value)
        room.append(width)
    return home, room


def _tolerance(model: mujoco.MjModel, tool: str) -> float:
    length = sum(float(np.linalg.norm(link.pos)) for link in chain_to(model, tool).links[1:])
    return float(f"{max(_TOLERANCE_SHARE * length, 1e-3):.1g}")


def _plain(value: Any) -> str:
    """Strings, numbers and tuples of them as Python."""
    if isinstance(value, tuple):
        return f"({', '.join(_plain(v) for v in value)}{',' if len(value) == 1 else ''})"
    return text(value) if isinstance(value, str) else repr(value)
