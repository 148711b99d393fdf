"""How a robot is held while its log is made: hung up by its base, and without what its task puts beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.common.messages import listed, nearest
from envs.registry import make_task
from envs.task import Outcome, Task, compile_spec, editing_specs
from envs.validation.health.subject import Subject, subject_of_task
from simreal.common.errors import UserError

from .measured.coordinates import PLACE, TURN
from .measured.recording import Recording

_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_NO_EPISODES = "a robot that is held for its log is simulated, and plays no episodes"


@dataclass(frozen=True)
class Rig:
    """How a robot is held.

    Attributes:
        hang: by its base, which then does not move; nothing but the robot itself is there to touch.
        without: bodies of the task that were not there.
    """

    hang: bool = False
    without: tuple[str, ...] = ()

    def said(self) -> str:
        """The options that say it."""
        return (" --hang" if self.hang else "") + "".join(f" --without {body}" for body in self.without)


class Held(Task):
    """A robot to be identified: the model of a task, changed as a rig says. It is simulated, and plays no episodes."""

    observation, has_success = (), False

    def __init__(self, task: Task, spec: mujoco.MjSpec) -> None:
        self.id, self.decimation, self.max_episode_steps = task.id, task.decimation, task.max_episode_steps
        self.command_fields, self.action = task.command_fields, task.action
        self._spec = spec
        self.compile_full(())

    def compile_full(self, bodies: Sequence[int]) -> None:
        self.model = compile_spec(self._spec, bodies)

    def reset(self, mask: object) -> None:
        raise RuntimeError(_NO_EPISODES)

    def command(self, action: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError(_NO_EPISODES)

    def observe(self) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError(_NO_EPISODES)

    def outcome(self, action: object) -> Outcome:
        raise RuntimeError(_NO_EPISODES)


class _Noted:
    """Notes the specification that a task compiles its model from."""

    def __init__(self) -> None:
        self.spec: mujoco.MjSpec | None = None

    def __call__(self, spec: mujoco.MjSpec) -> None:
        self.spec = spec


def held(name: str, rig: Rig, floats: bool = False) -> tuple[Task, Callable[[], Subject]]:
    """A task's robot as a rig holds it, and what tells where it starts.

    Args:
        name: of the task.
        rig: how it is held.
        floats: whether its base may float, because a log shows it.

    Raises:
        UserError: the robot's base floats and is not hung up, or there is nothing to hang up; a body does not exist or
            is the robot's; the task compiles its model in a way that does not let it be changed.
        TaskError: something is wrong with the task.
    """
    noted = _Noted()
    with editing_specs(noted):
        task = make_task(name)
    root = _floating(task.model)
    if root is not None and not rig.hang and not floats:
        raise UserError(f"{name}: {_afloat(task.model, root)}")
    if root is None and rig.hang:
        raise UserError(f"{name}: --hang: its base does not float, expected nothing")
    if not rig.hang and not rig.without:
        return task, lambda: subject_of_task(task)
    if noted.spec is None:
        raise UserError(
            f"{name}: its model cannot be changed; compile it with simreal.compile_spec, docs/tasks.md, or give a task "
            "whose model is as the robot is held"
        )
    _change(noted.spec, task.model, root, rig.without, name)
    changed = Held(task, noted.spec)
    return changed, lambda: _carried(subject_of_task(task), changed)


def _floating(model: mujoco.MjModel) -> int | None:
    """The free body from which a joint hangs that an actuator acts on."""
    for joint in model.actuator_trnid[:, 0].tolist():
        if not 0 <= joint < model.njnt:
            continue
        root = int(model.body_rootid[model.jnt_bodyid[joint]])
        first = int(model.body_jntadr[root])
        if first >= 0 and int(model.jnt_type[first]) == _FREE:
            return root
    return None


def _afloat(model: mujoco.MjModel, root: int) -> str:
    return (
        f"its base ({model.body(root).name or 'a free body'}) floats, and a log of joints does not show it: hang the "
        "robot up, with its base level, and say --hang"
    )


def check_shown(name: str, model: mujoco.MjModel, recording: Recording) -> None:
    """Refuse a log that does not show where a floating base is. Raises UserError."""
    root = _floating(model)
    if root is None:
        return
    needed = [f"{model.body(root).name}.{part}" for part in (*PLACE, *TURN)]
    for kind, kinds in (("position", "positions"), ("velocity", "velocities")):
        shown = {joint for track in recording.tracks if track.kind == kind for joint in track.joints}
        if missing := [part for part in needed if part not in shown]:
            raise UserError(
                f"{recording.name}: {name}: {_afloat(model, root)}; or log {kinds} of {listed(needed, 6)} too, as a "
                f"motion capture shows them ({missing[0]} is not there)"
            )


def _driven(model: mujoco.MjModel, body: int) -> bool:
    """Whether a body, or one that hangs from it, has a joint that an actuator acts on."""
    joints = [j for j in model.actuator_trnid[:, 0].tolist() if 0 <= j < model.njnt]
    for at in {int(model.jnt_bodyid[j]) for j in joints}:
        while at:
            if at == body:
                return True
            at = int(model.body_parentid[at])
    return False


def _change(spec: mujoco.MjSpec, model: mujoco.MjModel, root: int | None, without: Sequence[str], name: str) -> None:
    """Edit a specification as a rig holds the robot. Raises UserError."""
    bodies = {model.body(i).name: i for i in range(1, model.nbody)}
    for body in without:
        if body not in bodies:
            raise UserError(f"{name}: --without {body}: no such body{nearest(body, bodies)}")
        if _driven(model, bodies[body]):
            raise UserError(f"{name}: --without {body}: is part of the robot")
    if root is not None:  # first: bodies have the numbers of the model until one is taken away
        robot = set(np.flatnonzero(model.body_rootid == root).tolist())
        for body in spec.bodies:  # nothing else is near a robot that hangs
            if body.id not in robot:
                for geom in body.geoms:
                    geom.contype = geom.conaffinity = 0
        spec.delete(spec.bodies[root].joints[0])
    for body in without:
        spec.delete(spec.body(body))
    for key in list(spec.keys):  # they are as long as the state was
        spec.delete(key)


def _carried(subject: Subject, task: Held) -> Subject:
    """The start of a task's episode, for the robot as it is held: joints are where they were."""
    before, model = subject.model, task.model
    data = mujoco.MjData(model)
    for joint in range(model.njnt):
        if not model.joint(joint).name:
            continue
        there = before.joint(model.joint(joint).name)
        data.joint(joint).qpos[:] = subject.starts[0].qpos[there.qposadr[0] :][: len(data.joint(joint).qpos)]
    data.ctrl[:] = subject.starts[0].ctrl
    mujoco.mj_forward(model, data)
    return Subject(subject.name, model, [data], subject.period_s)
