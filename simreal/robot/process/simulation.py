"""The physics of the process robot: a task's model in a world, stepped one by one, driven by joint commands."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from envs.engines.base import COMMAND_FIELDS
from envs.environment import Environment
from envs.registry import make_task
from envs.task import Task
from randomization.changes import Changing
from randomization.parameters import Parameter
from randomization.samplers.base import Manual, Sampler
from simreal.common.errors import UserError
from simreal.evaluation.model_variants import ModelVariant
from simreal.evaluation.worlds import World, find_world
from simreal.robot.sources import Sources, matrix, quaternion, sources_of
from simreal.training.build import make_environment
from simreal.training.run_directory import LoadedPolicy

Numbers = NDArray[np.float64]
NICKNAMES = {"go1": "Go1Velocity-v0"}
RATE_HZ = 500.0
_GRAVITY = 9.81  # m/s2
_OF_MESSAGES = {"action_dropout": "commands", "observation_dropout": "states"}
_OF_POLICIES = ("action_noise", "action_bias", "action_noise_multiplicative", "action_latency", "adversary_action")
_GAINS = frozenset({"actuator_gainprm", "actuator_biasprm"})
_WIDE = 1e9  # a range of controls that limits nothing
_ONE_WAY = (int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE))
_TO_JOINTS = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_LOOK = 10  # steps between two looks at whether it fell


class _StepByStep(ModelVariant):
    """A world's model, whose control step is one step of physics: what happens in time happens at the robot's rate."""

    def apply(self, task: Task, remake: Any, full: Any = (), shortest: float = 1.0) -> mujoco.MjModel:
        model = super().apply(task, remake, full, shortest)
        task.decimation = 1
        return model


@dataclass
class Drive:
    """What the motors of the driven joints are told: torque + stiffness (position - q) + damping (velocity - qd).

    Of actuators that are no position servos, `position` is the control itself, and there are no gains.
    """

    position: Numbers
    velocity: Numbers
    torque: Numbers
    stiffness: Numbers | None = None  # None: the robot's own
    damping: Numbers | None = None


@dataclass(frozen=True)
class State:
    """What the sensors of the robot show.

    Attributes:
        position, velocity, torque: [joints] rad (m), rad/s (m/s), N m (N) of the motors.
        orientation: [4] w, x, y, z of the trunk; its yaw is the true one. None: it is bolted to the ground.
        gyro: [3] rad/s, in the trunk's frame.
        acceleration: [3] m/s2 of an accelerometer in the trunk's frame.
    """

    position: Numbers
    velocity: Numbers
    torque: Numbers
    orientation: Numbers | None
    gyro: Numbers
    acceleration: Numbers


class Simulation:
    """One robot in one world.

    Args:
        task_id: see `simreal envs`; "go1" for short.
        world: see `find_world`; None: the nominal one.
        seed: of the world and everything random in it.

    Attributes:
        joints: names of all hinges and slides.
        driven: names of those that actuators drive.
        trunk: the name of the floating body; "" where there is none.
        timestep_s: of physics.
        lost: share of "commands" and of "states" that the world loses, of its drop-outs.

    Raises:
        UserError: an unknown task or world, or one that joints and messages cannot play.
    """

    def __init__(self, task_id: str, world: str | None = None, seed: int = 0) -> None:
        self.task_id = NICKNAMES.get(task_id, task_id)
        stand_in = _stand_in(self.task_id)
        found = find_world(world, stand_in) if world else World("nominal", Manual([]), "nominal")
        self.world = found.name
        sampler, self.lost = _split(found, random.Random(seed))
        self._env = _environment(self.task_id, sampler, found.variant, seed)
        self._task, self._engine, self._layer = self._env.task, self._env.engine, self._env.layer
        model = self._task.model
        self._find_joints(model)
        self.timestep_s = float(model.opt.timestep)
        self.floating = bool(model.njnt) and int(model.jnt_type[0]) == int(mujoco.mjtJoint.mjJNT_FREE)
        self.trunk = str(model.body(model.jnt_bodyid[0]).name) if self.floating else ""
        self._find_gains(model)
        self._sources, self._slices = _shown(self._task, self.trunk), self._task.slices()
        self._stance = np.zeros(len(self.joints))  # what is subtracted from positions that the policy observes
        for source in self._sources.joints:
            self._stance[[self.joints.index(name) for name in source.joints]] += source.relative_to
        self.reset()

    def _find_joints(self, model: mujoco.MjModel) -> None:
        simple = [int(i) for i in range(model.njnt) if int(model.jnt_type[i]) in _ONE_WAY]
        self.joints = tuple(str(model.joint(i).name) for i in simple)
        self._qpos, self._qvel = model.jnt_qposadr[simple].tolist(), model.jnt_dofadr[simple].tolist()
        drives = {
            int(model.actuator_trnid[a, 0]): a for a in range(model.nu) if int(model.actuator_trntype[a]) in _TO_JOINTS
        }
        other = set(self._task.command_fields) - {"ctrl"}
        if len(drives) != model.nu or other or model.nu == 0 or int(COMMAND_FIELDS["ctrl"]) == 0:
            what = f"is moved by {', '.join(sorted(other))}" if other else "has actuators that drive no single joint"
            raise UserError(f"{self.task_id}: {what}: joint commands cannot drive it")
        self._actuators = np.array([drives[i] for i in simple if i in drives])
        self.driven = tuple(str(model.joint(i).name) for i in simple if i in drives)
        self._driven_at = [self.joints.index(name) for name in self.driven]

    def _find_gains(self, model: mujoco.MjModel) -> None:
        """The position servos, their gains in the calibrated model, and the range of their controls."""
        a = self._actuators
        gain, bias = model.actuator_gainprm[a], model.actuator_biasprm[a]
        affine = (model.actuator_biastype[a] == int(mujoco.mjtBias.mjBIAS_AFFINE)) & (gain[:, 0] > 0.0)
        self.servo = affine & np.isclose(bias[:, 1], -gain[:, 0])
        self.stiffness, self.damping = np.where(self.servo, gain[:, 0], 0.0), np.where(self.servo, -bias[:, 2], 0.0)
        limited, span = model.actuator_ctrllimited[a].astype(bool), model.actuator_ctrlrange[a]
        self._low, self._high = np.where(limited, span[:, 0], -np.inf), np.where(limited, span[:, 1], np.inf)

    def reset(self) -> None:
        """Begin anew, as an episode of the task does: where that begins, in another world of the same kind."""
        env, a = self._env, torch.as_tensor(self._actuators)
        self._observed = env.reset().policy[0].numpy()
        data = self._engine.data
        self._pos, self._vel = data("qpos")[0].numpy(), data("qvel")[0].numpy()
        self._torque = data("qfrc_actuator")[0].numpy()  # of joints: past the gears
        self._gain, self._bias = (self._engine.field(f"actuator_{key}prm")[0] for key in ("gain", "bias"))
        if self.servo.any():
            # what the world makes of the gains that motors are told
            self._gain_factor, self._damping_factor = (
                np.where(own > 0, found.numpy() / np.maximum(own, 1e-12), 1.0)
                for own, found in ((self.stiffness, self._gain[a, 0]), (self.damping, -self._bias[a, 2]))
            )
            wide = self._engine.field("actuator_ctrlrange")[0]
            wide[a[torch.as_tensor(self.servo)]] = torch.tensor([-_WIDE, _WIDE], dtype=wide.dtype)
        self._steps, self._before = 0, self._vel[:3].copy()
        rest = self._task.command(torch.zeros(1, self._task.action_size))[0].double().numpy()
        self._rest = rest[self._actuators]
        self._control = torch.zeros(1, self._task.model.nu, dtype=torch.float64)
        self.fell = False
        self.hold()

    def hold(self) -> None:
        """The robot's own controller: what an action of zero tells, as a robot that stands and waits."""
        self.drive(Drive(self._rest, np.zeros(len(self._rest)), np.zeros(len(self._rest))))

    def damp(self) -> None:
        """The robot's own safety: its damping and nothing else; no torque where there are no gains."""
        zeros = np.zeros(len(self._rest))
        self.drive(Drive(np.where(self.servo, self._now(), 0.0), zeros, zeros, zeros, self.damping))

    def _now(self) -> Numbers:
        return self._pos[[self._qpos[i] for i in self._driven_at]]

    def drive(self, drive: Drive) -> None:
        """Tell the motors something; it holds until they are told something else."""
        control, a = drive.position.copy(), self._actuators
        if self.servo.any():
            kp = self.stiffness if drive.stiffness is None else drive.stiffness
            kd = self.damping if drive.damping is None else drive.damping
            forward = kd * drive.velocity + drive.torque
            stiff = kp > 0.0
            # The control carries all that may be late: gain * control = kp position + kd velocity + torque.
            gain = np.where(stiff, kp, 1.0)
            position = np.clip(drive.position, self._low, self._high)
            servo = np.where(stiff, position + forward / gain, forward)
            control = np.where(self.servo, servo, control)
            where = a[self.servo]
            factor, damped = self._gain_factor[self.servo], kd * self._damping_factor
            self._gain[where, 0] = torch.as_tensor(gain[self.servo] * factor)
            self._bias[where, 1] = torch.as_tensor(-(kp[self.servo] * factor))
            self._bias[where, 2] = torch.as_tensor(-damped[self.servo])
        self._control[0, a] = torch.as_tensor(control)

    def step(self) -> None:
        """One step of physics, and of everything that happens in time."""
        env, task, engine = self._env, self._task, self._engine
        self._before = self._vel[:3].copy()
        env.rng.set_step(env.steps)
        self._layer.begin_step()
        command = self._control.to(engine.dtype)
        schedule = self._layer.schedule(command)
        if schedule is not None:
            command = schedule[:, 0] if schedule.dim() == 3 else schedule
        engine.write_command(command)
        if self._layer.within_steps:
            self._layer.before_physics()
        engine.step(1)
        if task.within_steps:
            task.after_physics()
        env.steps += 1
        self._steps += 1
        env.rng.set_step(env.steps)
        self._observed = self._layer.measure(task.observe(), None)[0].numpy()
        if self._steps % _LOOK == 0:
            self._look()

    def _look(self) -> None:
        if bool(self._engine.diverged()[0]):
            raise RuntimeError(f"{self.task_id}: the simulation became unstable")
        if self._task.step_stage is not None:
            self._engine.forward(stage=self._task.step_stage)
        self._task.after_step()
        self.fell = bool(self._task.outcome(torch.zeros(1, self._task.action_size)).terminated[0])

    @property
    def time_s(self) -> float:
        """Of the simulation, since it began."""
        return self._steps * self.timestep_s

    def state(self) -> State:
        """What the sensors show now: of what the policy observes, with the world's errors; of the rest, the truth."""
        position, velocity = self._pos[self._qpos].copy(), self._vel[self._qvel].copy()
        torque = self._torque[self._qvel].copy()
        for source in self._sources.joints:
            to = {"position": position, "velocity": velocity, "effort": torque}[source.quantity]
            for name, value in zip(source.joints, self._observed[self._slices[source.component]], strict=True):
                to[self.joints.index(name)] = value
        position += self._stance
        if not self.floating:
            return State(position, velocity, torque, None, np.zeros(3), np.zeros(3))
        turn = matrix(self._pos[3:7])
        gyro = self._vel[3:6].copy()
        felt = turn.T @ ((self._vel[:3] - self._before) / self.timestep_s + np.array([0.0, 0.0, _GRAVITY]))
        for part in self._sources.imu:
            value = self._observed[self._slices[part.component]].astype(np.float64)
            if part.quantity == "gyro":
                gyro = value
            elif part.quantity == "gravity":
                turn = _tilted(turn, value)
            elif part.quantity == "orientation":
                turn = matrix(value / np.linalg.norm(value))
        return State(position, velocity, torque, quaternion(turn), gyro, felt)

    def truth(self) -> dict[str, float]:
        """What nobody can measure on the robot, for whoever judges the run: see `TRUTH`."""
        speed = float(np.abs(self._vel[self._qvel]).max(initial=0.0))
        if not self.floating:
            return dict(zip(TRUTH, (0.0, 0.0, 0.0, 0.0, 1.0, speed), strict=True))
        turn = matrix(self._pos[3:7])
        moves = turn.T @ self._vel[:3]
        return dict(zip(TRUTH, (*moves[:2], self._vel[5], self._pos[2], turn[2, 2], speed), strict=True))


