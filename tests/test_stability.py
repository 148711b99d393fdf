"""Simulations that leave what their physics steps resolve are noticed before their numbers overflow."""

from __future__ import annotations

import math

import mujoco
import pytest
import torch

from conftest import HINGE, TinyTask, build
from envs.stability import speed_limits

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
