"""A Gymnasium environment of somebody else's, for tests of the adapter, with habits found in the wild."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from conftest import HINGE
from envs.environment import Environment
from envs.gymnasium_adapter.engine import GymnasiumEngine
from envs.gymnasium_adapter.task import AdaptedTask
from randomization.randomizer import DomainRandomizer

MINE = "gymnasium:Somebodys-v0"


class SomebodysEnv(gymnasium.Env[Any, Any]):
    """A goal environment: move the first coordinate to the goal.

    Args:
        xml: the model.
        truncate_at: it breaks off by itself after so many steps.
        writes_mass: its reset doubles the mass of the first body.
        wears: its step takes a tenth of all damping away.
        many_goals: `compute_reward` takes arrays of goals.
        goals: observations are the dict of goal environments; else a Box.
    """

    def __init__(
        self,
        xml: str = HINGE,
        truncate_at: int = 1000,
        writes_mass: bool = False,
        wears: bool = False,
        many_goals: bool = True,
        goals: bool = True,
        bound: float = 2.0,
    ) -> None:
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.wears = wears
        self.truncate_at, self.writes_mass, self.many_goals, self.goals = truncate_at, writes_mass, many_goals, goals
        self.action_space = spaces.Box(-0.5, bound, (self.model.nu,), np.float32)
        box = lambda n: spaces.Box(-np.inf, np.inf, (n,), np.float64)  # noqa: E731
        parts: dict[str, spaces.Space[Any]] = {"observation": box(3), "achieved_goal": box(1), "desired_goal": box(1)}
        self.observation_space = spaces.Dict(parts) if goals else parts["observation"]
        self.goal = np.zeros(1)
        self.velocity = self.data.qvel  # a view of MuJoCo's memory
        self.last_action = np.zeros(self.model.nu)
        self.history: list[float] = []
        self.tally = {"steps": 0, "visited": {"start"}}
        self.noise = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        if self.writes_mass:
            self.model.body_mass[1] *= 2.0
        self.noise = np.random.default_rng(int(self.np_random.integers(2**31)))
        self.goal = self.np_random.uniform(-0.3, 0.3, 1)
        self.data.qpos[0] = self.np_random.uniform(-0.1, 0.1)
        mujoco.mj_forward(self.model, self.data)
        self.history, self.tally = [], {"steps": 0, "visited": {"start"}}
        self.last_action = np.zeros(self.model.nu)
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        # An average of actions, and noise: state outside of MuJoCo.
        self.last_action = 0.5 * self.last_action + 0.5 * action
        self.data.ctrl[:] = self.last_action + 0.01 * self.noise.normal(size=self.model.nu)
        if self.wears:
            self.model.dof_damping[:] *= 0.9
        mujoco.mj_step(self.model, self.data, nstep=5)
        self.history = [*self.history, float(self.data.qpos[0])][-3:]
        self.tally["steps"] += 1
        reward = float(np.asarray(self.compute_reward(self.data.qpos[:1], self.goal, {})))
        info = {"success": np.bool_(reward > -0.01), "speed": self.velocity[0], "words": "none"}
        return self.observe(), reward, False, self.tally["steps"] >= self.truncate_at, info

    def observe(self) -> Any:
        average = np.mean(self.history) if self.history else 0.0
        observation = np.array([self.data.qpos[0], self.velocity[0], average])
        if not self.goals:
            return observation
        return {"observation": observation, "achieved_goal": self.data.qpos[:1].copy(), "desired_goal": self.goal}

    def compute_reward(self, achieved: Any, desired: Any, info: dict[str, Any]) -> Any:
        if not self.many_goals and np.ndim(achieved) > 1:
            raise ValueError("one goal at a time")
        return -np.linalg.norm(np.asarray(achieved) - desired, axis=-1)


class NoMuJoCo(SomebodysEnv):
    """Its mjModel and mjData are elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        del self.model


def register() -> None:
    """Make these environments known to Gymnasium; again and again does no harm."""
    for name, entry, limit in (
        ("Somebodys-v0", "SomebodysEnv", 12),
        ("Unlimited-v0", "SomebodysEnv", None),
        ("Elsewhere-v0", "NoMuJoCo", 12),
    ):
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"{__name__}:{entry}", max_episode_steps=limit)


def build(task: AdaptedTask, num_envs: int, layer: DomainRandomizer | None = None, threads: int = 2) -> Environment:
    """Like conftest's, on two threads unless told otherwise."""
    engine = task.make_engine(num_envs, threads)
    assert engine is not None
    environment = Environment(task, engine, layer, seed=3)
    environment.reset()
    return environment


def raw(env: Environment, index: int) -> Any:
    """The environment that somebody else wrote."""
    assert isinstance(env.engine, GymnasiumEngine)
    return env.engine.envs[index].unwrapped


def seeds(env: Environment) -> list[int]:
    """What the present episodes were reset with."""
    return (env.rng.episode_uniform("gymnasium_seed", 1)[:, 0] * 2.0**31).long().tolist()


def flat(env: Environment, observation: Any) -> np.ndarray:
    parts = ("observation", "desired_goal") if env.task.goal_size else None
    return observation if parts is None else np.concatenate([observation[part] for part in parts])
