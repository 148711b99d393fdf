"""Changes of a model that no randomized parameter makes: other numerics, backlash, a payload."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import numpy as np
from pydantic import Field

from envs.common.messages import listed, nearest
from envs.engines.backlash_joints import AddBacklashJoints, carry_over, geared_joints, set_backlash
from envs.engines.histories import KeepDelays, delays, shortened_delay, state_delays
from envs.engines.stability import explicit_damping
from envs.task import SpecEdit, Task, editing_specs
from randomization.targets.names import matching, object_places, patterns_of
from simreal.common.errors import UserError
from simreal.training.run_config import Strict

_CHOICES = {
    "integrator": {
        "Euler": mujoco.mjtIntegrator.mjINT_EULER,
        "RK4": mujoco.mjtIntegrator.mjINT_RK4,
        "implicit": mujoco.mjtIntegrator.mjINT_IMPLICIT,
        "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    },
    "solver": {
        "PGS": mujoco.mjtSolver.mjSOL_PGS,
        "CG": mujoco.mjtSolver.mjSOL_CG,
        "Newton": mujoco.mjtSolver.mjSOL_NEWTON,
    },
    "cone": {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC},
}


class ModelVariantError(UserError):
    """A variant that a task's model does not allow, or to which it would change nothing."""


class Physics(Strict):
    """Numerical settings of a world: timestep, integrator, solver. A setting left out keeps the task's value."""

    timestep: float | None = Field(
        None, ge=1e-6, description="s; the control period stays and must be a multiple of it"
    )
    timestep_factor: float | None = Field(
        None, ge=1e-3, description="timestep as a factor, rounded so that it divides the control period"
    )
    integrator: Literal["Euler", "RK4", "implicit", "implicitfast"] | None = None
    solver: Literal["PGS", "CG", "Newton"] | None = None
    cone: Literal["pyramidal", "elliptic"] | None = Field(None, description="of friction")
    impratio: float | None = Field(None, gt=0, description="friction's impedance in units of the normal force's")
    iterations: int | None = Field(None, ge=1, description="most iterations of the solver")
    noslip_iterations: int | None = Field(None, ge=0)


class Payload(Strict):
    """A mass welded to a body, small enough to be a point."""

    body: str
    mass: float = Field(gt=0, description="kg")
    pos: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="m, in the body's frame")


class GearBacklash(Strict):
    """Backlash in driven joints: each gets a second joint between motor and link (`envs.engines.backlash_joints`)."""

    play: float = Field(gt=0, description="rad or m by which the link may lag to either side of its motor")
    of: str | tuple[str, ...] = Field("*", description="names or patterns of driven joints")


class PartsVariant(Strict):
    """Parts that a world adds to the model."""

    payload: Payload | None = None
    backlash: GearBacklash | None = None


