"""Looks for silent no-ops: quantities that a configuration may name, without a word, though they change nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from conftest import FixedWorlds, TinyTask, build
from envs.common.messages import warn_again
from envs.environment import Environment
from envs.task import Task
from randomization.catalogue.quantity import Quantity
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import Parameter, RandomizationError, build_parameters
from randomization.randomizer import DomainRandomizer
from randomization.targets.names import object_places

_SEEN = 1e-11  # what counts as a difference: rounding is smaller, and the runs are short
_CHANCES = 100  # environments of one world, where chance decides whether anything happens: 0.95 ** 100 = 0.006
_PHYSICS_STEPS, _CONTROL_STEPS = 40, 30
# How far from the start, how fast, and how much higher free bodies begin.
_STATES = ((0.0, 1.0, 0.0), (0.3, 3.0, 0.0), (3.0, 3.0, 0.0), (0.0, 0.01, 0.0012), (0.05, 10.0, 0.0)) + 5 * (
    (3.0, 1.0, 0.0),
)


@dataclass
class Asked:
    """One name for one quantity, which was accepted without a word."""

    name: str
    parameters: list[Parameter]  # the quantity's own first, then what it needs


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        assert said.startswith("warning: "), said
        self.messages.append(said.removeprefix("warning: "))


@contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """What simreal warns of within the block, repeated warnings included."""
    handler, logger = _Heard(), logging.getLogger("simreal")
    warn_again()
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)


def accepted(task: Task, quantity: Quantity, only: Sequence[str] | None = None) -> list[Asked]:
    """The names (all of the kind, or `only` these) that a quantity takes without refusal or warning."""
    names: Sequence[str] = ("",) if quantity.target == "none" else only or list(object_places(task, quantity.target))
    found: list[Asked] = []
    for name in names:
        entries: dict[str, Any] = {quantity.name: {"of": name} if name else {}}
        if quantity.needs:
            needed = QUANTITIES[quantity.needs]
            entries[needed.name] = {"of": name} if needed.target == quantity.target and name else {}
        with warnings_heard() as heard:
            try:
                parameters = build_parameters(task, entries)
            except RandomizationError:
                continue
        index = 0 if not name else object_places(task, quantity.target)[name]
        if not heard and not quantity.multiplies_zero(task.model, index):  # refused where the world is written
            found.append(Asked(name, parameters))
    return found


def ends(quantity: Quantity) -> list[float]:
    """The ends of a default range that are not the nominal value."""
    return [end for end in quantity.default_range if end != quantity.nominal]


def silent(task: Task, quantity: Quantity, seeds: int = len(_STATES), only: Sequence[str] | None = None) -> list[str]:
    """The names of a task that a quantity takes without a word and of which neither end of its range changes anything.

    Args:
        task: fresh, not attached.
        quantity: of any channel but the visual one.
        seeds: how many random states and commands are tried.
        only: names to try, all where left out.
    """
    asked = accepted(task, quantity, only)
    if not asked:
        return []
    left = {one.name for one in asked}
    run = _moves if quantity.channel == "physics" else _acts
    for seed in range(seeds if run is _moves else 2):
        chosen = [one for one in asked if one.name in left]
        if not chosen:
            break
        left -= run(task, quantity, chosen, seed)
    return sorted(left)


def _worlds(
    quantity: Quantity, asked: list[Asked], chances: int
) -> tuple[list[Parameter], list[list[float]], list[str | None]]:
    """Parameters of all names, the worlds [environments, parameters], and whose each is (None: the nominal one)."""
    parameters = [p for one in asked for p in one.parameters]
    labelled = [Parameter(**{**vars(p), "name": f"p{i}"}) for i, p in enumerate(parameters)]
    nominal = [p.nominal if QUANTITIES[p.quantity].nominal != 0 else 0.0 for p in parameters]
    nominal = [min(max(n, p.limits[0]), p.limits[1]) for n, p in zip(nominal, parameters, strict=True)]
    rows, column = [list(nominal)], 0
    whose: list[str | None] = [None]
    for one in asked:
        for end in ends(quantity):
            world = list(nominal)
            world[column] = end
            for extra, needed in enumerate(one.parameters[1:], start=1):
                world[column + extra] = needed.limits[1]
            rows += [world] * chances
            whose += [one.name] * chances
        column += len(one.parameters)
    return labelled, rows, whose


def _environment(task: Task, labelled: list[Parameter], rows: list[list[float]]) -> Environment:
    return build(task, len(rows), DomainRandomizer(FixedWorlds(labelled, rows)))


def _moves(task: Task, quantity: Quantity, asked: list[Asked], seed: int) -> set[str]:
    """Names whose world moves otherwise than the nominal one from one random state under the same controls."""
    labelled, rows, whose = _worlds(quantity, asked, 1)
    env = _environment(_again(task), labelled, rows)
    engine, model, rng = env.engine, env.engine.model, np.random.default_rng(seed)
    _excite(env, model, rng, seed)
    shown = ["qpos", "qvel", "act"] + (["xpos"] if quantity.name.startswith("body_pos") else [])
    shown = [name for name in shown if engine.data(name)[0].numel()]
    differs = torch.zeros(len(rows), dtype=torch.bool)
    ctrl = engine.data("ctrl")
    for step in range(_PHYSICS_STEPS):
        if step % 10 == 0 and model.nu:
            ctrl[:] = torch.as_tensor(_controls(model, rng, step))
        engine.step(1)
        for name in shown:
            differs |= _different(engine.data(name))
    return {name for name, yes in zip(whose, differs.tolist(), strict=True) if yes and name is not None}


def _different(values: Tensor) -> Tensor:
    """Environments [N] whose values [N, ...] are not those of the first."""
    flat = values.reshape(len(values), -1)
    return ((flat - flat[:1]).abs() > _SEEN).any(dim=1)


def _controls(model: mujoco.MjModel, rng: np.random.Generator, step: int) -> np.ndarray:
    """Random controls within their ranges, large ones (at which forces reach their limits) and small ones in turn."""
    low, high = model.actuator_ctrlrange[:, 0], model.actuator_ctrlrange[:, 1]
    size = (1.0, 0.3, 0.05, 0.005)[step // 10 % 4]
    share = rng.uniform(size=model.nu)
    unlimited = (2.0 * share - 1.0) * 10.0 * size
    within = np.clip(0.0, low, high) + size * (low + share * (high - low) - np.clip(0.0, low, high))
    return np.where(high > low, within, unlimited)


def _excite(env: Environment, model: mujoco.MjModel, rng: np.random.Generator, seed: int) -> None:
    """Put all environments in one random state: near the start at first, then farther and faster, beyond limits."""
    reach, speed, lift = _STATES[seed % len(_STATES)]
    qpos = env.engine.data("qpos")[0].numpy().copy()
    moved = rng.uniform(-reach, reach, model.nv)
    for joint in np.flatnonzero(model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE)):
        dof = model.jnt_dofadr[joint]
        moved[dof : dof + 3] *= 0.01  # so that what touches still does
        moved[dof + 2] += lift
        if reach > 1.0:  # against a shape chosen at random
            address = model.jnt_qposadr[joint]
            qpos[address : address + 3] = _beside(model, qpos, int(model.jnt_bodyid[joint]), rng)
    mujoco.mj_integratePos(model, qpos, moved, 1.0)
    env.engine.data("qpos")[:] = torch.as_tensor(qpos)
    env.engine.data("qvel")[:] = torch.as_tensor(rng.normal(size=model.nv) * speed)
    pull = rng.normal(size=(model.nbody, 6)) * speed  # as a task or a hand may
    env.engine.data("xfrc_applied")[:, 1:] = torch.as_tensor(pull[1:])
    env.engine.forward()


def _beside(model: mujoco.MjModel, qpos: np.ndarray, body: int, rng: np.random.Generator) -> np.ndarray:
    """A place for a free body near the surface of another body's shape."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    geom = int(rng.choice(np.flatnonzero(model.geom_bodyid != body)))
    own = float(model.geom_rbound[model.geom_bodyid == body].max()) if (model.geom_bodyid == body).any() else 0.1
    direction = rng.normal(size=3)
    extent = np.where(model.geom_size[geom] > 0, model.geom_size[geom], model.geom_size[geom, 0])
    if int(model.geom_type[geom]) == int(mujoco.mjtGeom.mjGEOM_PLANE):
        direction, extent = np.array([0.0, 0.0, 1.0]), np.zeros(3)
    direction /= np.linalg.norm(direction)
    turned = data.geom_xmat[geom].reshape(3, 3) @ (np.clip(2.0 * direction, -1.0, 1.0) * extent)
    return data.geom_xpos[geom] + turned + 0.7 * own * direction