TRUTH = ("forward", "left", "turn_left", "height", "upright", "fastest_joint")
"""Velocity of the trunk in its frame, m/s, and rad/s; its height, m; cosine of its tilt; speed of the fastest joint."""


def _stand_in(task_id: str) -> LoadedPolicy:
    """A policy of a task that does nothing, for worlds to be looked up by."""
    task = make_task(task_id)  # its own message where there is none
    size = task.action_size
    return LoadedPolicy(
        task_id, task_id, lambda seen: torch.zeros(len(seen), size), lambda mask: None, [], None, None
    )  # fmt: skip


def _split(world: World, chance: random.Random) -> tuple[Sampler, dict[str, float]]:
    """The sampler of what happens in the simulation, and the shares of messages that get lost.

    Raises:
        UserError: the world changes a policy's actions, which a robot does not see.
    """
    lost = dict.fromkeys(_OF_MESSAGES.values(), 0.0)
    parameters = list(world.sampler.parameters)
    changes = world.sampler.changes if isinstance(world.sampler, Changing) else ()
    changed = {label for change in changes for label in change.values}
    for parameter in parameters:
        if parameter.quantity in _OF_POLICIES:
            raise UserError(
                f"{world.name}: {parameter.name}: {parameter.quantity} is of a policy's actions, which a robot does "
                "not see; of commands there are action_delay, action_delay_jitter, action_dropout"
            )
        if parameter.name in changed and not _GAINS.isdisjoint(parameter.writes):
            raise UserError(
                f"{world.name}: {parameter.name}: {parameter.quantity} writes gains, which a robot is told in its "
                "commands: it cannot change within an episode; torques can, with actuator_force_range"
            )
    kept: list[Parameter] = [p for p in parameters if p.quantity not in _OF_MESSAGES]
    if len(kept) == len(parameters):
        return world.sampler, lost
    if changes:
        raise UserError(f"{world.name}: drop-outs of messages cannot be in a world that changes within an episode")
    if not isinstance(world.sampler, Manual):
        raise UserError(f"{world.name}: drop-outs of messages are drawn from plain ranges; use sampler: manual")
    for parameter in parameters:
        if parameter.quantity in _OF_MESSAGES:
            what, share = _OF_MESSAGES[parameter.quantity], chance.uniform(*parameter.limits)
            lost[what] = max(lost[what], share)
    return Manual(kept), lost


