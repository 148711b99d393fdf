"""Tasks for any robot: gaits by numbers worked by hand, legs found in a model, goals that are poses."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

import simreal
from broken_robots import ARM, DOG
from conftest import build
from envs.common.errors import TaskError
from envs.locomotion.go1.model import ACTUATORS, FEET, FOOT_RADIUS_M, GO1, JOINTS
from envs.locomotion.legged.describe import describe_legged
from envs.locomotion.legged.gait import natural_gait, phases, wanted_heights
from envs.locomotion.legged.rewards import TERMS, alternation
from envs.locomotion.legged.velocity import LeggedVelocity
from envs.platform.menagerie import load_robot
from envs.registry import make_task
from envs.robots.servos import fitting_servos
from robots import GO1 as GO1_NAME
from robots import needs
from simreal.evaluation.compare import reported_table
from simreal.evaluation.evaluate import evaluate
from simreal.evaluation.worlds import find_world
from simreal.testing import check_task
from simreal.vision.live.source import find_source


def dog(**options: Any) -> LeggedVelocity:
    load = partial(mujoco.MjSpec.from_string, DOG)
    found = describe_legged(load, load, {})
    task = LeggedVelocity(found.robot, options.pop("gait", found.gait), **options)
    task.id = "dog"
    return task


def test_a_clock_says_when_feet_are_in_the_air_and_how_high() -> None:
    # A period of 0.5 s, on the ground for 0.6 of it: a swing takes 0.2 s. At 0.1 s the first foot is in its middle, the
    # second, half a period later, is at phase 0.7: on the ground.
    phase = phases(torch.tensor([0.1, 0.0, 0.25], dtype=torch.float64), 0.5, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(phase, torch.tensor([[0.2, 0.7], [0.0, 0.5], [0.5, 0.0]], dtype=torch.float64))
    up, height = wanted_heights(phase, 0.6, 0.08)
    assert up.tolist() == [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    torch.testing.assert_close(height, torch.tensor([[0.08, 0.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64))


def test_gaits_of_two_four_and_six_legs() -> None:
    assert natural_gait((("left", 0.0, 0.1), ("right", 0.0, -0.1))) == (("left",), ("right",))
    four = natural_gait((("FL", 0.2, 0.1), ("FR", 0.2, -0.1), ("RL", -0.2, 0.1), ("RR", -0.2, -0.1)))
    assert {frozenset(group) for group in four} == {frozenset(("FL", "RR")), frozenset(("FR", "RL"))}
    six = natural_gait(
        tuple((f"{side}{i}", 0.3 - 0.3 * i, y) for side, y in (("L", 0.1), ("R", -0.1)) for i in range(3))
    )
    assert {frozenset(group) for group in six} == {frozenset(("L0", "L2", "R1")), frozenset(("R0", "R2", "L1"))}
    # of a trot: both diagonals together, left and right by turns is 1; all feet alike a half; a bound nothing
    gait = simreal.Gait((("FL", "RR"), ("FR", "RL")))
    same, opposite = gait.pairs(("FL", "FR", "RL", "RR"))
    feet = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    assert alternation(feet, same, opposite).tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(TaskError, match="no foot 'FX'"):
        simreal.Gait((("FX", "RR"), ("FR", "RL"))).offsets(("FL", "FR", "RL", "RR"))
    with pytest.raises(TaskError, match="every foot once"):
        simreal.Gait((("FL", "RR"),)).offsets(("FL", "FR", "RL", "RR"))


@needs(GO1_NAME)
def test_the_go1_is_found_as_it_was_described_by_hand() -> None:
    load = partial(load_robot, GO1_NAME)
    found = describe_legged(load, load, {})
    assert {foot.name: (foot.body, foot.shapes, foot.radius_m) for foot in found.robot.feet} == {
        name: (f"{name}_calf", (name,), FOOT_RADIUS_M) for name in FEET
    }
    assert set(found.robot.joints) == set(JOINTS)
    assert found.robot.height_m == pytest.approx(GO1.height_m, abs=0.015)
    assert dict(zip(found.robot.joints, found.robot.effort, strict=True)) == dict(zip(JOINTS, GO1.effort, strict=True))
    assert {frozenset(group) for group in found.gait.groups} == {frozenset(("FR", "RL")), frozenset(("FL", "RR"))}


@needs(GO1_NAME)
def test_the_mirror_image_of_the_go1_is_the_one_worked_out_by_hand() -> None:
    mirror = make_task("Go1Velocity-v0").mirror
    assert mirror is not None
    legs = tuple(3 * leg + joint for leg in (1, 0, 3, 2) for joint in range(3))
    assert mirror.action == legs
    assert mirror.action_sign == (-1.0, 1.0, 1.0) * 4
    assert mirror.observation == (*range(6), *(6 + i for i in legs), *(18 + i for i in legs), *(30 + i for i in legs),
                                  42, 43, 44)  # fmt: skip
    other = {"FR": "FL", "FL": "FR", "RR": "RL", "RL": "RR"}
    assert mirror.exchanged == {name: other[name[:2]] + name[2:] for name in (*FEET, *JOINTS, *ACTUATORS)}


def test_figures_of_a_gait_are_those_of_the_state() -> None:
    env = build(dog(), 2)
    angle = math.radians(10.0)
    env.engine.data("qpos")[0, 3:7] = torch.tensor([math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0])  # nose down
    env.engine.data("qpos")[1, 3:7] = torch.tensor(
        [math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0]
    )  # right side down
    terms = env.step(torch.zeros(2, 12)).terms
    assert float(terms["pitch_deg"][0]) == pytest.approx(10.0, abs=1.5)
    assert float(terms["roll_deg"][1]) == pytest.approx(10.0, abs=1.5)
    share = (env.engine.data("actuator_force").abs() / 30.0).amax(dim=1)
    torch.testing.assert_close(terms["torque_share"], share)


def test_terms_that_need_a_clock_are_refused_without_one() -> None:
    gait = simreal.Gait((("FL", "RR"), ("FR", "RL")))
    assert "in_step" not in dog(gait=gait).weights
    with pytest.raises(TaskError, match="in_step: needs a gait with a clock"):
        dog(gait=gait, reward_weights={"in_step": 1.0})
    with pytest.raises(TaskError, match=r"unknown levle \(did you mean 'level'\?\)"):
        dog(reward_weights={"levle": 1.0})


def test_servos_hold_the_weight_that_they_are_made_for() -> None:
    # 1.5 kg at 0.15 m, 0.8 kg at 0.36 + 0.135 m, and half a ball at either end of it: what `lift` carries stretched out
    spec = mujoco.MjSpec.from_string(ARM)
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    model = spec.compile()
    lift = model.joint("lift").id
    (servo,) = fitting_servos(model, model.qpos0, [lift])
    weight = 9.81 * (1.5 * 0.15 + 0.8 * (0.36 + 0.135))
    assert servo.stiffness * 0.05 == pytest.approx(weight, rel=0.25)  # it sags by a twentieth of a radian
    assert servo.armature is not None
    assert servo.armature >= 0.1  # the file's own


class Posed(simreal.Reach):
    id = "posed"
    decimation, max_episode_steps = 10, 20

    def __init__(self) -> None:
        super().__init__(
            mujoco.MjModel.from_xml_string(ARM), "tip", (0.0, 0.7, -0.9), (0.5, 0.5, 0.5),
            simreal.JointPosition(0.5, offset=(0.0, 0.7, -0.9)), tolerance=0.05, turned=0.2,
        )  # fmt: skip


def test_goals_may_be_poses_and_can_be_reached() -> None:
    check_task(Posed)
    env = build(Posed(), 64)
    task: Any = env.task
    assert task.goal_size == 7
    torch.testing.assert_close(task.goal[:, 3:].square().sum(dim=1), torch.ones(64, dtype=torch.float64))
    # half a turn about z: the distance is nothing, the angle pi
    here = torch.tensor([[0.1, 0.0, 0.2, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    turned = torch.tensor([[0.1, 0.0, 0.2, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    assert task.goal_success(here, here).tolist() == [True]
    assert task.goal_success(here, turned).tolist() == [False]
    assert float(task.goal_reward(here, turned)) == pytest.approx(-0.1 * math.pi - 0.1, abs=1e-6)
    assert np.ptp(task.goal[:, 2].numpy()) > 0.1
    assert float(task.goal[:, 2].min()) > 0.0


@needs(GO1_NAME)
def test_an_evaluation_tells_what_the_gait_is_like() -> None:
    policy = find_source("Go1Velocity-v0", "zero", None, {}).policy.on_task(None)
    figures = evaluate(policy, [find_world("nominal", policy)], 2, None, 0)
    measures = {name: value["mean"] for name, value in figures["worlds"][0]["measures"].items()}
    task = policy.make_task()
    assert set(task.reported) <= measures.keys()
    table = reported_table(figures, task.reported)
    assert table is not None
    assert [str(column.header) for column in table.columns] == ["world", *task.reported.values()]
    assert 0.0 < measures["torque_share"] < measures["torque_share_peak"] <= 1.0
    assert 0.0 <= measures["at_torque_limit"] <= 1.0
    assert measures["action_step"] == 0.0  # it holds still
    assert measures["swing_height_m"] < 0.02


_LEG = """<body name="{n}_hip" pos="0 {y} -0.1"><joint name="{n}_roll" axis="1 0 0" range="-0.5 0.5"/>
  <geom type="sphere" size="0.04" mass="1"/>
  <body name="{n}_thigh"><joint name="{n}_pitch" axis="0 1 0" range="-1.5 1"/>
    <geom type="capsule" fromto="0 0 -0.05 0 0 -0.25" size="0.03" mass="2"/>
    <body name="{n}_shank" pos="0 0 -0.3"><joint name="{n}_knee" axis="0 1 0" range="0 2"/>
      <geom type="capsule" fromto="0 0 -0.05 0 0 -0.25" size="0.02" mass="1"/>
      <body name="{n}_talus" pos="0 0 -0.3"><joint name="{n}_ankle" axis="0 1 0" range="-1 1"/>
        <geom type="sphere" size="0.01" mass="0.2"/>
        <body name="{n}_foot"><joint name="{n}_tilt" axis="1 0 0" range="-0.4 0.4"/>{rails}</body>
      </body></body></body></body>"""
_RAIL = '<geom name="{n}_{i}" type="box" pos="0.03 {y} -0.04" size="{x} 0.004 0.01" mass="0.1"/>'


def biped() -> str:
    """Two legs with ankles, each foot on seven rails, and a keyframe that leans forward on feet that are not flat."""
    rails = {n: "".join(_RAIL.format(n=n, i=i, y=0.012 * (i - 3), x=0.1 - 0.01 * abs(i - 3)) for i in range(7))
             for n in ("left", "right")}  # fmt: skip
    legs = "".join(_LEG.format(n=n, y=y, rails=rails[n]) for n, y in (("left", 0.1), ("right", -0.1)))
    joints = [f"{n}_{j}" for n in ("left", "right") for j in ("roll", "pitch", "knee", "ankle", "tilt")]
    motors = "".join(f'<motor name="{j}" joint="{j}" ctrlrange="-40 40"/>' for j in joints)
    pose = " ".join(["0 -0.2 0.4 -0.26 0"] * 2)
    return f"""<mujoco><compiler angle="radian"/><default><joint damping="0.5" armature="0.02"/></default><worldbody>
      <body name="trunk" pos="0 0 0.75"><freejoint/><geom name="trunk" type="box" size="0.08 0.12 0.2" pos="0.02 0 0.2"
      mass="14"/>{legs}</body></worldbody><actuator>{motors}</actuator>
      <keyframe><key qpos="0 0 0.75 1 0 0 0 {pose}"/></keyframe></mujoco>"""


def test_a_biped_stands_flat_below_its_centre_of_mass_and_does_not_fall_before_it_has_learnt() -> None:
    load = partial(mujoco.MjSpec.from_string, biped())
    found = describe_legged(load, load, {})
    assert not found.stance_found  # its file has a keyframe, which is mended
    assert [foot.shapes for foot in found.robot.feet] == [
        tuple(f"{n}_{i}" for i in (0, 3, 6)) for n in ("left", "right")
    ]
    task = LeggedVelocity(found.robot, found.gait)
    task.id = "biped"
    model, data = task.model, mujoco.MjData(task.model)
    data.qpos[:7] = (0, 0, found.robot.height_m, 1, 0, 0, 0)
    data.qpos[7:] = found.robot.stance
    mujoco.mj_forward(model, data)
    sole = data.site("left").xpos
    assert sole[2] == pytest.approx(0.0, abs=1e-3)
    assert data.subtree_com[1, 0] == pytest.approx(sole[0], abs=3e-3)
    assert data.body("left_foot").xmat[8] == pytest.approx(1.0, abs=1e-4)  # flat
    assert max(abs(a - b) for a, b in zip(found.robot.stance[1:4], (-0.2, 0.4, -0.26), strict=True)) < 0.15
    environment = build(task, 4)
    still = torch.zeros(4, len(found.robot.joints))
    result = environment.step(still)
    for _ in range(49):  # a second without a policy
        assert not bool(result.terminated.any())
        result = environment.step(still)
    assert float(result.terms["pitch_deg"].abs().max()) < 15.0


def test_a_biped_whose_legs_move_in_one_plane_stands_on_its_soles() -> None:
    leg = """<body name="{n}_thigh" pos="0 {y} 0"><joint name="{n}_hip" axis="0 1 0" range="-1.5 1.5"/>
      <geom type="capsule" fromto="0 0 -.05 0 0 -.3" size="0.04" mass="2"/>
      <body name="{n}_shank" pos="0 0 -.35"><joint name="{n}_knee" axis="0 1 0" range="0 2.3"/>
        <geom type="capsule" fromto="0 0 -.05 0 0 -.3" size="0.03" mass="1.5"/>
        <body name="{n}_foot" pos="0 0 -.35"><joint name="{n}_ankle" axis="0 1 0" range="-.9 .9"/>
          <geom name="{n}_sole" type="box" pos="0.04 0 -.03" size="0.1 0.04 0.02" mass="0.6"/></body></body></body>"""
    joints = [f"{n}_{j}" for n in ("left", "right") for j in ("hip", "knee", "ankle")]
    text = f"""<mujoco><compiler angle="radian"/><default><joint damping="0.5" armature="0.02"/></default><worldbody>
      <body name="trunk" pos="0 0 0.8"><freejoint/><geom type="box" size="0.08 0.12 0.2" pos="0 0 0.2" mass="14"/>
      {leg.format(n="left", y=0.1)}{leg.format(n="right", y=-0.1)}</body></worldbody><actuator>
      {"".join(f'<motor name="{j}" joint="{j}" ctrlrange="-40 40"/>' for j in joints)}</actuator></mujoco>"""
    load = partial(mujoco.MjSpec.from_string, text)
    found = describe_legged(load, load, {})
    task = LeggedVelocity(found.robot, found.gait)
    data = mujoco.MjData(task.model)
    data.qpos[:7] = (0, 0, found.robot.height_m, 1, 0, 0, 0)
    data.qpos[7:] = found.robot.stance
    mujoco.mj_forward(task.model, data)
    for foot in ("left_foot", "right_foot"):
        assert data.body(foot).xmat[8] == pytest.approx(1.0, abs=1e-3)
    assert data.site("left").xpos[2] == pytest.approx(0.0, abs=1e-3)
    assert data.subtree_com[1, 0] == pytest.approx(data.site("left").xpos[0], abs=5e-3)


def test_weight_on_feet_that_should_be_in_the_air_counts_as_much_as_it_is() -> None:
    # A biped asked to move, its left foot due in the air: 0.25 of the weight is still on it, the right foot lands hard;
    # then one asked to stand, where the clock does not count.
    load = torch.tensor([[0.25, 1.9], [0.5, 0.5]])
    moves: Any = SimpleNamespace(
        load=lambda: load, wanted_up=torch.tensor([[1.0, 0.0], [1.0, 0.0]]), moving=torch.tensor([1.0, 0.0])
    )
    assert TERMS["unload"](moves).tolist() == [0.25, 0.0]
    moves.wanted_up = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert TERMS["unload"](moves).tolist() == [1.0, 0.0]  # a stamp is no more than all of the weight


def test_standing_feet_bear_the_robot() -> None:
    task = dog(reward_weights={"unload": -1.0})
    environment = build(task, 2)
    for _ in range(60):
        environment.step(torch.zeros(2, 12))
    torch.testing.assert_close(task._load().sum(dim=1), torch.ones(2, dtype=task._load().dtype), atol=0.05, rtol=0.0)
