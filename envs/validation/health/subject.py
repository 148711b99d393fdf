"""What is looked at: a model, where it starts, and how often it gets commands. Of a task, or of a file."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import torch

from envs.common.errors import TaskError
from envs.engines.base import COMMAND_FIELDS, model_problems
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.task import Task
from envs.task_state import preserved
from envs.validation.drives import Drive, find_drive

_OBJECT = mujoco.mjtObj
STARTS = 4  # initial states that are looked at
USUAL_PERIOD_S = 0.02


@dataclass
class Subject:
    """A model to look at.

    Attributes:
        name: of the task or the file.
        model: a copy, which may be changed.
        starts: simulations of it at the start of episodes, at least one.
        period_s: time between two commands, s.
        environment: the task whose model it is, at work; None for a file.
    """

    name: str
    model: mujoco.MjModel
    starts: list[mujoco.MjData]
    period_s: float
    environment: Environment | None = None

    @property
    def decimation(self) -> int:
        """Physics steps between two commands."""
        return max(1, round(self.period_s / self.model.opt.timestep))

    def drives(self) -> list[Drive]:
        """Actuators with one input."""
        found = (find_drive(self.model, i) for i in range(self.model.nactuator))
        return [drive for drive in found if drive is not None]

    def servos(self) -> list[Drive]:
        """Actuators that follow a position, of a joint or a tendon."""
        followers = (d for d in self.drives() if d.follows == "position" and d.gear != 0.0)
        return [d for d in followers if d.joint is not None or d.tendon is not None]

    def still(self, data: mujoco.MjData) -> np.ndarray:
        """Commands [nu] that ask the robot to stay where it is: present lengths for position servos, what stands in
        `ctrl` for all others."""
        ctrl = data.ctrl.copy()
        for drive in self.servos():
            low, high = drive.clips(self.model) or (-np.inf, np.inf)
            ctrl[drive.column] = np.clip(data.actuator_length[drive.actuator], low, high)
        return ctrl

    def joint_name(self, joint: int) -> str:
        """A joint in a message."""
        return _named(self.model, _OBJECT.mjOBJ_JOINT, joint, "joint")

    def dof_name(self, dof: int) -> str:
        """The joint of a degree of freedom in a message."""
        return self.joint_name(int(self.model.dof_jntid[dof]))

    def drive_name(self, drive: Drive) -> str:
        """An actuator in a message, with its joint."""
        name = _named(self.model, _OBJECT.mjOBJ_ACTUATOR, drive.actuator, "actuator")
        return name if drive.joint is None else f"{name} ({self.joint_name(drive.joint)})"

    def geom_name(self, geom: int) -> str:
        """A geom in a message, by its body where it has no name."""
        name = mujoco.mj_id2name(self.model, _OBJECT.mjOBJ_GEOM, geom)
        if name:
            return f"geom '{name}'"
        body = mujoco.mj_id2name(self.model, _OBJECT.mjOBJ_BODY, int(self.model.geom_bodyid[geom]))
        return f"a geom of body '{body}'"


def without_contacts(subject: Subject) -> Subject:
    """The same, with bodies that go through each other."""
    model = copy.copy(subject.model)
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    return Subject(subject.name, model, subject.starts, subject.period_s, subject.environment)


def units_of(model: mujoco.MjModel, joint: int) -> str:
    """The unit of a joint's position: "m" of a slide, else "rad"."""
    return "m" if int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_SLIDE) else "rad"


def subject_of_task(task: Task, seed: int = 0) -> Subject:
    """A task at the start of some episodes, in its nominal world; the task is attached to an engine of its own.

    Raises whatever the task raises.
    """
    engine = task.make_engine(STARTS, 1) or CpuEngine(task.model, STARTS, threads=1)
    environment = Environment(task, engine, None, seed)
    environment.reset()
    return subject_of_environment(environment, STARTS)


def subject_of_environment(environment: Environment, starts: int = 1) -> Subject:
    """The first environments as they are now, with the command of an action of zero; nothing is drawn and nothing in
    them is changed."""
    engine, task = environment.engine, environment.task
    datas = [engine.export_to_mujoco(i)[1] for i in range(min(starts, environment.num_envs))]
    if type(task).make_engine is Task.make_engine:
        with preserved(task), torch.no_grad():
            zero = torch.zeros(environment.num_envs, task.action_size, device=environment.device)
            command = task.command(zero)[: len(datas)].double().numpy(force=True)
        fields = sorted(task.command_fields, key=lambda name: COMMAND_FIELDS[name])
        for data, row in zip(datas, command, strict=True):
            start = 0
            for name in fields:
                values = getattr(data, name)
                values.flat[:] = row[start : start + values.size]
                start += values.size
    return Subject(task.id, copy.copy(task.model), datas, task.control_period_s, environment)


def subject_of_file(path: Path, period_s: float = USUAL_PERIOD_S) -> Subject:
    """An MJCF or URDF file, at its keyframe "home", its first keyframe, or its default pose.

    Raises:
        TaskError: in one line, what is wrong with the file.
    """
    model = load_model(path)
    data = mujoco.MjData(model)
    if model.nkey:
        home = mujoco.mj_name2id(model, _OBJECT.mjOBJ_KEY, "home")
        mujoco.mj_resetDataKeyframe(model, data, max(home, 0))
    mujoco.mj_forward(model, data)
    return Subject(path.name, model, [data], period_s)


def load_model(path: Path) -> mujoco.MjModel:
    """Compile a file. Raises TaskError in one line."""
    if not path.is_file():
        raise TaskError(f"{path}: no such file")
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise TaskError(f"{path}: MuJoCo cannot compile it: {' '.join(str(error).split())}") from None
    for obstacle in model_problems(model):
        raise TaskError(f"{path}: {obstacle}")
    return model


def _named(model: mujoco.MjModel, kind: mujoco.mjtObj, index: int, word: str) -> str:
    name = mujoco.mj_id2name(model, kind, index)
    return f"{word} '{name}'" if name else f"{word} number {index}"
