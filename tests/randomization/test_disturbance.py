"""Random forces, pushes and a moving base: how large, how often, and what they do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import HINGE, TinyTask, build, fixed_worlds
from envs.environment import Environment
from envs.manipulation.fetch import FetchTask
from randomization.parameters import RandomizationError, build_parameters

N = 1000
# A free box and a pendulum that a motor drives; nothing touches.
FREE = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"/>
  <worldbody>
    <body name="box" pos="0 0 1">
      <freejoint name="free"/>
      <geom type="box" size="0.1 0.1 0.1" mass="2"/>
    </body>
    <body name="table" pos="0 3 0"><geom type="box" size="1 1 0.1" mass="9" contype="0"/></body>
    <body name="pendulum" pos="0 0 5">
      <joint name="swing" axis="0 1 0"/>
      <geom type="sphere" size="0.1" pos="0 0 -0.5" mass="3"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="swing"/></actuator>
</mujoco>
"""
SLED = """
<mujoco>
  <worldbody>
    <body name="torso">
      <joint name="rootx" type="slide" axis="1 0 0"/>
      <joint name="rootz" type="slide" axis="0 0 1" stiffness="1"/>
      <geom size="0.1" mass="1"/>
    </body>
    <body name="cart"><joint name="rail" type="slide" axis="0 1 0"/><geom size="0.1" mass="1" pos="0 4 0"/></body>
  </worldbody>
  <actuator><motor joint="rail"/></actuator>
</mujoco>
"""


def free(
    entries: dict[str, Any], worlds: list[list[float]], decimation: int = 20, xml: str = FREE, episode: int = 10_000
) -> Environment:
    task = TinyTask(xml, decimation=decimation, max_episode_steps=episode)
    return build(task, len(worlds), fixed_worlds(task, entries, worlds))


def rest(env: Environment) -> Tensor:
    """An action of zero."""
    return torch.zeros(env.num_envs, env.task.action_size)


def test_a_force_is_an_acceleration_times_the_mass_and_normal_along_each_axis() -> None:
    entries = {"force_size": {"of": "box", "range": [0, 9]}, "force_probability": {"range": [0, 1]}}
    env = free(entries, [[3.0, 1.0]] * N)
    velocity = env.step(rest(env)).final.policy[:, 8:11]
    force = env.engine.data("xfrc_applied")
    assert not force[:, [0, 2, 3]].any()
    assert not force[:, 1, 3:].any()
    torch.testing.assert_close(velocity, force[:, 1, :3] / 2.0 * 0.04)  # from rest, for one control step
    size = force[:, 1, :3] / 2.0
    assert abs(float(size.mean())) < 4.5 * 3.0 / math.sqrt(3 * N)
    assert abs(float(size.square().mean()) - 9.0) < 4.5 * 9.0 * math.sqrt(2 / (3 * N))


def test_forces_scale_with_a_randomized_mass() -> None:
    entries = {
        "body_mass": {"of": "box", "range": [0.5, 4]},
        "force_size": {"of": "box", "range": [0, 9]},
        "force_probability": {"range": [0, 1]},
    }
    env = free(entries, [[1.0, 3.0, 1.0], [4.0, 3.0, 1.0]])
    velocity = env.step(rest(env)).final.policy[:, 8:11]
    torch.testing.assert_close(
        velocity, env.engine.data("xfrc_applied")[:, 1, :3] / torch.tensor([[2.0], [8.0]]) * 0.04
    )


def test_forces_begin_with_their_probability_and_decay_in_between() -> None:
    entries = {
        "force_size": {"of": "box", "range": [0, 9]},
        "force_probability": {"range": [0, 1]},
        "force_decay": {"range": [0.5, 1]},
    }
    env = free(entries, [[1.0, 0.1, 0.81]] * N)
    force = env.engine.data("xfrc_applied")[:, 1, :3]
    before, begun, decayed = force.clone(), 0, 0
    for _ in range(10):
        env.step(rest(env))
        kept = (force - 0.9 * before).abs().max(dim=1).values < 1e-12  # 0.81 per 80 ms: 0.9 per step of 40 ms
        begun += int((~kept).sum())
        decayed += int((kept & before.any(dim=1)).sum())
        before = force.clone()
    assert abs(begun / (10 * N) - 0.1) < 4.5 * math.sqrt(0.09 / (10 * N))
    assert decayed > N


def test_without_further_parameters_forces_are_as_published() -> None:
    env = free({"force_size": {"of": "box", "range": [0, 1]}}, [[1.0]] * N)
    force = env.engine.data("xfrc_applied")[:, 1, :3]
    for _ in range(10):
        env.step(rest(env))
    share = float(force.any(dim=1).double().mean())
    assert abs(share - (1 - 0.99**10)) < 4.5 * math.sqrt(0.1 / N)


def test_an_episode_begins_without_a_force() -> None:
    entries = {"force_size": {"of": "box", "range": [0, 9]}, "force_probability": {"range": [0, 1]}}
    env = free(entries, [[1.0, 0.5]] * N, episode=4)
    for _ in range(4):
        env.step(rest(env))
    env.step(rest(env))
    share = float(env.engine.data("xfrc_applied")[:, 1, :3].any(dim=1).double().mean())
    assert abs(share - 0.5) < 4.5 * 0.5 / math.sqrt(N)


