"""Whatever tensors a task returns, results are those of their step and stay so."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import build, manual_layer
from envs.environment import Environment
from envs.task import ActionComponent, Component, Outcome, Task
from randomization.catalogue.timing_and_noise import EFFECTS
from simreal.gym.vector import VecEnv
from simreal.training.build import make_learner
from simreal.training.run_config import RunConfig

MODEL = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <body name="cart"><joint name="slide" type="slide" axis="1 0 0"/><geom size="0.05" mass="1"/></body>
    <body name="ball" pos="0 3 0"><freejoint/><geom size="0.05" mass="1"/></body>
  </worldbody>
  <actuator><motor name="motor" joint="slide" gear="5" forcerange="-2 2"/></actuator>
</mujoco>
"""
N = 3


class Sharing(Task):
    """Returns the engine's tensors ("engine"), buffers that it uses again ("buffer"), or new tensors ("new")."""

    id, decimation, max_episode_steps = "sharing", 2, 4
    goal_size = 1

    def __init__(self, way: str) -> None:
        self.way = way
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.observation = (
            Component("x", 1, "m"),
            Component("desired_goal", 1, "m", measured=False),
            Component("v", 1, "m/s", group="privileged"),
        )
        self.action = (ActionComponent("force", 1, "N", (5.0,), (0.0,)),)
        self.buffers: dict[str, Tensor] = {}

    def on_attach(self) -> None:
        self.qpos, self.qvel = self.engine.data("qpos"), self.engine.data("qvel")
        self.shown = torch.zeros(self.engine.num_envs, 2, dtype=torch.float64)

    def reset(self, mask: Tensor) -> None:
        self.qpos[mask, 0] = 7.0
        if self.goal_size:
            self.goal[mask] = self.rng.episode_uniform("goal", 1)[mask]

    def command(self, action: Tensor) -> Tensor:
        action *= 0.5  # what a task does to what it was given is its own business
        return self._returned("command", action.double())

    def observe(self) -> Tensor:
        if not self.goal_size:
            return self._returned("observe", self.qpos[:, :1])
        return self._returned("observe", torch.cat((self.qpos[:, :1], self.goal), dim=1))

    def observe_privileged(self) -> Tensor:
        return self._returned("privileged", self.qvel[:, :1])

    def achieved_goal(self) -> Tensor:
        return self._returned("achieved", self.qpos[:, :1])

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return -(achieved - desired).abs()[..., 0]

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.goal_reward(achieved, desired) > -0.1

    def outcome(self, action: Tensor) -> Outcome:
        x = self.qpos[:, 0]
        return Outcome(
            self._returned("reward", x),
            self._returned("terminated", x > 7.04),
            self._returned("success", x > 7.01),
            {"place": self._returned("term", x), "action": self._returned("action", action[:, 0])},
            self._returned("truncated", x < 0.0),
        )

    def _returned(self, name: str, value: Tensor) -> Tensor:
        if self.way == "buffer":
            return self.buffers.setdefault(name, torch.empty_like(value)).copy_(value)
        return value if self.way == "engine" else value.clone()


class Plain(Sharing):
    """Without a goal: the whole observation may be the engine's own tensor."""

    goal_size = 0

    def __init__(self, way: str) -> None:
        super().__init__(way)
        self.observation = tuple(c for c in self.observation if c.name != "desired_goal")


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of a record."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))


