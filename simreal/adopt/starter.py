"""What a robot's model says about a task for it: where episodes start, what actions ask for, what is judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from envs.robots.ready import SINGLE, add_floor, free_base, home_of, name_actuators
from envs.task import Task
from envs.validation.drives import Drive, find_drive
from envs.validation.health.checkup import checkup
from envs.validation.health.finding import Finding
from envs.validation.health.subject import USUAL_PERIOD_S, Subject, units_of
from simreal.cli.suggest import suggested_yaml
from simreal.common.errors import UserError

_OBJECT = mujoco.mjtObj
_UNITS = {
    ("position", False): "m", ("position", True): "rad", ("velocity", False): "m/s", ("velocity", True): "rad/s",
    ("force", False): "N", ("force", True): "N m",
}  # fmt: skip
_LINE = 88  # characters of a list of values
_ALIKE = 6  # values that are all the same are written once
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
        self.base = free_base(model)
        self.floor = add_floor(spec)
        self.named = name_actuators(spec)
        self.armatures, self.left = self._cured(spec)
        self.model = spec.compile()
        self.home = home_of(self.model)
        self.joints = [j for j in range(self.model.njnt) if int(self.model.jnt_type[j]) in SINGLE]
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
            data.qpos[:] = home_of(model)
            mujoco.mj_forward(model, data)
            found = checkup(Subject(self.name, model, [data], USUAL_PERIOD_S))
            cures = {f.of.split("'")[1]: f.armature for f in found if f.armature is not None and "'" in f.of}
            for joint, armature in cures.items():
                if armature is not None:
                    spec.joint(joint).armature = armatures[joint] = armature
            if not cures:
                return armatures, found
        return armatures, found

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
        template = "composed_task" if self.composed(parts) else "task"
        return TEMPLATES.get_template(f"{template}.py.jinja").render(
            starter=self, parts=parts, kinds={unit: ids for unit, ids in kinds.items() if ids},
            judged=[j for j in self.joints if j in servos] or self.joints, moved=bool(servos),
            model=self.model, quiet=text, numbers=numbers, names=names, labels=self.labels,
        )  # fmt: skip

    def composed(self, parts: list[Part]) -> bool:
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
        return TEMPLATES.get_template("run.yaml.jinja").render(
            name=self.name, class_name=self.class_name, worlds=suggested_yaml(task).rstrip(), swings=swings(task)
        )


def swings(task: Task) -> bool:
    """Whether what a robot does shows late: it floats and may fall, or no servo takes its actions."""
    return free_base(task.model) is not None or any(part.unit not in ("rad", "m") for part in task.action)


def numbers(values: Sequence[float] | np.ndarray) -> str:
    """A tuple of numbers as Python, short."""
    same = [_number(float(v)) for v in values]
    if len(same) > _ALIKE and len(set(same)) == 1:
        return f"({same[0]},) * {len(same)}"
    return _tuple([_number(float(v)) for v in values])


def _number(value: float) -> str:
    if np.isinf(value):
        return f'float("{value}")'
    return f"{0.0 if abs(value) < 1e-12 else value:.6g}"


def names(values: Sequence[str]) -> str:
    """A tuple of names as Python, short."""
    return _tuple([text(value) for value in values])


def text(value: str) -> str:
    """A string as Python."""
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


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True, keep_trailing_newline=True,
)  # fmt: skip
