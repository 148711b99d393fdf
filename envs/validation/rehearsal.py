"""A few control steps of a task on an engine of its own, to see what it does with actions and what it shows.

The task at work is not touched: what is stepped is a copy of it, with simulations and random numbers of its own.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.engines.cpu import CpuEngine
from envs.task import Group, Task
from envs.task_state import random_numbers_kept

ROWS = 3  # simulations, each with episodes of its own
_EPISODES = 2  # the second begins where the first was left
_WIDTH = 0.6  # of usual actions
_EXTREMES = {2: 1.0, 5: -1.0}  # steps with actions at the ends of their range, and the sign of the first value
_ZERO, _STEPS = 4, 10
AGAIN = (1, _STEPS - 1)  # two steps with the same action
USUAL = [t for t in range(1, _STEPS) if t not in _EXTREMES and t != _ZERO]  # steps that follow one and stay in range


@dataclass(frozen=True)
class Rehearsal:
    """What was done in E episodes of T steps of N simulations, and what it led to.

    Attributes:
        action: [E, T, N, A] the same in all simulations.
        ctrl: [E, T, N, nu] what `command` wrote.
        held: [E, N, nu] what `reset` left there.
        qpos, qvel: [E, T + 1, N, nq] and [E, T + 1, N, nv].
        seen: [E, T + 1, N, size of the group] by group.
    """

    action: np.ndarray
    ctrl: np.ndarray
    held: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray
    seen: dict[Group, np.ndarray]


def rehearse(task: Task) -> Rehearsal | None:
    """Play episodes of a copy of a task, without simulations that become unstable.

    Returns None for tasks with engines of their own, and where the copy cannot run: the task at work then meets the
    error that says why.
    """
    if type(task).make_engine is not Task.make_engine:
        return None
    try:
        with random_numbers_kept(), torch.no_grad():
            return _play(_copy(task))
    except Exception:  # a task may raise anything
        return None


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


def _play(task: Task) -> Rehearsal | None:
    engine = CpuEngine(task.model, ROWS, threads=1)
    rng = EpisodeRandom(0, ROWS, engine.device)
    task.attach(engine, rng)
    engine.use_commands(task.command_fields)
    episodes, sound = [], torch.ones(ROWS, dtype=torch.bool)
    for _ in range(_EPISODES):
        episodes.append(_episode(task, engine, rng))
        sound &= ~engine.diverged()
    if not sound.any():
        return None
    all_of = {name: torch.stack([e[name] for e in episodes])[..., sound, :].numpy() for name in episodes[0]}
    groups: tuple[Group, ...] = ("policy", "privileged")
    seen: dict[Group, np.ndarray] = {group: all_of[group] for group in groups if group in all_of}
    return Rehearsal(all_of["action"], all_of["ctrl"], all_of["held"][:, 0], all_of["qpos"], all_of["qvel"], seen)


def _episode(task: Task, engine: CpuEngine, rng: EpisodeRandom) -> dict[str, Tensor]:
    """One episode, begun and stepped as `Environment` does it: records [how often noted, N, ...] by name."""
    noted: dict[str, list[Tensor]] = defaultdict(list)

    def note(**values: Tensor | None) -> None:
        for name, value in values.items():
            if value is not None:
                noted[name].append(value.detach().to(torch.float64, copy=True))

    def look() -> None:
        observed = {"policy": task.observe(), "privileged": task.observe_privileged()}
        task.after_observe(observed["policy"].clone())
        note(**observed, qpos=engine.data("qpos"), qvel=engine.data("qvel"))

    everywhere, steps = torch.ones(ROWS, dtype=torch.bool), torch.zeros(ROWS, dtype=torch.int64)
    rng.next_episode(everywhere)
    engine.reset(everywhere)
    task.before_reset(everywhere)
    task.reset(everywhere)
    engine.forward(everywhere)
    rng.set_step(steps)
    note(held=engine.data("ctrl"))
    look()
    for action in rehearsed_actions(task.action_size):
        engine.refresh_written()
        rng.set_step(steps)
        everyone = action.repeat(ROWS, 1)
        task.decided(everyone.clone())
        engine.write_command(task.command(everyone.clone()))
        note(action=everyone, ctrl=engine.data("ctrl"))
        engine.step(task.decimation)
        if task.step_stage is not None:
            engine.forward(stage=task.step_stage)
        task.after_step()
        steps += 1
        task.outcome(everyone.clone())
        rng.set_step(steps)
        look()
    return {name: torch.stack(values) for name, values in noted.items()}