def played(env: Environment, steps: int = 9) -> list[list[Tensor]]:
    """What the environments showed, looked at when all is over."""
    results = [env.observed, *[env.step(torch.tensor([[1.0], [0.5], [-1.0]])) for _ in range(steps)]]
    return [list(tensors(result)) for result in results]


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("way", ["engine", "buffer"])
@pytest.mark.parametrize("make", [Sharing, Plain])
def test_results_are_those_of_their_step_whatever_tensors_a_task_returns(
    make: type[Sharing], way: str, noisy: bool
) -> None:
    entries = {"observation_noise": {"of": "x", "range": [0, 0.1]}, "action_dropout": {"range": [0, 0.5]}}
    shown = []
    for kind in ("new", way):
        task = make(kind)
        shown.append(played(build(task, N, manual_layer(task, entries) if noisy else None)))
    for expected, got in zip(*shown, strict=True):
        assert len(expected) == len(got)
        for a, b in zip(expected, got, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("way", ["engine", "buffer", "new"])
def test_results_and_the_policys_actions_do_not_change_as_the_run_goes_on(way: str) -> None:
    env = build(Sharing(way), N)
    kept, action = [], torch.full((N, 1), 0.8)
    for _ in range(9):
        result = env.step(action)
        kept.append((result, copy.deepcopy(list(tensors(result)))))
    for result, then in kept:
        for a, b in zip(tensors(result), then, strict=True):
            assert torch.equal(a, b)
    assert action.tolist() == [[pytest.approx(0.8)]] * N
    assert kept[0][0].terms["action"].tolist() == [pytest.approx(0.8)] * N  # of the outcome's action, not halved


@pytest.mark.parametrize("way", ["engine", "buffer"])
@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_arrays_of_the_vector_environment_are_those_of_their_step(way: str, mode: str) -> None:
    from gymnasium.vector import AutoresetMode

    shown = []
    for kind in ("new", way):
        envs = VecEnv(build(Sharing(kind), N), AutoresetMode(mode))
        rows: list[Any] = [envs.reset(seed=0)[0]]
        rows += [envs.step(np.array([[1.0], [0.5], [-1.0]], np.float32)) for _ in range(9)]
        shown.append(repr(rows))
    assert shown[0] == shown[1]


@pytest.mark.parametrize("algorithm", ["sac", "td3", "ddpg"])
def test_the_memory_of_a_learner_holds_the_transitions_of_their_steps(algorithm: str) -> None:
    memories = []
    for way in ("new", "engine", "buffer"):
        env = build(Sharing(way), N)
        settings = {"algorithm": algorithm, "hidden": [8], "batch_size": 8, "warmup_steps": 100, "her_k": 0}
        config = RunConfig.model_validate({"task": "FetchReach-v4", "num_envs": N, "learner": settings})
        learner: Any = make_learner(config, env)
        for _ in range(6):
            observed, action = env.observed, torch.tensor([[1.0], [0.5], [-1.0]])
            learner.record(observed, action, env.step(action))
        memories.append({k: v.clone() for k, v in vars(learner.replay).items() if isinstance(v, Tensor)})
    for other in memories[1:]:
        for key, value in memories[0].items():
            assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(other[key])), key


def everything_on() -> dict[str, Any]:
    """Every effect in time, each at its default range; the motor follows no angle that an encoder would show, and the
    ground has no levels."""
    targets = {"component": {"of": "x"}, "actuator": {"of": "motor"}, "action": {"of": "force"}}
    targets |= {"floating body": {"of": "ball"}, "moving body": {"of": ["ball", "cart"]}}
    entries = {
        q.name: {"range": list(q.default_range), **targets.get(q.target, {})}
        for q in EFFECTS
        if q.name not in ("encoder_resolution", "terrain_difficulty")
    }
    return entries | {"body_mass": {"of": "cart", "range": [0.5, 2.0]}}


@pytest.mark.parametrize("way", ["engine", "buffer"])
def test_a_saved_state_does_not_change_as_the_run_goes_on_nor_by_being_loaded(way: str) -> None:
    task = Sharing(way)
    env = build(task, N, manual_layer(task, everything_on()))
    played(env, 3)
    state = env.state_dict()
    then = copy.deepcopy(state)
    first = played(env, 9)
    assert_equal(state, then)
    for _ in range(2):  # what was loaded once can be loaded again
        env.load_state_dict(state)
        for a, b in zip(first[1:], played(env, 9)[1:], strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert_equal(state, then)


def assert_equal(a: Any, b: Any, where: str = "state") -> None:
    """Two trees hold the same values."""
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), where
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key, value in a.items():
            assert_equal(value, b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, value in enumerate(a):
            assert_equal(value, b[i], f"{where}[{i}]")
    else:
        assert a == b, where