class ModelVariant(Strict):
    """How a world's model differs from the task's."""

    physics: Physics = Physics()  # pyright: ignore[reportCallIssue]
    model: PartsVariant = PartsVariant()

    def apply(
        self, task: Task, remake: Callable[[], Task], full: Sequence[int] = (), shortest: float = 1.0
    ) -> mujoco.MjModel:
        """Change a task that no engine has yet, and make the model that the engine has to run.

        Args:
            task: gets a model of its own, and another decimation where the timestep changes.
            remake: makes a new instance of the task, for a model with other parts.
            full: bodies that must keep a full inertia matrix, see `Task.compile_full`.
            shortest: the shortest timestep that a world may have, as a factor on the model's.

        Returns:
            `task.model`; with backlash another one, to be shown to the task by a `BacklashJointEngine`.

        Raises:
            ModelVariantError: naming what is missing in the model, and the names that it has.
        """
        full = self._compiled_for_payload(task, full)
        options = _Options.of(self.physics, task)
        shortest_s = options.timestep_s * shortest
        if shortened_delay(task.model, shortest_s):
            task.model = _remade(remake, full, KeepDelays.of(task.model, shortest_s)).model
            if short := shortened_delay(task.model, shortest_s):
                raise ModelVariantError(f"physics: {task.id} cannot have this timestep: {short}")
        task.model = copy.copy(task.model)
        state_delays(task.model, delays(task.model))
        options.write(task.model)
        task.decimation = options.decimation
        _refuse_unstable(self.physics, task)
        model = self._with_backlash_joints(task, remake, full, shortest_s)
        if model is not None:
            options.write(model)
        if self.model.payload is not None:
            for each in [task.model] if model is None else [task.model, model]:
                _add_payload(task.id, each, _body(task, self.model.payload.body), self.model.payload)
        return task.model if model is None else model

    def _compiled_for_payload(self, task: Task, full: Sequence[int]) -> Sequence[int]:
        """MuJoCo gives some bodies a diagonal inertia for good; a payload off their centre needs a full one.

        Returns the bodies that have one.
        """
        payload = self.model.payload
        if payload is None:
            return full
        body = _body(task, payload.body)
        if task.model.body_simple[body] and tuple(task.model.body_ipos[body]) != payload.pos:
            full = sorted({*full, body})
            task.compile_full(full)
        return full

    def _with_backlash_joints(
        self, task: Task, remake: Callable[[], Task], full: Sequence[int], shortest_s: float
    ) -> mujoco.MjModel | None:
        """A model with joints for backlash, or None."""
        backlash = self.model.backlash
        if backlash is None:
            return None
        joints = _matching(task, patterns_of(backlash.of))
        edits: list[SpecEdit] = [AddBacklashJoints.to(task.model, joints)]
        if delays(task.model):
            edits.append(KeepDelays.of(task.model, shortest_s))
        try:
            model = copy.copy(_remade(remake, full, *edits).model)
            if set_backlash(model, backlash.play) == len(joints):
                carry_over(task.model, model)
                return model
        except (ValueError, TypeError) as error:
            why = str(error).splitlines()[0]
            raise ModelVariantError(
                f"model.backlash: {task.id} cannot be made with joints that it does not know: {why}"
            ) from None
        raise ModelVariantError(
            f"model.backlash: {task.id} compiles its model in a way that cannot be edited; make it with "
            "simreal.compile_spec(mujoco.MjSpec.from_file(...)), see docs/tasks.md"
        )


def _remade(remake: Callable[[], Task], full: Sequence[int], *edits: SpecEdit) -> Task:
    """A new instance of the task, whose model specification got the edits before it was compiled."""
    with ExitStack() as stack:
        for edit in edits:
            stack.enter_context(editing_specs(edit))
        other = remake()
        if full:
            other.compile_full(full)
    return other


def _matching(task: Task, patterns: Iterable[str]) -> list[str]:
    names = geared_joints(task.model)
    if not names:
        raise ModelVariantError(f"model.backlash: {task.id} has no joint that an actuator drives")
    found: list[str] = []
    for pattern in patterns:
        hits = matching(pattern, names)
        if not hits:
            raise ModelVariantError(
                f"model.backlash.of: no driven joint matches {pattern!r}{nearest(pattern, names)}; "
                f"{task.id} has: {listed(names)}"
            )
        found += [hit for hit in hits if hit not in found]
    return found


def _body(task: Task, name: str) -> int:
    places = object_places(task, "body")
    if name not in places:
        raise ModelVariantError(
            f"model.payload.body: no body {name!r}{nearest(name, places)}; {task.id} has: {listed(places)}"
        )
    return places[name]


