"""Play in the gears as joints of its own, for models that have none (MuJoCo's manual, Modeling, Backlash).

Beside a driven joint, in the same body and with the same place and axis, a second one moves freely within its range:
the motor drives the first, the link hangs on the second, and its angle is the sum of the two. Such a model has more
joints than the task knows. `BacklashJointEngine` shows it with the task's joints only: the position and velocity of a
joint are those of the link, sums of motor and slack, as an encoder on the link would measure them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.names import labels_of, names_of
from envs.engines.base import Engine, Stage
from envs.engines.stability import servo_damping

_MARK = re.compile(r"~slack(\d*)$")  # ends the names of slack joints; a number where a model has such names already
_TO_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_WIDTHS = {int(mujoco.mjtJoint.mjJNT_FREE): (7, 6), int(mujoco.mjtJoint.mjJNT_BALL): (4, 3)}  # in qpos, in qvel
_SINGLE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_EXPLICIT = (int(mujoco.mjtIntegrator.mjINT_EULER), int(mujoco.mjtIntegrator.mjINT_RK4))
_RK4 = int(mujoco.mjtIntegrator.mjINT_RK4)
_MUSCLE = {"gain": int(mujoco.mjtGain.mjGAIN_MUSCLE), "bias": int(mujoco.mjtBias.mjBIAS_MUSCLE)}
_IMPEDANCE = (0.9, 0.95, 0.001, 0.5, 2.0)  # MuJoCo's own, whatever a model's default classes say
_HARD = (0.004, 1.0)  # time constant (s; MuJoCo takes at least two physics steps) and damping ratio
_ROTOR_SHARE = 0.01  # of a joint's inertia: what a rotor without inertia of its own gets
_SUMMED = ("qpos", "qvel", "qacc")
_NONE_IN_SLACK = (
    "jnt_stiffness", "jnt_stiffnesspoly", "jnt_margin", "jnt_actgravcomp", "dof_armature", "dof_damping",
    "dof_dampingpoly", "dof_frictionloss", "qpos0", "qpos_spring",
)  # fmt: skip
_OF_DOFS = ("qvel", "qacc", "qacc_warmstart", "qacc_smooth", "cdof", "cdof_dot")


def geared_joints(model: mujoco.MjModel) -> list[str]:
    """Labels (see `names`) of joints that an actuator drives and beside which there is room for slack.

    Where several joints share a body, that is the last one only: the axis of another's slack would turn with the rest.
    """
    driven = {
        int(model.actuator_trnid[i, 0]) for i in range(model.nactuator) if int(model.actuator_trntype[i]) in _TO_JOINT
    }
    labels, found = labels_of(model, "joint"), []
    for joint in sorted(driven):
        body = int(model.jnt_bodyid[joint])
        last = joint == model.body_jntadr[body] + model.body_jntnum[body] - 1
        if last and int(model.jnt_type[joint]) in _SINGLE:
            found.append(labels[joint])
    return found


@dataclass(frozen=True)
class AddBacklashJoints:
    """An edit of a specification that gives joints slack; see `editing_specs`.

    Attributes:
        joints: labels of the driven joints.
        indices: where they are among the model's joints.
        armature: least inertia of each joint's rotor, see `_least_armature`.
        mark: what ends the names of the slack joints, and of no other joint.
    """

    joints: tuple[str, ...]
    indices: tuple[int, ...]
    armature: tuple[float, ...]
    mark: str

    @classmethod
    def to(cls, model: mujoco.MjModel, joints: Sequence[str]) -> AddBacklashJoints:
        """Slack for joints of a compiled model, given by their labels."""
        labels = labels_of(model, "joint")
        indices = tuple(labels.index(joint) for joint in joints)
        level = max((_level(label) for label in labels), default=-1) + 1
        armature = tuple(_least_armature(model, index) for index in indices)
        return cls(tuple(joints), indices, armature, f"~slack{level or ''}")

    def __call__(self, spec: mujoco.MjSpec) -> None:
        joints = spec.joints  # in the order of the model; before any is added
        for label, index, armature in zip(self.joints, self.indices, self.armature, strict=True):
            joint = spec.joint(label) or joints[index]
            if joint.name not in (label, ""):
                raise ValueError(f"the order of its joints is another one: {joint.name!r} instead of {label!r}")
            joint.armature = max(joint.armature, armature)
            slack = joint.parent.add_joint(name=label + self.mark, type=joint.type, pos=joint.pos, axis=joint.axis)
            slack.limited, slack.range = mujoco.mjtLimited.mjLIMITED_TRUE, (-1.0, 1.0)  # see `set_backlash`
            slack.solref_limit = _HARD  # gears are harder than MuJoCo's default limits
            slack.solimp_limit = _IMPEDANCE
            slack.armature = slack.frictionloss = slack.ref = slack.springref = slack.margin = 0.0
            slack.damping, slack.stiffness = [0.0] * len(slack.damping), [0.0] * len(slack.stiffness)
            slack.springdamper = [0.0, 0.0]


def _level(label: str) -> int:
    """-1 for a name that does not end as those of slack joints do, and the number at its end for one that does."""
    mark = _MARK.search(label)
    return int(mark[1] or 0) if mark else -1


def _least_armature(model: mujoco.MjModel, joint: int) -> float:
    """Inertia of the rotor that a joint needs once its link hangs loose: with none it would turn without resistance.

    It is also what keeps damping stable that the integrator treats explicitly (that of servos; with RK4 that of the
    joint too): damping * timestep.
    """
    dof = int(model.jnt_dofadr[joint])
    damping = 0.0
    if int(model.opt.integrator) in _EXPLICIT:
        damping = float(servo_damping(model)[dof])
    if int(model.opt.integrator) == _RK4:
        damping += float(model.dof_damping[dof])
    return max(_ROTOR_SHARE * float(model.dof_M0[dof]), damping * float(model.opt.timestep))


def carry_over(nominal: mujoco.MjModel, model: mujoco.MjModel) -> None:
    """Give a model with slack joints every value of the task's model, wherever the two have the same thing.

    The compiler derives gains from inertia: a servo's damping from `dampratio`, a joint's spring and damper from
    `springdamper`. In a joint with slack it would see the rotor alone and make them weak. What a task wrote to its
    compiled model is carried over likewise, and slack joints lose what reached them from default classes.

    Args:
        nominal: the task's model.
        model: the same with slack joints, see `AddBacklashJoints`.

    Raises:
        ValueError: the models differ in more than slack joints.
    """
    slack, least = set(_backlash_joints(model)), model.dof_armature.copy()
    addresses = {"jnt_": (None, 0), "dof_": (model.jnt_dofadr, 1), "qpos": (model.jnt_qposadr, 0)}
    split = {prefix: _split(model, slack, *where) for prefix, where in addresses.items()}
    for name in dir(nominal):
        ours = getattr(nominal, name)
        if name.startswith("__") or not isinstance(ours, np.ndarray) or ours.dtype.kind not in "fb":
            continue
        theirs = getattr(model, name)
        if name[:4] in split:
            kept, _, added = split[name[:4]]
            if len(kept) != len(ours):
                raise ValueError("more than slack was added to its joints")
            theirs[kept] = ours
            if name in _NONE_IN_SLACK:
                theirs[added] = 0.0
        elif ours.shape == theirs.shape:
            theirs[:] = ours
    kept, motors, _ = split["dof_"]
    rotors = [kept[i] for i in motors]
    model.dof_armature[rotors] = np.maximum(model.dof_armature[rotors], least[rotors])
    _fix_muscles(nominal, model)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _fix_muscles(nominal: mujoco.MjModel, model: mujoco.MjModel) -> None:
    """State the peak force of muscles that leave it to MuJoCo, which takes it from the inertia that they move."""
    for i in range(nominal.nactuator):
        for kind, prm in (("gain", model.actuator_gainprm), ("bias", model.actuator_biasprm)):
            if int(getattr(nominal, f"actuator_{kind}type")[i]) == _MUSCLE[kind] and prm[i, 2] < 0:
                prm[i, 2] = prm[i, 3] / nominal.actuator_acc0[nominal.actuator_outadr[i]]


def set_backlash(model: mujoco.MjModel, play: float) -> int:
    """Let the slack joints of a model move by `play` (rad or m) to either side; returns how many there are."""
    joints = _backlash_joints(model)
    model.jnt_range[joints] = (-play, play)
    return len(joints)


def _backlash_joints(model: mujoco.MjModel) -> list[int]:
    """Those that `AddBacklashJoints` has added: of the joints that end as slack joints do, the last kind."""
    levels = [_level(name) for name in names_of(model, "joint")]
    level = max(levels, default=-1)
    return [i for i, found in enumerate(levels) if found == level >= 0]


@dataclass(frozen=True)
class _Places:
    """Where values of the task's joints are in a field of the larger model, and those of slack joints."""

    kept: Tensor  # [n]
    summed: Tensor  # [k] places among the n
    slack: Tensor  # [k] places in the larger model

    def read(self, values: Tensor, dim: int = 1) -> Tensor:
        """What the task knows of values [..., n + k, ...]: those of its own joints."""
        return values.index_select(dim, self.kept)

    def read_sum(self, values: Tensor) -> Tensor:
        """Values [N, n + k] -> [N, n] with the slack's added."""
        return self.read(values).index_add_(1, self.summed, values[:, self.slack])


