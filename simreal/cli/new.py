"""`simreal new`: a task, a configuration and a randomization block to start from, for a robot's MJCF."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

from envs.common.errors import TaskError
from envs.registry import build_task
from envs.task import Task
from envs.validation.drives import Drive, find_drive
from envs.validation.health.checkup import checkup
from envs.validation.health.finding import Finding
from envs.validation.health.subject import USUAL_PERIOD_S, Subject, units_of
from simreal.cli.suggest import suggested_yaml
from simreal.common.atomic_files import new_folder, writing
from simreal.common.errors import UserError

_OBJECT, _JOINT = mujoco.mjtObj, mujoco.mjtJoint
_FREE, _SINGLE = int(_JOINT.mjJNT_FREE), (int(_JOINT.mjJNT_HINGE), int(_JOINT.mjJNT_SLIDE))
_GROUND = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))
_UNITS = {
    ("position", False): "m", ("position", True): "rad", ("velocity", False): "m/s", ("velocity", True): "rad/s",
    ("force", False): "N", ("force", True): "N m",
}  # fmt: skip
_TOO_GENERAL = ("scene", "robot", "model", "main", "task")  # names of files that say nothing about the robot
_LINE = 88  # characters of a list of values
_FARTHEST = 0.6  # rad that an action of 1 moves a servo's target from home, at most
_REACH = 0.25  # of the range of commands, to either side of home, that an action of 1 asks for


@dataclass(frozen=True)
class Part:
    """Actuators of one unit."""

    name: str
    unit: str
    drives: list[Drive]
    center: list[float]  # commands for an action of 0
    reach: list[float]  # how far commands go for an action of 1
    per_ctrl: list[float]  # what one of ctrl is in the unit
    low: list[float]
    high: list[float]


def new_command(robot: Path, output: Path | None, out: Console) -> Path:
    """Write a folder with a task and its configuration. Returns it.

    Raises:
        UserError, TaskError: the file is no robot, or the folder exists; nothing is written then.
    """
    name = _name(robot)
    folder = output or Path(name)
    if folder.exists():
        raise UserError(f"{folder}: exists; name another --output")
    spec = _spec(robot)
    out.print(f"{robot}: looking at the robot ...")
    starter = Starter(robot, name, spec)
    try:
        with writing(folder), new_folder(folder) as made:
            (made / f"{name}.py").write_text(starter.code())
            task = _made_task(made / f"{name}.py", name, starter.class_name)
            (made / f"{name}.yaml").write_text(starter.configuration(task))
    except TaskError as error:
        raise UserError(f"{robot}: cannot be made a task: {error}") from None
    for finding in starter.left:
        out.print(f"warning: simulation: {finding.line()}")
    out.print(f"""
  {folder / name}.py      the task: hold a posture that is asked for; make it yours
  {folder / name}.yaml      how it is trained, and in which worlds

Next:
  cd {folder}
  simreal check {name}:{starter.class_name}
  simreal train {name}.yaml