def _acts(task: Task, quantity: Quantity, asked: list[Asked], seed: int) -> set[str]:
    """Names whose worlds move or are measured otherwise than nominal ones under the same actions and chance."""
    found: set[str] = set()
    for one in asked:
        nominal, *others = _worlds(quantity, [one], 1)[1]
        if len(nominal) > 1:  # what the quantity needs is there in both
            nominal = [nominal[0], *others[0][1:]]
        for world in others:
            calm = _observations(task, one, [nominal] * _CHANCES, seed)
            shown = _observations(task, one, [world] * _CHANCES, seed)
            if any(bool(((a - b).abs() > _SEEN).any()) for a, b in zip(calm, shown, strict=False)):
                found.add(one.name)
                break
    return found


def _observations(task: Task, one: Asked, worlds: list[list[float]], seed: int) -> Iterator[Tensor]:
    """What policies are shown in these worlds after each control step of random actions."""
    env = _environment(_again(task), _worlds(QUANTITIES[one.parameters[0].quantity], [one], 1)[0], worlds)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_CONTROL_STEPS):
        action = 2.0 * torch.rand(1, env.task.action_size, generator=generator, dtype=torch.float64) - 1.0
        env.step(action.expand(env.num_envs, -1).clone())
        yield env.observed.policy.clone()


def _again(task: Task) -> Task:
    """A task that no engine has yet."""
    if isinstance(task, TinyTask):
        return TinyTask(task.xml, task.decimation, task.max_episode_steps, task.spread, task.terminate_above)
    return type(task)()
