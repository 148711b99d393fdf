"""Simulations that leave what their physics steps resolve are noticed before their numbers overflow."""

from __future__ import annotations

import math

import mujoco
import pytest
import torch
from torch import Tensor

from conftest import HINGE, TinyTask, build
from envs.engines.stability import speed_limits
from randomization.config import Performance
from randomization.parameters import Parameter
from randomization.randomizer import DomainRandomizer
from randomization.samplers.adr import ADR
from randomization.samplers.base import Manual
from simreal.training.monitoring.episode_statistics import EpisodeStatistics

BODIES = """<mujoco><option timestep="{timestep}"/><worldbody>
<body><joint type="slide"/><geom size="{size}"/>
  <body><joint type="hinge"/><geom size="{size}" pos="{size} 0 0"/></body></body>
<body pos="0 0 {size}"><freejoint/><geom size="{size}"/></body>
<body pos="0 {size} 0"><joint type="ball"/><geom size="{size}"/></body>
</worldbody></mujoco>"""


# HINGE as a wheel that nothing slows down; a physics step of 2 ms: a turn in each is 3142 rad/s.
WHEEL = HINGE.replace('damping="0.5"', "").replace('kp="20" kv="1"', 'kp="1e-9"')


def model(timestep: float = 0.01, size: float = 0.1) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(BODIES.format(timestep=timestep, size=size))


def test_no_joint_turns_more_than_once_nor_crosses_a_hundred_extents_in_a_physics_step() -> None:
    m = model()
    turn, length = 2 * math.pi / 0.01, 100 * m.stat.extent / 0.01
    assert speed_limits(m) == pytest.approx([length, turn, *[length] * 3, *[turn] * 3, *[turn] * 3])


def test_limits_follow_timestep_and_size() -> None:
    plain, quick, large = speed_limits(model()), speed_limits(model(timestep=0.001)), speed_limits(model(size=100.0))
    assert quick == pytest.approx(10.0 * plain)
    straight = [0, 2, 3, 4]
    assert large[straight] == pytest.approx(1000.0 * plain[straight])
    assert large[[1, 5, 6, 7]] == pytest.approx(plain[[1, 5, 6, 7]])


def test_a_simulation_that_turns_faster_than_its_steps_resolve_has_diverged() -> None:
    env = build(TinyTask(WHEEL), 3)
    env.engine.data("qvel")[1:] = torch.tensor([[-3140.0], [-3145.0]])
    result = env.step(torch.zeros(3, 1))
    assert result.diverged.tolist() == [False, False, True]
    assert env.divergences == 1
    assert not env.step(torch.zeros(3, 1)).diverged.any()


class Listener(Manual):
    """Hears how episodes went."""

    heard: list[float]

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        self.heard = performance.tolist()


@pytest.mark.parametrize(("performance", "failure"), [("return", -math.inf), ("success", 0.0), ("successes", 0.0)])
def test_an_episode_that_diverges_is_a_failure_whatever_it_had_gathered(
    performance: Performance, failure: float
) -> None:
    sampler = Listener([])
    env = build(TinyTask(WHEEL), 2, DomainRandomizer(sampler, performance))
    env.episode_return[1], env.episode_successes[1] = 1e9, 1000
    env.engine.data("qvel")[1] = 1e5
    statistics = EpisodeStatistics()
    result = env.step(torch.zeros(2, 1))
    statistics.add_episodes(result)
    assert sampler.heard == [failure]
    # the averages of a run count it as an episode, without a return that means nothing
    assert (statistics.episodes, list(statistics.success), list(statistics.returns)) == (1, [0.0], [])
    assert list(statistics.successes) == [0.0]


def test_a_boundary_whose_worlds_are_unstable_moves_inwards() -> None:
    adr = ADR([Parameter("x", nominal=0.0, limits=(0.0, 9.0), step=1.0)], buffer_size=4, thresholds=(10.0, 20.0))
    upper = torch.ones(4, dtype=torch.int64)
    adr.record(upper, torch.full((4,), 50.0))
    adr.record(upper, torch.tensor([50.0, 50.0, -math.inf, 50.0]))  # (3 * 50 + 10) / 4 = 40: one in four
    assert float(adr.upper) == 2.0
    adr.record(upper, torch.full((4,), -math.inf))
    assert float(adr.upper) == 1.0