""")
    return folder


def _name(robot: Path) -> str:
    """A name for the module, which no module that Python finds has."""
    stem = robot.resolve().parent.name if robot.stem.lower() in _TOO_GENERAL else robot.stem
    name = re.sub(r"\W+", "_", stem.lower()).strip("_") or "robot"
    name = f"robot_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name
    return f"{name}_task" if name in sys.stdlib_module_names or importlib.util.find_spec(name) else name


def _spec(robot: Path) -> mujoco.MjSpec:
    if not robot.is_file():
        raise UserError(f"{robot}: no such file; expected the MJCF or URDF of a robot")
    try:
        spec = mujoco.MjSpec.from_file(str(robot.resolve()))
        spec.compile()
    except ValueError as error:
        raise UserError(f"{robot}: MuJoCo cannot compile it: {' '.join(str(error).split())}") from None
    return spec


def _name_actuators(spec: mujoco.MjSpec) -> list[str]:
    """Give actuators without a name that of the joint (or tendon, site, body) that they act on, as a policy's contract
    needs; returns the names of all, in order, or nothing where all had one."""
    taken = {actuator.name for actuator in spec.actuators}
    if "" not in taken:
        return []
    for actuator in spec.actuators:
        if not actuator.name:
            names = (actuator.target, *(f"{actuator.target}_{n}" for n in range(2, 2 + len(spec.actuators))))
            actuator.name = next(name for name in names if name not in taken)
            taken.add(actuator.name)
    return [actuator.name for actuator in spec.actuators]


def _made_task(path: Path, name: str, class_name: str) -> Task:
    """The task that was just written."""
    spec = importlib.util.spec_from_file_location(f"_new_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return build_task(f"{name}:{class_name}", getattr(module, class_name), {})


class Starter:
    """What a robot's model says about a task for it.

    Args:
        robot: the file.
        name: of the module to write.
        spec: of the file; a floor and armatures are added to it.
    """

    def __init__(self, robot: Path, name: str, spec: mujoco.MjSpec) -> None:
        self.robot, self.name = robot.resolve(), name
        self.class_name = "".join(word.capitalize() for word in name.split("_")) or "Robot"
        model = spec.compile()
        if not model.nactuator:
            raise UserError(f"{robot}: the robot has no actuators, so a policy could do nothing; expected some")
        free = np.flatnonzero(model.jnt_type == _FREE)
        self.base = int(free[0]) if len(free) else None
        self.floor = self.base is not None and not np.isin(model.geom_type, _GROUND).any()
        if self.floor:
            spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05])
        self.named = _name_actuators(spec)
        self.armatures, self.left = self._cured(spec)
        self.model = spec.compile()
        self.home = self._home(self.model)
        self.joints = [j for j in range(self.model.njnt) if int(self.model.jnt_type[j]) in _SINGLE]
        if not self.joints:
            raise UserError(f"{robot}: the robot has no hinges and no slides; expected some")
        self.drives = self._drives(robot)
        self.decimation = max(1, round(USUAL_PERIOD_S / self.model.opt.timestep))

    def _drives(self, robot: Path) -> list[Drive]:
        found = []
        for i in range(self.model.nactuator):
            drive = find_drive(self.model, i)
            if drive is None:
                name = mujoco.mj_id2name(self.model, _OBJECT.mjOBJ_ACTUATOR, i) or f"number {i}"
                raise UserError(f"{robot}: actuator {name} has no input or several; write its task by hand")
            found.append(drive)
        return found

    def _cured(self, spec: mujoco.MjSpec) -> tuple[dict[str, float], list[Finding]]:
        """Armatures without which joints flip, which are given to `spec`; and what else is wrong."""
        armatures: dict[str, float] = {}
        found: list[Finding] = []
        for _ in range(4):
            model = spec.compile()
            data = mujoco.MjData(model)
            data.qpos[:] = self._home(model)
            mujoco.mj_forward(model, data)
            found = checkup(Subject(self.name, model, [data], USUAL_PERIOD_S))
            cures = {f.of.split("'")[1]: f.armature for f in found if f.armature is not None and "'" in f.of}
            for joint, armature in cures.items():
                if armature is not None:
                    spec.joint(joint).armature = armatures[joint] = armature
            if not cures:
                return armatures, found
        return armatures, found

    def _home(self, model: mujoco.MjModel) -> np.ndarray:
        """Where episodes start: the keyframe "home", the first one, or the model's own pose; feet on the ground."""
        home = mujoco.mj_name2id(model, _OBJECT.mjOBJ_KEY, "home")
        qpos = (model.key_qpos[max(home, 0)] if model.nkey else model.qpos0).copy()
        for joint in range(model.njnt):  # poses of files are often outside of their own limits
            if model.jnt_limited[joint] and int(model.jnt_type[joint]) in _SINGLE:
                adr = model.jnt_qposadr[joint]
                qpos[adr] = np.clip(qpos[adr], *model.jnt_range[joint])
        if self.base is None:
            return qpos
        height, data = int(model.jnt_qposadr[self.base]) + 2, mujoco.MjData(model)
        for _ in range(20):
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            depth = max((-float(c.dist) - float(c.solimp[2]) for c in data.contact[: data.ncon]), default=0.0)
            if depth <= 0.0:
                break
            qpos[height] += depth + 1e-4
        return qpos

    def parts(self) -> list[Part]:
        """The action, in components of one unit each."""
        data = self._at_home()
        by_unit: dict[str, list[Drive]] = {}
        for drive in self.drives:
            unit = _UNITS.get((drive.follows or "position", drive.turns is not False), "1")
            unit = "1" if drive.follows is None or drive.per_ctrl(self.model, unit) is None else unit
            by_unit.setdefault(unit, []).append(drive)
        return [self._part(unit, drives, data) for unit, drives in by_unit.items()]

    def _part(self, unit: str, drives: list[Drive], data: mujoco.MjData) -> Part:
        names = {"rad": "joint_target", "m": "slide_target", "rad/s": "joint_speed", "m/s": "slide_speed"}
        name = names.get(unit, {"N m": "torque", "N": "force"}.get(unit, "command"))
        part = Part(name, unit, drives, [], [], [], [], [])
        for drive in drives:
            low, high = drive.clips(self.model) or (-np.inf, np.inf)
            if drive.joint is not None and drive.follows == "position" and self.model.jnt_limited[drive.joint]:
                ends = sorted(float(end) * drive.gear for end in self.model.jnt_range[drive.joint])
                low, high = max(low, ends[0]), min(high, ends[1])
            bounded = bool(np.isfinite((low, high)).all())
            if drive.follows == "position":
                center = float(np.clip(data.actuator_length[drive.actuator], low, high))
                reach = _REACH * (high - low) if bounded else np.inf
                reach = min(reach, _FARTHEST * abs(drive.gear)) if unit != "m" or not bounded else reach
            else:
                center, reach = (0.5 * (low + high), 0.5 * (high - low)) if bounded else (0.0, 1.0)
            for values, value in zip(
                (part.center, part.reach, part.per_ctrl, part.low, part.high),
                (center, reach, drive.per_ctrl(self.model, unit) or 1.0, low, high), strict=True,
            ):  # fmt: skip
                values.append(value)
        return part

    @property
    def base_q(self) -> int:
        """Where the free base begins in qpos."""
        assert self.base is not None
        return int(self.model.jnt_qposadr[self.base])

    @property
    def base_dof(self) -> int:
        """Where the free base begins in qvel."""
        assert self.base is not None
        return int(self.model.jnt_dofadr[self.base])

    def room(self, joints: list[int]) -> list[float]:
        """How far from home postures of joints may be, so that commands and limits allow them."""
        found = []
        for joint in joints:
            drive = next((d for d in self.drives if d.joint == joint and d.follows == "position"), None)
            if drive is None:
                found.append(0.0)
                continue
            part = self._part("rad", [drive], self._at_home())
            below, above = part.center[0] - part.low[0], part.high[0] - part.center[0]
            found.append(float(min(part.reach[0], below, above) / abs(drive.gear)))
        return found

    def _at_home(self) -> mujoco.MjData:
        data = mujoco.MjData(self.model)
        data.qpos[:] = self.home
        mujoco.mj_forward(self.model, data)
        return data

    @staticmethod
    def product(values: list[float], factors: list[float]) -> list[float]:
        """Value by value."""
        return [a * b for a, b in zip(values, factors, strict=True)]

    @staticmethod
    def flat(parts: list[Part], name: str) -> list[float]:
        """What all parts have, in the order of the action."""
        return [value for part in parts for value in getattr(part, name)]

    @staticmethod
    def plain(part: Part) -> bool:
        """Whether commands are in the unit of the part as they are."""
        return all(factor == 1.0 for factor in part.per_ctrl)

    @staticmethod
    def columns(parts: list[Part]) -> list[int]:
        """Of ctrl, in the order of the action."""
        return [drive.column for part in parts for drive in part.drives]

    @staticmethod
    def finite(values: list[float]) -> bool:
        """Whether all values have an end."""
        return bool(np.isfinite(values).all())

    def code(self) -> str:
        """The task as Python."""
        servos = {drive.joint for drive in self.drives if drive.follows == "position" and drive.joint is not None}
        kinds = {unit: [j for j in self.joints if units_of(self.model, j) == unit] for unit in ("rad", "m")}
        parts = self.parts()
        template = "composed_task" if self._composed(parts) else "task"
        return _TEMPLATES.get_template(f"{template}.py.jinja").render(
            starter=self, parts=parts, kinds={unit: ids for unit, ids in kinds.items() if ids},
            judged=[j for j in self.joints if j in servos] or self.joints, moved=bool(servos),
            model=self.model, quiet=_text, numbers=_numbers, names=_names, labels=self.labels,
        )  # fmt: skip

    def _composed(self, parts: list[Part]) -> bool:
        """Whether ready-made parts say all of it: actuators are servos or motors of joints, each kind of one unit."""
        kinds = [part.drives[0].follows for part in parts]
        joints = [self.model.joint(j).name for j in self.joints]
        plain = all(part.unit != "1" and all(d.joint is not None for d in part.drives) for part in parts)
        patterns = any(letter in name for name in joints for letter in "*?[")
        mixed = len({units_of(self.model, j) for j in self.joints}) > 1
        return plain and len(set(kinds)) == len(kinds) and not (patterns and mixed) and self.base_name != ""

    @property
    def base_name(self) -> str | None:
        """The body of the free joint; None without one."""
        return None if self.base is None else self.model.body(int(self.model.jnt_bodyid[self.base])).name

    @staticmethod
    def scale(part: Part) -> list[float]:
        """How far an action of 1 goes in the part's unit, in the direction in which joints turn."""
        return [abs(a * b) for a, b in zip(part.reach, part.per_ctrl, strict=True)]

    @staticmethod
    def ends(part: Part) -> tuple[list[float], list[float]]:
        """The lowest and highest targets in the part's unit."""
        pairs = [sorted((a * f, b * f)) for a, b, f in zip(part.low, part.high, part.per_ctrl, strict=True)]
        return [low for low, _ in pairs], [high for _, high in pairs]

    def labels(self, kind: str, ids: list[int]) -> list[str]:
        """Names of joints or actuators; UserError where one has none, as the contract needs them."""
        objects = {"joint": _OBJECT.mjOBJ_JOINT, "actuator": _OBJECT.mjOBJ_ACTUATOR}
        found = [mujoco.mj_id2name(self.model, objects[kind], i) for i in ids]
        if "" in found or None in found:
            missing = next(i for i, name in zip(ids, found, strict=True) if not name)
            raise UserError(
                f"{self.robot}: {kind} number {missing} has no name; give it one, as the policy's contract needs"
            )
        return found

    def configuration(self, task: Task) -> str:
        """The run as YAML."""
        return _TEMPLATES.get_template("run.yaml.jinja").render(
            name=self.name, class_name=self.class_name, worlds=suggested_yaml(task).rstrip()
        )


def _numbers(values: list[float] | np.ndarray) -> str:
    """A tuple of numbers as Python, short."""
    return _tuple([_number(float(v)) for v in values])


def _number(value: float) -> str:
    if np.isinf(value):
        return f'float("{value}")'
    return f"{0.0 if abs(value) < 1e-12 else value:.6g}"


def _names(values: list[str]) -> str:
    return _tuple([_text(value) for value in values])


def _text(value: str) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _tuple(values: list[str]) -> str:
    """Values as a tuple in Python, on lines that can be read."""
    if len(values) == 1:
        return f"({values[0]},)"
    whole = f"({', '.join(values)})"
    if len(whole) <= _LINE:
        return whole
    lines = [""]
    for value in values:  # names may hold commas and spaces
        if lines[-1] and len(lines[-1]) + len(value) + 1 > _LINE:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{value},"
    return "(\n" + "".join(f"    {line}\n" for line in lines) + ")"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True, keep_trailing_newline=True,
)  # fmt: skip