def test_a_push_changes_the_horizontal_velocity_of_a_free_body_and_moves_it() -> None:
    entries = {"push_velocity": {"range": [0, 2]}, "push_interval": {"range": [0.04, 10]}}
    env = free(entries, [[0.5, 0.04], [0.0, 0.04]])
    result = env.step(rest(env)).final.policy
    velocity = result[:, 8:11]
    assert float(velocity[0].norm()) == pytest.approx(0.5, abs=1e-12)
    assert float(velocity[0, 2]) == 0.0
    torch.testing.assert_close(result[0, :2], velocity[0, :2] * 0.04)  # it moves
    assert not result[1, 8:14].any()
    assert not result[:, 14].any()  # the pendulum does not


def test_pushes_come_at_intervals_from_a_random_moment_on_in_random_directions() -> None:
    entries = {"push_velocity": {"range": [0, 2]}, "push_interval": {"range": [0.04, 10]}}
    env = free(entries, [[0.5, 0.4]] * N)  # every 10 control steps
    velocity, pushes = [torch.zeros(N, 2, dtype=torch.float64)], []
    for _ in range(30):
        velocity.append(env.step(rest(env)).final.policy[:, 8:10])
        pushes.append(velocity[-1] - velocity[-2])
    kick = torch.stack(pushes)
    pushed = kick.norm(dim=2) > 0.1
    assert (pushed.int().unfold(0, 10, 1).sum(dim=2) == 1).all()
    when = pushed[:10].int().argmax(dim=0)
    counts = torch.bincount(when, minlength=10)
    assert counts.min() > 50
    angle = torch.atan2(kick[..., 1][pushed], kick[..., 0][pushed])
    assert abs(float(angle.cos().mean())) < 4.5 / math.sqrt(2 * angle.numel())
    assert abs(float(angle.sin().mean())) < 4.5 / math.sqrt(2 * angle.numel())


def test_planar_robots_are_pushed_along_their_free_axis_only() -> None:
    task = TinyTask(SLED)
    assert build_parameters(task, {"push_velocity": {}})[0].targets == ("torso",)  # a motor drives the cart
    env = free({"push_velocity": {"range": [0, 2]}, "push_interval": {"range": [0.01, 1]}}, [[1.0, 0.01]] * 50, 1, SLED)
    velocity = env.engine.data("qvel")
    before = velocity.clone()
    layer: Any = env.layer
    layer._effects._random.ensure_drawn()
    layer._effects.effects["push_velocity"]._since_s += 1.0
    layer._effects.effects["push_velocity"].on_step()
    kick = velocity - before
    assert (kick[:, 0].abs() <= 1.0).all()
    assert len(torch.unique(kick[:, 0])) == 50
    assert not kick[:, 1:].any()


def test_a_base_that_moves_shakes_everything_on_it_like_gravity_that_tilts() -> None:
    entries = {"base_acceleration": {"range": [0, 5]}, "base_frequency": {"range": [0.1, 5]}}
    env = free(entries, [[2.0, 0.5], [0.0, 0.5]], decimation=10)
    layer: Any = env.layer
    base = layer._effects.effects["base_acceleration"]
    phase, direction = float(base._angle[0]), base._amplitude[0] / 2.0
    assert float(direction.norm()) == pytest.approx(1.0)
    gravity, velocity = env.engine.field("opt.gravity"), torch.zeros(2, dtype=torch.float64)
    shown = env.observed.policy
    for t in range(100):
        shown = env.step(rest(env)).final.policy
        expected = -2.0 * math.sin(phase + 2 * math.pi * 0.5 * (t + 0.5) * 0.02) * direction
        torch.testing.assert_close(gravity[0, :2], expected)
        velocity = velocity + expected * 0.02
        torch.testing.assert_close(shown[0, 8:10], velocity)
    assert not gravity[1].any()
    assert not shown[1, 8:15].any()
    assert float(shown[0, 14].abs().max()) > 0.01  # the pendulum swings


def test_a_moving_base_adds_to_randomized_gravity_and_leaves_no_trace_in_the_next_episode() -> None:
    entries = {"base_acceleration": {"range": [0, 5]}, "gravity": {"of": "x", "range": [-1, 1]}}
    env = free(entries, [[2.0, 0.5]], episode=3)
    gravity = env.engine.field("opt.gravity")
    for _ in range(1000):
        env.step(rest(env))
    env.reset()
    assert gravity[0].tolist() == [0.5, 0.0, 0.0]
    env.step(rest(env))
    assert gravity[0, 0] != 0.5
    assert float((gravity[0] - torch.tensor([0.5, 0.0, 0.0])).norm()) <= 2.0


def test_only_bodies_that_can_move_are_disturbed_and_asking_for_others_lists_those() -> None:
    task = TinyTask(FREE)
    assert build_parameters(task, {"force_size": {}})[0].targets == ("box", "pendulum")
    assert build_parameters(task, {"push_velocity": {}})[0].targets == ("box",)
    with pytest.raises(RandomizationError, match=r"no floating body matches 'table'.*Tiny-v0 has: box"):
        build_parameters(task, {"push_velocity": {"of": "table"}})
    with pytest.raises(RandomizationError, match=r"has no floating body .*disturbance channel it has: force_size"):
        build_parameters(TinyTask(HINGE), {"push_velocity": {}})
    with pytest.raises(RandomizationError, match="force_decay: does nothing without force_size"):
        build_parameters(task, {"force_decay": {}})
    assert build_parameters(FetchTask("FetchPush"), {"push_velocity": {}})[0].targets == ("object0",)
    weightless = TinyTask(HINGE.replace('gravity="0 0 0"/>', 'gravity="0 0 0"><flag gravity="disable"/></option>'))
    with pytest.raises(RandomizationError, match="gravity switched off"):
        build(weightless, 1, fixed_worlds(weightless, {"base_acceleration": {}}, [[1.0]]))
