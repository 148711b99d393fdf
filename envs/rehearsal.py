"""A few control steps of a task on an engine of its own, to see what it does with actions and what it shows.

The task at work is not touched: what is stepped is a copy of it, with simulations and random numbers of its own.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.cpu_engine import CpuEngine
from envs.rng import EpisodeRandom
from envs.task import Group, Task

ROWS = 3  # simulations, each with episodes of its own
_EPISODES = 2  # the second begins where the first was left
_WIDTH = 0.6  # of usual actions
_EXTREMES = {2: 1.0, 5: -1.0}  # steps with actions at the ends of their range, and the sign of the first value
_ZERO, _STEPS = 4, 10
AGAIN = (1, _STEPS - 1)  # two steps with the same action
USUAL = [t for t in range(1, _STEPS) if t not in _EXTREMES and t != _ZERO]  # steps that follow one and stay in range


@dataclass(frozen=True)
class Episode:
    """What was done, and what it led to. T steps of N simulations; observations and coordinates are T + 1."""

    action: np.ndarray  # [T, N, A], the same in all simulations
    ctrl: np.ndarray  # [T, N, nu] what `command` wrote
    held: np.ndarray  # [N, nu] what `reset` left there
    qpos: np.ndarray  # [T + 1, N, nq]
    qvel: np.ndarray  # [T + 1, N, nv]
    seen: dict[Group, np.ndarray]  # [T + 1, N, size of the group]


def rehearse(task: Task) -> list[Episode]:
    """Episodes of a task, without simulations that became unstable.

    Returns an empty list for tasks with engines of their own, and where the copy cannot run: what is wrong then will
    be said by the task at work.
    """
    if type(task).make_engine is not Task.make_engine:
        return []
    try:
        with _own_random_numbers(), torch.no_grad():
            return _play(_copy(task))
    except Exception:  # a task may raise anything
        return []


def rehearsed_actions(size: int) -> Tensor:
    """Actions [T, A] float32 of both signs that differ between values and steps; zero in one, extreme in two."""
    t, j = torch.meshgrid(torch.arange(1.0, _STEPS + 1), torch.arange(1.0, size + 1), indexing="ij")
    spread = torch.frac(0.618034 * t + 0.754878 * j + 0.569840 * t * j)
    action = _WIDTH * (2.0 * spread - 1.0)
    action[_ZERO] = 0.0
    for step, sign in _EXTREMES.items():
        action[step] = sign * (1.0 - 2.0 * (torch.arange(size) % 2))
    action[AGAIN[1]] = action[AGAIN[0]]
    return action


def _copy(task: Task) -> Task:
    """A task of the same class and attributes, to be attached to another engine. Models are shared."""
    twin, attributes = object.__new__(type(task)), dict(vars(task))
    engine = attributes.pop("engine", None)
    attributes.pop("rng", None)
    memo: dict[int, Any] = {id(engine): engine, id(task): twin}
    memo |= {id(value): value for value in attributes.values() if isinstance(value, mujoco.MjModel)}
    for name, value in attributes.items():
        try:
            vars(twin)[name] = copy.deepcopy(value, memo)
        except Exception:  # something that cannot be copied, as an open file
            vars(twin)[name] = value
    return twin


def _play(task: Task) -> list[Episode]:
    engine = CpuEngine(task.model, ROWS, threads=1)
    rng = EpisodeRandom(0, ROWS, engine.device)
    task.attach(engine, rng)
    engine.use_commands(task.command_fields)
    sound = torch.ones(ROWS, dtype=torch.bool)
    played = []
    for _ in range(_EPISODES):
        played.append(_episode(task, engine, rng))
        sound &= ~engine.diverged()
    rows = sound.numpy()
    if not rows.any():
        return []
    return [
        Episode(
            e.action[:, rows], e.ctrl[:, rows], e.held[rows], e.qpos[:, rows], e.qvel[:, rows],
            {group: values[:, rows] for group, values in e.seen.items()},
        )
        for e in played
    ]  # fmt: skip


def _episode(task: Task, engine: CpuEngine, rng: EpisodeRandom) -> Episode:
    """One episode, begun and stepped as `Environment` does it."""
    everywhere, steps = torch.ones(ROWS, dtype=torch.bool), torch.zeros(ROWS, dtype=torch.int64)
    rng.next_episode(everywhere)
    engine.reset(everywhere)
    task.before_reset(everywhere)
    task.reset(everywhere)
    engine.forward(everywhere)
    rng.set_step(steps)
    held = _array(engine.data("ctrl"))
    shown = [_look(task, engine)]
    controls, actions = [], rehearsed_actions(task.action_size)
    for action in actions:
        engine.refresh_written()
        rng.set_step(steps)
        everyone = action.repeat(ROWS, 1)
        task.decided(everyone.clone())
        engine.write_command(task.command(everyone.clone()))
        controls.append(_array(engine.data("ctrl")))
        engine.step(task.decimation)
        task.after_step()
        steps += 1
        task.outcome(everyone.clone())
        rng.set_step(steps)
        shown.append(_look(task, engine))
    qpos, qvel, policy, privileged = zip(*shown, strict=True)
    seen: dict[Group, np.ndarray] = {"policy": np.stack(policy)}
    if privileged[0] is not None:
        seen["privileged"] = np.stack([values for values in privileged if values is not None])
    action = _array(actions[:, None].expand(-1, ROWS, -1))
    return Episode(action, np.stack(controls), held, np.stack(qpos), np.stack(qvel), seen)


def _look(task: Task, engine: CpuEngine) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    observation, privileged = task.observe(), task.observe_privileged()
    return (
        _array(engine.data("qpos")), _array(engine.data("qvel")), _array(observation),
        None if privileged is None else _array(privileged),
    )  # fmt: skip


def _array(values: Tensor) -> np.ndarray:
    return values.detach().to(torch.float64).numpy().copy()


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave the random numbers of torch, NumPy and Python as they were, for tasks that draw from them."""
    state, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numbers)  # noqa: NPY002