@dataclass(frozen=True)
class _Options:
    """Options to write to a model, and the physics steps per control step that go with them."""

    values: dict[str, Any]
    timestep_s: float
    decimation: int

    @classmethod
    def of(cls, physics: Physics, task: Task) -> _Options:
        """Raises ModelVariantError where options are asked for and all of them are as the task has them."""
        option = task.model.opt
        given = physics.model_dump(exclude_none=True, exclude={"timestep", "timestep_factor"})
        wanted = {key: int(_CHOICES[key][value]) if key in _CHOICES else value for key, value in given.items()}
        decimation = _decimation(physics, task)
        same = decimation == task.decimation and all(getattr(option, key) == value for key, value in wanted.items())
        if same and physics != Physics():  # pyright: ignore[reportCallIssue]
            stated = ", ".join(f"{key} {value}" for key, value in physics.model_dump(exclude_none=True).items())
            raise ModelVariantError(f"physics: changes nothing, {task.id} has it already: {stated}")
        kept = decimation == task.decimation
        return cls(wanted, float(option.timestep) if kept else task.control_period_s / decimation, decimation)

    def write(self, model: mujoco.MjModel) -> None:
        for key, value in self.values.items():
            setattr(model.opt, key, value)
        model.opt.timestep = self.timestep_s


def _refuse_unstable(physics: Physics, task: Task) -> None:
    """Refuse integrators and timesteps under which damping, which they treat explicitly, makes the model explode."""
    if physics.integrator is None and physics.timestep is None and physics.timestep_factor is None:
        return
    rate, most, joint = explicit_damping(task.model)
    if rate > most:
        key = "integrator" if physics.integrator else "timestep" if physics.timestep else "timestep_factor"
        raise ModelVariantError(
            f"physics.{key}: {task.id} would be unstable: its integrator treats the damping of {joint} explicitly, "
            f"and a physics step of {task.model.opt.timestep:g} s is {rate / most:.3g} times the longest that it allows"
        )


def _decimation(physics: Physics, task: Task) -> int:
    """Physics steps per control step."""
    period_s, before = task.control_period_s, task.decimation
    if physics.timestep is not None and physics.timestep_factor is not None:
        raise ModelVariantError("physics.timestep_factor: give either it or timestep")
    if physics.timestep_factor is not None:
        return max(1, round(before / physics.timestep_factor))
    if physics.timestep is None:
        return before
    steps = max(1, round(period_s / physics.timestep))
    if abs(steps * physics.timestep - period_s) > 1e-9 * period_s:
        raise ModelVariantError(
            f"physics.timestep: {physics.timestep:g} s does not divide the control period of {task.id}, "
            f"{period_s:g} s; nearest: {period_s / steps:g}"
        )
    return steps


def _add_payload(task_id: str, model: mujoco.MjModel, body: int, payload: Payload) -> None:
    """Weld a point mass to a body: masses add up, moments do about the common centre (parallel axes)."""
    if model.body_dofnum[model.body_weldid[body]] == 0 or model.body_weldid[body] == 0:
        raise ModelVariantError(f"model.payload.body: {payload.body} of {task_id} cannot move; name one that does")
    mass, own = float(model.body_mass[body]), model.body_ipos[body].copy()
    total, at = mass + payload.mass, np.asarray(payload.pos)
    centre = (mass * own + payload.mass * at) / total
    if not np.array_equal(own, at):
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.body_iquat[body])
        turn = turn.reshape(3, 3)
        inertia = turn @ np.diag(model.body_inertia[body]) @ turn.T
        inertia += _point_inertia(mass, own - centre) + _point_inertia(payload.mass, at - centre)
        moments, axes = np.linalg.eigh(inertia)
        if np.linalg.det(axes) < 0:
            axes[:, 0] *= -1.0
        model.body_inertia[body] = moments
        mujoco.mju_mat2Quat(model.body_iquat[body], axes.ravel())
        model.body_ipos[body] = centre
        model.body_sameframe[body] = 0  # the centre of mass is no longer where MuJoCo's shortcuts expect it
    model.body_mass[body] = total
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _point_inertia(mass: float, offset: np.ndarray) -> np.ndarray:
    """Inertia [3, 3] about the origin of a point mass at `offset` [3]."""
    return mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))