def _environment(task_id: str, sampler: Sampler, variant: ModelVariant, seed: int) -> Environment:
    """One environment whose control step is a step of physics of 2 ms, or what the world says."""
    task, physics = make_task(task_id), variant.physics
    if physics.timestep is None and physics.timestep_factor is None:
        steps = max(1, round(task.control_period_s * RATE_HZ))
        if steps != task.decimation:
            physics = physics.model_copy(update={"timestep": task.control_period_s / steps})
    stepwise = _StepByStep(physics=physics, model=variant.model)
    env = make_environment(
        task_id, 1, sampler=sampler, explore=False, seed=seed, engine="cpu", threads=1, variant=stepwise
    )
    env.autoreset = False
    return env


def _shown(task: Task, trunk: str) -> Sources:
    """What of a task's observation messages hold."""
    entries = [
        vars(part) | {"shape": [part.size], "relative_to": part.relative_to} for part in task.components("policy")
    ]
    known: list[Mapping[str, Any]] = []
    for entry in entries:
        try:
            found = sources_of([entry])
        except UserError:
            continue
        if not found.imu or (trunk and trunk in {*entry["bodies"], entry["frame"]}):
            known.append(entry)
    return sources_of(known)


def _tilted(turn: Numbers, down: Numbers) -> Numbers:
    """The orientation [3, 3] turned by the least so that gravity points to `down` [3] in its frame."""
    true, seen = -turn[2], down / max(float(np.linalg.norm(down)), 1e-9)
    axis, cosine = np.cross(seen, true), float(seen @ true)
    if cosine < -0.999:
        return turn
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    # Rodrigues: `turn` is turned in its own frame by what takes `seen` to `true`
    return turn @ (np.eye(3) + cross + cross @ cross / (1.0 + cosine))