class BacklashJointEngine:
    """An engine whose model has slack joints, shown with the joints of the task's model.

    State is copied from and to the engine beneath at every call, so tensors are as live as they are there.
    """

    def __init__(self, inner: Engine) -> None:
        self._inner, self.model = inner, inner.model
        self.num_envs, self.device, self.dtype = inner.num_envs, inner.device, inner.dtype
        model, slack = inner.model, set(_backlash_joints(inner.model))
        self._joints, self._q, self._v = (
            _Places(*(torch.tensor(numbers, device=inner.device) for numbers in _split(model, slack, address, column)))
            for address, column in ((None, 0), (model.jnt_qposadr, 0), (model.jnt_dofadr, 1))
        )
        self._shown: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}
        self._fields: dict[str, tuple[_Places, Tensor]] = {}

    @property
    def beneath(self) -> Engine:
        """The engine whose model has the slack joints."""
        return self._inner

    def data(self, name: str) -> Tensor:
        if name != "qpos" and name not in _OF_DOFS and not name.startswith("qfrc_"):
            return self._inner.data(name)
        if name not in self._shown:
            self._shown[name] = self._read(name)
            self._seen[name] = self._shown[name].clone()
        return self._shown[name]

    def field(self, name: str) -> Tensor:
        places = self._field_places(name)
        if places is None:
            return self._inner.field(name)
        if name not in self._fields:
            self._fields[name] = places, places.read(self._inner.field(name))
        return self._fields[name][1]

    def handed_out(self) -> list[Tensor]:
        return [*self._shown.values(), *(shown for _, shown in self._fields.values()), *self._inner.handed_out()]

    def nominal(self, name: str) -> Tensor:
        places, values = self._field_places(name), self._inner.nominal(name)
        return values if places is None else places.read(values.to(self.device), dim=0)

    @contextmanager
    def _handed_down(self) -> Iterator[Engine]:
        """The engine beneath, with what was written here; what it makes of that is shown when the block ends."""
        self._push()
        yield self._inner
        self._pull()

    def step(self, nstep: int, commands: Tensor | None = None) -> None:
        with self._handed_down() as inner:
            inner.step(nstep, commands)

    def advance_some(self, nstep: int, mask: Tensor) -> None:
        with self._handed_down() as inner:
            inner.advance_some(nstep, mask)

    def forward(self, mask: Tensor | None = None, stage: Stage = "acceleration") -> None:
        with self._handed_down() as inner:
            inner.forward(mask, stage)

    def reset(self, mask: Tensor | None = None) -> None:
        with self._handed_down() as inner:
            inner.reset(mask)

    def refresh_written(self) -> None:
        with self._handed_down() as inner:
            inner.refresh_written()

    def start_histories(self, mask: Tensor) -> None:
        self._push()
        self._inner.start_histories(mask)

    def set_const(self, mask: Tensor | None = None) -> None:
        self._push()
        self._inner.set_const(mask)

    def use_commands(self, fields: tuple[str, ...]) -> int:
        return self._inner.use_commands(fields)

    def write_command(self, command: Tensor) -> None:
        self._inner.write_command(command)

    def diverged(self) -> Tensor:
        return self._inner.diverged()

    def export_to_mujoco(self, index: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        self._push()
        return self._inner.export_to_mujoco(index)

    def state_dict(self) -> dict[str, Any]:
        self._push()
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._inner.load_state_dict(state)
        self._pull()
        for name, (places, values) in self._fields.items():
            values.copy_(places.read(self._inner.field(name)))

    def _read(self, name: str) -> Tensor:
        places, values = (self._q if name == "qpos" else self._v), self._inner.data(name)
        return places.read_sum(values) if name in _SUMMED else places.read(values)

    def _pull(self) -> None:
        """Show the state of the engine beneath."""
        for name, shown in self._shown.items():
            shown.copy_(self._read(name))
            self._seen[name].copy_(shown)

    def _push(self) -> None:
        """Hand down what was written since the last call. A written joint moves its motor; the slack stays."""
        for name, places in (("qpos", self._q), ("qvel", self._v)):
            if name not in self._shown or torch.equal(self._shown[name], self._seen[name]):
                continue
            shown, values = self._shown[name], self._inner.data(name)
            motor = shown.clone().index_add_(1, places.summed, values[:, places.slack], alpha=-1)
            values[:, places.kept] = torch.where(shown != self._seen[name], motor, values[:, places.kept])
            self._seen[name].copy_(shown)
        for name, (places, shown) in self._fields.items():
            self._inner.field(name)[:, places.kept] = shown

    def _field_places(self, name: str) -> _Places | None:
        if name in ("qpos0", "qpos_spring"):
            return self._q
        return self._joints if name.startswith("jnt_") else self._v if name.startswith("dof_") else None


def _split(model: mujoco.MjModel, slack: set[int], address: Any, column: int) -> tuple[list[int], list[int], list[int]]:
    """The parts of `_Places`, as lists."""
    kept: list[int] = []
    last: dict[int, int] = {}  # where the last kept joint of each body is among the kept ones
    summed: list[int] = []
    added: list[int] = []
    for joint in range(model.njnt):
        start = joint if address is None else int(address[joint])
        width = 1 if address is None else _WIDTHS.get(int(model.jnt_type[joint]), (1, 1))[column]
        body = int(model.jnt_bodyid[joint])
        if joint in slack:
            summed.append(last[body])
            added.append(start)
        else:
            last[body] = len(kept)
            kept += range(start, start + width)
    return kept, summed, added
