"""What a task is: a model, named observation and action components, a reset, a reward, a success test.

A task is written once in torch for N environments. It never asks which engine it runs on, and knows nothing
of learners or randomization.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.common.step_records import Mark
from envs.engines.base import Engine, Stage
from envs.parts.actuator_network import ActuatorNetwork
from envs.parts.kinematics import Chain

Group = Literal["policy", "privileged"]
XYZ = ("x", "y", "z")


@dataclass(frozen=True)
class Component:
    """One named part of the observation: the contract that an exported policy states.

    Attributes:
        name: as configurations and exported policies spell it.
        size: number of values.
        unit: SI unit of the values ("m", "rad/s", "1" for none).
        frame: frame of reference ("world", "base", "joint", ...). Where none is given: "joint" for one value of each of
            `joints`, else "world".
        elements: a name for each value.
        joints: the joints that the values belong to, in order (empty for Cartesian values). Several values of one
            joint are told apart by `elements`.
        bodies: the bodies, sites or geoms measured.
        group: "policy" is what a robot can measure; "privileged" only a simulator knows.
        derived_from: names of components that this one is computed from. Sensor noise belongs to those;
            the task recomputes this one from what was measured.
        measured: False for what comes from no sensor (a goal): sensor noise does not apply to it.
        limits: lowest and highest value, where known.
        description: one line for people.
    """

    name: str
    size: int
    unit: str
    frame: str = ""
    elements: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()
    group: Group = "policy"
    derived_from: tuple[str, ...] = ()
    measured: bool = True
    limits: tuple[float, float] | None = None
    description: str = ""
    relative_to: tuple[float, ...] = ()  # what is subtracted from each value, as a stance from joint angles

    def __post_init__(self) -> None:
        if not self.frame:
            object.__setattr__(self, "frame", "joint" if 0 < self.size == len(self.joints) else "world")


def vector(name: str, unit: str, bodies: Sequence[str], description: str, **more: Any) -> Component:
    """A component of three values, along x, y and z; `more`: of `Component`."""
    return Component(name, 3, unit, elements=XYZ, bodies=tuple(bodies), description=description, **more)


@dataclass(frozen=True)
class InverseKinematics:
    """How steps of a tool become steps of joints: J^T (J J^T + damping^2 1)^-1 step, see `damped_least_squares`.

    Attributes:
        chain: from the frame of the steps to the tool; all its joints are hinges and slides.
        damping: m (and rad).
        unit: of the joints' targets.
    """

    chain: Chain
    damping: float
    unit: str


@dataclass(frozen=True)
class ActionComponent:
    """One named part of the action. A policy puts out values in [-1, 1]; target = offset + scale * value.

    Targets of position controllers state what the controllers on the robot must do, for each value: torque =
    stiffness * (target - angle) - damping * velocity, within +-effort_limit.

    Attributes:
        joints: the joint that each value drives, or of a single value all that it drives.
        actuators: the actuator that each value drives, or of a single value all that it drives.
        target_limits: lowest and highest targets; those beyond are limited to them.
        smoothing: share of the way from the last command to the target that a new command goes; 1 is the target.
        initial_target: the last command when an episode starts, where `smoothing` is below 1: numbers, or the name of
            the observed component that shows it then. None: found out at export, where the actuators can be looked at.
        afterwards: in words, what the task does to the target beyond limits and smoothing ("added to the joint's
            present position", "moves by 0.05 rad per step at most"). The robot has to do the same. What such a task
            sends is not compared with this description.
    """

    name: str
    size: int
    unit: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    elements: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    actuators: tuple[str, ...] = ()
    frame: str = ""
    stiffness: tuple[float, ...] = ()  # N m/rad, or N/m
    damping: tuple[float, ...] = ()  # N m s/rad, or N s/m
    effort_limit: tuple[float, ...] = ()  # N m, or N
    description: str = ""
    target_limits: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    smoothing: float = 1.0
    initial_target: tuple[float, ...] | str | None = None
    afterwards: str = ""
    relative: str | None = None
    inverse: InverseKinematics | None = None

    def __post_init__(self) -> None:
        if not self.frame:
            of_joints = self.inverse is None and 0 < self.size == len(self.joints)
            object.__setattr__(self, "frame", "joint" if of_joints else "world")

    @property
    def sent_size(self) -> int:
        """Number of targets: one for each value, or for each joint that carries the tool."""
        return self.size if self.inverse is None else len(self.inverse.chain.joints)


@dataclass(frozen=True)
class Mirror:
    """A reflection under which a task stays the same: value i of the image is sign[i] * value[index[i]].

    Attributes:
        observation, observation_sign: of the policy group.
        action, action_sign: of the action.
        privileged, privileged_sign: of the task's privileged group; None where it is not said, and then only a policy
            that does not read that group can be kept symmetric.
        exchanged: names of the model's objects that change places, each with the other's; the others stay.
        reversed: quantities whose value changes its sign, as what is added to a coordinate across the plane.
    """

    observation: tuple[int, ...]
    observation_sign: tuple[float, ...]
    action: tuple[int, ...]
    action_sign: tuple[float, ...]
    privileged: tuple[int, ...] | None = None
    privileged_sign: tuple[float, ...] = ()
    exchanged: Mapping[str, str] = field(default_factory=dict[str, str])
    reversed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a control step led to, for N environments."""

    reward: Tensor  # [N]
    terminated: Tensor  # [N] bool; a time limit is not termination
    success: Tensor  # [N] bool
    terms: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # parts of the reward and the like, each [N]
    truncated: Tensor | None = None  # [N] bool, where the task breaks off for reasons of its own; None for nowhere


class Attached:
    """What a task makes in `on_attach`, anew for every engine: it says nothing of the task's options."""


class Fixed(Attached):
    """The same of what never changes afterwards: there is nothing in it to save, or to put back."""


class Task(ABC):
    """A task for N environments; `attach` gives it an engine and random numbers.

    Subclasses set the class attributes below and `model`, and implement the abstract methods.
    """

    id: str
    model: mujoco.MjModel
    observation: tuple[Component, ...]
    action: tuple[ActionComponent, ...]
    decimation: int  # physics steps per control step
    max_episode_steps: int
    command_fields: tuple[str, ...] = ("ctrl",)
    step_stage: Stage | None = None  # stage to bring up to date after stepping; None leaves fields one substep late
    within_steps: bool = False  # whether `after_physics` is to be called after each physics step
    has_success: bool = True  # False: the task measures itself by return alone
    mirror: Mirror | None = None  # where the task is symmetric
    counts_successes: bool = False  # True: by how many successes an episode has, not by how it ends
    goal_size: int = 0  # > 0: a goal task; the last policy component is "desired_goal"
    sequence_length: int = 0  # > 0: every episode has the same sequence of goals, as many; half and full rates are told
    evaluation_options: ClassVar[dict[str, Any]] = {}  # in which `simreal evaluate` plays it, whatever it learnt with
    # What `simreal evaluate` reports beside its table: names of terms, and what to call them. Of a term's name with
    # `_sd` it is the standard deviation over an episode's steps, with `_peak` the largest.
    reported: Mapping[str, str] = MappingProxyType({})
    render_camera: ClassVar[dict[str, Any]] = {}
    # Components that say what is wanted, which somebody may command in the task's place (`simreal view`): of each the
    # name of the attribute [N, k] that holds it, and the largest magnitude of each value. Goals need not be named.
    steered: Mapping[str, tuple[str, Sequence[float]]] = MappingProxyType({})
    accepted: Mapping[str, str] = MappingProxyType({})  # kinds that `simreal check` finds and are meant to be, and why
    # > 0: the ground has levels, from flat to as hard as it gets. Where `terrain_given`, the task takes each episode's
    # difficulty in [0, 1] from `terrain_difficulty` [N], which the quantity of that name has written before `reset`.
    terrain_levels: int = 0
    terrain_given: bool = False
    terrain_difficulty: Tensor
    # What cameras can read beside the observation, and which measured components follow from what they read.
    pictured: tuple[Component, ...] = ()
    read_through: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    actuator: ActuatorNetwork | None = None  # what its actuators exert, where not what the model says; see `make_task`
    state_tensors: tuple[str, ...] = ()  # names of attributes that change during an episode, for `state_dict`

    engine: Engine
    rng: EpisodeRandom

    def attach(self, engine: Engine, rng: EpisodeRandom) -> None:
        """Bind to an engine that runs `self.model`; called once, before the first reset."""
        self.engine = engine
        self.rng = rng
        if self.goal_size:
            self.goal = torch.zeros(engine.num_envs, self.goal_size, dtype=engine.dtype, device=engine.device)
        self.on_attach()

    def make_engine(self, num_envs: int, threads: int | None) -> Engine | None:
        """An engine of N simulations that only this task can make; None for one of simreal's own."""
        return None

    def on_attach(self) -> None:
        """Look up ids and live views of the engine's fields."""
        return None

    def compile_full(self, bodies: Sequence[int]) -> None:
        """Compile the model again, with a full inertia matrix for some bodies; called before `attach`.

        MuJoCo gives a free body whose centre of mass lies at its origin a diagonal matrix, for good. A body whose
        centre of mass is to differ between simulations must not have one.
        """
        raise TypeError(
            f"{self.id} cannot compile its model again; implement compile_full with simreal.compile_spec, docs/tasks.md"
        )

    @property
    def compiles_again(self) -> bool:
        """Whether the task implements `compile_full`."""
        return type(self).compile_full is not Task.compile_full

    @property
    def control_period_s(self) -> float:
        """Time between two policy actions, s."""
        return self.model.opt.timestep * self.decimation

    @property
    def action_size(self) -> int:
        """Values in an action."""
        return sum(c.size for c in self.action)

    @property
    def export_obstacle(self) -> str | None:
        """Why a policy trained on this task is no use to a robot, in words; None if it can be used."""
        return None

    @property
    def hindsight_obstacle(self) -> str | None:
        """Goal tasks: why `goal_reward` cannot be given for any goal, in words; None where it can."""
        return None

    def native_action_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest action [A] of the Gymnasium task that this one equals; [-1, 1] for our own."""
        return -np.ones(self.action_size), np.ones(self.action_size)

    def measured_components(self) -> list[Component]:
        """The components of the policy group that are measured themselves, in order: no goals, nothing derived."""
        return [c for c in self.components("policy") if c.measured and not c.derived_from]

    def components(self, group: Group) -> tuple[Component, ...]:
        """The components of one group, in the order of its flat vector."""
        return tuple(c for c in self.observation if c.group == group)

    def slices(self, group: Group = "policy") -> dict[str, slice]:
        """Where each component lies in its group's flat vector."""
        result: dict[str, slice] = {}
        start = 0
        for component in self.components(group):
            result[component.name] = slice(start, start + component.size)
            start += component.size
        return result

    def before_reset(self, mask: Tensor) -> None:
        """Undo what `reset` wrote to model fields in the environments of `mask` [N], before randomization writes the
        next world there. `reset` then adds to what randomization wrote, so that both have their effect."""
        return None

    @abstractmethod
    def reset(self, mask: Tensor) -> None:
        """Write the initial state of the environments in `mask` [N]; the engine has just reset them to the
        model's defaults and computes derived fields afterwards."""

    def decided(self, action: Tensor) -> None:
        """Take note of the policy's own action [N, A], as the robot's controller knows it. Called first in each control
        step; `command` gets the action after noise, delays and losses."""
        return None

    @abstractmethod
    def command(self, action: Tensor) -> Tensor:
        """The command [N, C] (the fields of `command_fields`, in MuJoCo's order) for actions [N, A] in [-1, 1]."""

    def after_physics(self) -> None:
        """Called when physics has advanced by one step, where `within_steps`."""
        return None

    def after_step(self) -> None:
        """Called when physics has advanced by a control step, before observing."""
        return None

    @abstractmethod
    def observe(self) -> Tensor:
        """Policy group [N, nobs], clean, in component order."""

    def observe_privileged(self) -> Tensor | None:
        """Privileged group [N, nprivileged], or None if the task has none."""
        return None

    def observe_pictured(self) -> dict[str, Tensor]:
        """What `pictured` names, [N, size] each."""
        return {}

    def from_pictures(self, name: str, read: Mapping[str, Tensor]) -> Tensor:
        """A component of `read_through` [n, size], from what pictures showed of those that it names."""
        raise NotImplementedError

    def picture_rule(self, name: str) -> Mapping[str, Any] | None:
        """The same arithmetic as an exported estimator states it (`simreal.deploy.seeing`); None: it cannot."""
        return None

    def derive(self, observation: Tensor) -> Tensor:
        """Recompute components with `derived_from` from the measured ones, in place; returns the observation."""
        return observation

    def after_observe(self, observation: Tensor) -> None:
        """Take note of what the policy is shown [N, nobs], sensors' errors and all: called last of an observation, for
        controllers that act on it too."""
        return None

    @abstractmethod
    def outcome(self, action: Tensor) -> Outcome:
        """Reward, termination and success of the step that ended in the present state."""

    def _missing(self, method: str) -> TypeError:
        """What a goal task lacks, or that it is none."""
        lacks = f"{self.id}: {method} is not implemented, and goal tasks need it"
        return TypeError(lacks if self.goal_size else f"{self.id} is not a goal task")

    def achieved_goal(self) -> Tensor:
        """Goal tasks: the goal [N, G] that the present state reaches."""
        raise self._missing("achieved_goal")

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Goal tasks: reward [...] for goals [..., G]; used to relabel experience."""
        raise self._missing("goal_reward")

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Goal tasks: success [...] (bool) for goals [..., G]."""
        raise self._missing("goal_success")

    def goal_terminated(self, achieved: Tensor, desired: Tensor) -> Tensor | None:
        """Goal tasks: whether an episode ends [...] (bool) because `achieved` reaches `desired`, goals [..., G]; zeros
        where goals end none. Ends for other reasons, such as a fall, do not count. Used to relabel experience.

        None: not stated. Learners with hindsight then find out by experiment, and refuse where it does not show.
        """
        return None

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, index: int) -> Sequence[Mark] | None:
        """Show environment `index`'s goal in a model and data made for rendering: move what is there, or return marks
        that pictures and videos for people show beside it."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """All that changes during an episode: the tensors that `state_tensors` names, and the goal of a goal task."""
        names = (*self.state_tensors, *(("goal",) if self.goal_size else ()))
        return {name: getattr(self, name).clone() for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name in (*self.state_tensors, *(("goal",) if self.goal_size else ())):
            getattr(self, name).copy_(state[name])


SpecEdit = Callable[[mujoco.MjSpec], None]
_spec_edits: ContextVar[tuple[SpecEdit, ...]] = ContextVar("spec_edits", default=())


@contextmanager
def editing_specs(edit: SpecEdit) -> Generator[None]:
    """Within the block, every specification that `compile_spec` gets is edited first: for models that differ from
    the task's own in their parts. A hashable edit spares tasks that cache their models from compiling twice."""
    token = _spec_edits.set((*_spec_edits.get(), edit))
    try:
        yield
    finally:
        _spec_edits.reset(token)


def spec_edits() -> tuple[SpecEdit, ...]:
    """The edits in force; a task that caches what it compiles keeps one for each."""
    return _spec_edits.get()


def compile_spec(spec: mujoco.MjSpec, full: Sequence[int] = ()) -> mujoco.MjModel:
    """Compile a specification, with full inertia matrices for the bodies `full` (indices in the model)."""
    for edit in spec_edits():
        edit(spec)
    model = spec.compile()
    if not full:
        return model
    for body in spec.bodies:
        if body.id in full:
            body.simple = 0
    return spec.compile()


def id_of(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    """Index of a named object. Raises ValueError for an unknown name."""
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        raise ValueError(f"the model has no {kind.name.removeprefix('mjOBJ_').lower()} named {name!r}")
    return index
