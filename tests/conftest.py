"""Fixtures and tiny worlds that several test files share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start; a worker has one processor
import simreal  # noqa: F401  # isort: skip  # chooses how MuJoCo renders, which reads that when imported
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.task import ActionComponent, Component, Outcome, Task, compile_spec
from randomization.parameters import Parameter, build_parameters
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Manual
from shortcuts import made_once
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.vision.rendering.scene import Scene

torch.set_num_threads(1)

# A run of a second: FetchReach under ADR, whose ranges always widen.
TINY = """
task: FetchReach-v4
num_envs: 4
learner: {algorithm: ddpg, hidden: [16, 16], batch_size: 32, warmup_steps: 100, updates_per_cycle: 10}
randomization:
  sampler: adr
  adr: {buffer_size: 2, thresholds: [0.0, 0.0]}
  parameters:
    body_mass: {of: "robot0:*", range: [0.5, 2.0]}
    action_delay: {range: [0, 40]}
    observation_noise: {of: grip_pos, range: [0, 0.01]}
train: {env_steps: 600, log_interval: 100}
evaluate: {episodes: 4, num_envs: 4}
"""

# One arm on a position servo, no gravity: at rest at angle 0 it stays at exactly 0.
HINGE = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"/>
  <worldbody>
    <body name="arm">
      <joint name="hinge" type="hinge" axis="0 1 0" damping="0.5"/>
      <geom name="rod" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="1"/>
    </body>
  </worldbody>
  <actuator><position name="servo" joint="hinge" kp="20" kv="1"/></actuator>
</mujoco>
"""

# A box that slides along x on a floor; its friction (0.4) is the larger of the two, so it decides.
SLIDER = """
<mujoco>
  <option timestep="0.002" cone="elliptic" impratio="10"/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1" friction="0.05 0.005 0.0001"/>
    <body name="box" pos="0 0 0.1">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="box" type="box" size="0.1 0.1 0.1" mass="2" friction="0.4 0.005 0.0001"/>
    </body>
    <body name="bystander" pos="0 3 1">
      <joint name="swing" type="hinge" axis="0 1 0" damping="0.2"/>
      <geom name="bob" type="sphere" size="0.1" pos="0 0 -0.3" mass="1" friction="0.7 0.005 0.0001"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="push" joint="x"/>
    <position name="servo" joint="swing" kp="5" kv="0.1"/>
  </actuator>
</mujoco>
"""


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests note what they make in a record of their own, and not in the user's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `TINY` with its evaluation and its bundle, made once. Look at it, or copy it."""

    def make(folder: Path) -> None:
        (folder / "tiny.yaml").write_text(TINY)
        main(["train", str(folder / "tiny.yaml"), "--run-dir", str(folder / "run")])

    return made_once(tmp_path_factory, "trained", make) / "run"


class TinyTask(Task):
    """Any model: shows qpos, qvel and a clock, actions are ctrl; reward is minus the first coordinate squared.

    Args:
        spread: episodes start at a qpos uniform within it around the model's default.
        terminate_above: the episode terminates when the first coordinate exceeds it.
    """

    id = "Tiny-v0"

    def __init__(
        self,
        xml: str = HINGE,
        decimation: int = 20,
        max_episode_steps: int = 10,
        spread: float = 0.0,
        terminate_above: float = float("inf"),
    ) -> None:
        self.xml, self.model = xml, mujoco.MjModel.from_xml_string(xml)
        self.decimation, self.max_episode_steps = decimation, max_episode_steps
        self.spread, self.terminate_above = spread, terminate_above
        self.observation = (
            Component("position", self.model.nq, "rad", "joint"),
            Component("velocity", self.model.nv, "rad/s", "joint"),
            Component("clock", 1, "s", measured=False),
        )
        nu = self.model.nu
        self.action = (ActionComponent("ctrl", nu, "rad", (1.0,) * nu, (0.0,) * nu),)

    def compile_full(self, bodies: Sequence[int]) -> None:
        self.model = compile_spec(mujoco.MjSpec.from_string(self.xml), bodies)

    def reset(self, mask: Tensor) -> None:
        qpos = self.engine.data("qpos")
        u = self.rng.episode_uniform("start", qpos.shape[1])
        qpos.copy_(torch.where(mask[:, None], qpos + self.spread * (2.0 * u - 1.0), qpos))

    def command(self, action: Tensor) -> Tensor:
        return action

    def observe(self) -> Tensor:
        data = self.engine.data
        return torch.cat((data("qpos"), data("qvel"), data("time")[:, None]), dim=1)

    def outcome(self, action: Tensor) -> Outcome:
        first = self.engine.data("qpos")[:, 0]
        return Outcome(-first.square(), first > self.terminate_above, first.abs() < 0.05)


class FixedWorlds(Manual):
    """A sampler that gives environment i the world `worlds[i]`, always, and notes what it is told."""

    def __init__(self, parameters: list[Parameter], worlds: list[list[float]]) -> None:
        super().__init__(parameters)
        self.worlds = torch.tensor(worlds, dtype=torch.float64).view(-1, len(parameters))
        self.heard: list[tuple[Tensor, Tensor]] = []

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        return self.worlds.clone(), torch.arange(len(u))

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        self.heard.append((boundary.clone(), performance.clone()))


def fixed_worlds(task: Task, entries: Mapping[str, Any], worlds: list[list[float]]) -> DomainRandomizer:
    """The layer in which environment i plays world `worlds[i]`; entries as in a configuration."""
    return DomainRandomizer(FixedWorlds(build_parameters(task, entries), worlds))


def manual_layer(task: Task, entries: Mapping[str, Any]) -> DomainRandomizer:
    """The layer with fixed ranges; entries as in a configuration."""
    return DomainRandomizer(Manual(build_parameters(task, entries)))


def build(task: Task, num_envs: int, layer: DomainRandomizer | None = None, seed: int = 0) -> Environment:
    """An environment on one physics thread, reset."""
    if layer is not None:
        layer.prepare(task)
    engine = task.make_engine(num_envs, 1) or CpuEngine(task.model, num_envs, threads=1)
    environment = Environment(task, engine, layer, seed)
    environment.reset()
    return environment


def snapshot(thing: Any) -> dict[str, Any]:
    """A state_dict that later steps do not change."""
    return copy.deepcopy(thing.state_dict())


def only(num_envs: int, *chosen: int) -> Tensor:
    """A mask [N] of the chosen environments."""
    mask = torch.zeros(num_envs, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask


@pytest.fixture(scope="session")
def can_render() -> None:
    """Skips where OpenGL is not to be had."""
    try:
        Scene(build(TinyTask(SLIDER), 1), 16, 16).close()
    except UserError as error:
        pytest.skip(str(error))
