"""What physical quantities do to motion: every figure is worked out beside its test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import TinyTask, build, fixed_worlds
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from randomization.catalogue.table import QUANTITIES

# A swinging rod of 1 kg whose centre of mass is 0.2 m from the hinge, with a spring and dry friction where asked for.
ROD = """
<mujoco>
  <option timestep="0.001" gravity="0 0 {g}"/>
  <worldbody>
    <body name="rod">
      <inertial pos="0.2 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>
      <joint name="hinge" axis="0 -1 0" range="-57.2958 57.2958" limited="{limited}" {joint}/>
    </body>
  </worldbody>
  <actuator>{actuator}</actuator>
</mujoco>
"""
ABOUT_HINGE = 0.01 + 1.0 * 0.2**2  # moment of inertia of the rod, kg m^2
REST = """
<mujoco>
  <option timestep="0.001"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <body name="box" pos="0 0 {height}">
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="shape" type="box" size="0.1 0.1 0.1" mass="1"/>
    </body>
  </worldbody>
</mujoco>
"""


def rod(g: float = 0.0, joint: str = "", actuator: str = "", limited: str = "false") -> str:
    return ROD.format(g=g, joint=joint, actuator=actuator, limited=limited)


def worlds(xml: str, entries: dict[str, Any], *values: float, others: tuple[float, ...] = ()) -> Environment:
    """One environment per value of the first entry; `others` are the values of the remaining ones."""
    first = next(iter(entries))
    ends = (*values, QUANTITIES[first].nominal)
    entries = entries | {first: {"range": [min(ends), max(ends)]} | entries[first]}
    task = TinyTask(xml)
    return build(task, len(values), fixed_worlds(task, entries, [[v, *others] for v in values]))


def angle(env: Environment, seconds: float, start: float = 0.0, torque: float | None = None) -> np.ndarray:
    """Of the hinge after a while, from rest."""
    env.engine.data("qpos")[:, 0] = start
    if torque is not None:
        env.engine.data("ctrl")[:] = torque
    env.engine.step(round(seconds / 0.001))
    return env.engine.data("qpos")[:, 0].numpy().copy()


MOTOR = '<motor name="m" joint="hinge"/>'


def test_a_shifted_centre_of_mass_shifts_the_balance() -> None:
    # It hangs where the centre of mass is below the hinge: at -pi/2 - atan2(z, 0.2) for a shift z
    env = worlds(rod(-9.81, 'damping="1"'), {"body_com_z": {}}, 0.0, 0.05)
    got = angle(env, 6.0, start=-1.0)
    np.testing.assert_allclose(got, -np.pi / 2 - np.arctan2([0.0, 0.05], 0.2), atol=2e-3)


def test_armature_slows_a_joint_as_inertia_does() -> None:
    # alpha = tau / (I + armature): 0.05 and 3 * 0.05 on top of I = 0.05
    env = worlds(rod(joint='armature="0.05"', actuator=MOTOR), {"joint_armature": {}}, 1.0, 3.0)
    got = angle(env, 0.2, torque=0.1)
    assert got[0] / got[1] == pytest.approx((ABOUT_HINGE + 0.15) / (ABOUT_HINGE + 0.05), rel=1e-3)


def test_dry_friction_holds_a_joint_until_the_torque_exceeds_it() -> None:
    env = worlds(rod(joint='frictionloss="0.1"', actuator=MOTOR), {"joint_frictionloss": {}}, 1.0, 3.0)
    got = angle(env, 0.3, torque=0.2)
    # (0.2 - 0.1) / 0.05 = 2 rad/s^2 for 0.3 s is 0.09 rad; against 0.3 N m it creeps only
    assert got[0] == pytest.approx(0.09, rel=0.05)
    assert abs(got[1]) < 0.01
    env = worlds(rod(actuator=MOTOR), {"joint_frictionloss_added": {}}, 0.0, 0.3)
    got = angle(env, 0.3, torque=0.2)
    assert got[0] == pytest.approx(0.18, rel=0.01)
    assert abs(got[1]) < 0.01


def test_a_stiffer_spring_yields_less() -> None:
    env = worlds(rod(joint='stiffness="2" damping="1"', actuator=MOTOR), {"joint_stiffness": {}}, 1.0, 2.5)
    np.testing.assert_allclose(angle(env, 5.0, torque=0.4), [0.2, 0.08], rtol=1e-3)  # torque / stiffness


def test_a_joint_without_a_spring_can_be_given_one() -> None:
    env = worlds(rod(joint='damping="1"', actuator=MOTOR), {"joint_stiffness_added": {}}, 2.0, 5.0)
    np.testing.assert_allclose(angle(env, 5.0, torque=0.4), [0.2, 0.08], rtol=1e-3)  # torque / stiffness


def test_a_joint_stops_at_its_shifted_range() -> None:
    xml = rod(actuator=MOTOR, joint='damping="1"', limited="true")
    env = worlds(xml, {"joint_range_upper": {}}, -0.3, 0.0, 0.3)
    np.testing.assert_allclose(angle(env, 6.0, torque=0.5), [0.7, 1.0, 1.3], atol=0.02)
    env = worlds(xml, {"joint_range_lower": {}}, -0.3, 0.0, 0.3)
    np.testing.assert_allclose(angle(env, 6.0, torque=-0.5), [-1.3, -1.0, -0.7], atol=0.02)


def test_gains_of_a_position_servo_decide_its_droop_and_its_damping() -> None:
    servo = '<position name="s" joint="hinge" kp="20" kv="2"/>'
    env = worlds(rod(-9.81, actuator=servo), {"actuator_kp": {}}, 1.0, 3.0)
    droop = angle(env, 5.0, torque=0.0)
    # kp q = -m g d cos q with m g d = 1.962: by iteration q = -0.09765 and -0.03268
    np.testing.assert_allclose(droop, [-0.09765, -0.03268], atol=2e-5)
    env = worlds(rod(actuator=servo), {"actuator_kd": {"range": [0.1, 3]}}, 0.2, 1.0, 3.0)
    overshoot = []
    env.engine.data("ctrl")[:] = 0.5
    for _ in range(300):
        env.engine.step(5)
        overshoot.append(env.engine.data("qpos")[:, 0].numpy().copy())
    # damping ratio kd / (2 sqrt(kp I)) = 0.2, 1 and 3: overshoot exp(-pi z / sqrt(1 - z^2)) = 0.527, none, none
    peak = np.max(overshoot, axis=0) / 0.5 - 1.0
    assert peak[0] == pytest.approx(0.527, abs=0.02)
    assert (peak[1:] < 0.01).all()
    assert overshoot[20][2] < overshoot[20][1]


def test_the_integral_gain_of_a_pid_removes_the_droop_faster() -> None:
    pid = '<pid name="p" joint="hinge" kp="20" kv="2" ki="10" input="pos"/>'
    env = worlds(rod(-9.81, actuator=pid), {"actuator_ki": {"range": [0, 5]}}, 0.0, 1.0, 5.0)
    droop = np.abs(angle(env, 2.0, torque=0.0))
    assert droop[0] == pytest.approx(0.0977, abs=1e-3)  # without it, that of kp alone
    assert droop[0] > 2 * droop[1] > 4 * droop[2]


def test_a_force_range_limits_what_an_actuator_can_do() -> None:
    servo = '<position name="s" joint="hinge" kp="1000" forcerange="-1 1"/>'
    env = worlds(rod(actuator=servo), {"actuator_force_range": {}}, 0.5, 1.0)
    np.testing.assert_allclose(angle(env, 0.1, torque=1.0), [0.05, 0.1], rtol=0.02)  # (F / 0.05) t^2 / 2


def test_a_tendons_spring_pulls_as_hard_as_it_is_stiff_and_long() -> None:
    xml = rod(joint='damping="1"', actuator=MOTOR).replace(
        "<actuator>",
        '<tendon><fixed name="t" stiffness="2" springlength="0.5"><joint joint="hinge" coef="1"/></fixed></tendon>'
        "<actuator>",
    )
    # It settles where stiffness (q - length) = torque: q = length + torque / stiffness
    env = worlds(xml, {"tendon_stiffness": {}}, 1.0, 2.0)
    np.testing.assert_allclose(angle(env, 5.0, torque=0.2), [0.6, 0.55], rtol=1e-3)
    env = worlds(xml, {"tendon_length_spring": {}}, 1.0, 1.2)
    np.testing.assert_allclose(angle(env, 5.0, torque=0.2), [0.6, 0.7], rtol=1e-3)


def test_a_tendon_stops_at_its_shifted_range() -> None:
    xml = rod(joint='damping="1"', actuator=MOTOR).replace(
        "<actuator>",
        '<tendon><fixed name="t" range="-1 0.8" limited="true"><joint joint="hinge" coef="1"/></fixed></tendon>'
        "<actuator>",
    )
    env = worlds(xml, {"tendon_range_upper": {}}, -0.2, 0.0)
    np.testing.assert_allclose(angle(env, 6.0, torque=0.3), [0.6, 0.8], atol=0.02)


def rest_height(env: Environment, seconds: float = 1.0) -> np.ndarray:
    """Where the box comes to rest, relative to where it began, m."""
    env.engine.step(round(seconds / 0.001))
    assert float(env.engine.data("qvel").abs().max()) < 1e-3
    return env.engine.data("qpos")[:, 0].numpy().copy()


@pytest.mark.parametrize(
    ("entry", "values", "expected"),
    [
        ({"body_size": {"of": "box"}}, (1.0, 1.3), 0.03),  # half its height of 0.1 m, 30 % more
        ({"geom_size": {"of": "shape"}}, (1.0, 1.3), 0.03),
        ({"geom_pos_z": {"of": "shape"}}, (0.0, -0.02), 0.02),  # its shape hangs lower, so it stands higher
        ({"body_pos_z": {"of": "box"}}, (0.0, 0.02), -0.02),  # measured from a higher place
    ],
)
def test_a_box_rests_where_its_shape_and_place_say(entry: dict[str, Any], values: tuple[float, ...], expected: float):
    low, high = rest_height(worlds(REST.format(height=0.1), entry, *values))
    assert high - low == pytest.approx(expected, abs=1e-4)


def test_soft_contacts_let_a_box_sink_deeper() -> None:
    for entry in ({"geom_solref": {"of": "shape"}}, {"geom_solref": {"of": "*"}}):
        low, high = rest_height(worlds(REST.format(height=0.1), entry, 1.0, 4.0), 3.0)
        assert high < 1.5 * low < 0
    hard, soft = rest_height(worlds(REST.format(height=0.1), {"geom_solimp_dmin": {}}, 0.0, -0.4))
    assert soft < 1.5 * hard < 0


SPRINGY = """
<mujoco>
  <option timestep="0.0005"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1" condim="1" {solver}/>
    <body pos="0 0 0.1">
      <joint type="slide" axis="0 0 1"/>
      <geom name="ball" size="0.1" mass="{mass}" condim="1" {solver}/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.mark.parametrize("of", ["*", "ball"])
@pytest.mark.parametrize(
    ("solimp", "depth"),
    [
        ("0.9 0.9 0.001", 0.1 * 9.81 * 0.02**2),  # manual: (1 - d) g (time constant * damping ratio)^2
        # Menagerie's foot, d = 0.015 + 0.985 y, y = 2 x^2 of x = r / 23 mm: r d^2 / (1 - d) = g * 0.02^2 at 10.784 mm
        ("0.015 1 0.023", 0.010784),
    ],
)
def test_stiffer_contacts_sink_in_less_by_that_factor(solimp: str, depth: float, of: str) -> None:
    solver = {"solver": f'solimp="{solimp}"', "mass": 2}
    xml = SPRINGY.format(**solver)
    xml = xml if of == "*" else xml.replace('name="ball"', 'name="ball" priority="1"')
    env = worlds(xml, {"contact_stiffness": {"of": of}}, 1.0, 4.0, 0.5)
    env.engine.step(2000)
    np.testing.assert_allclose(-env.engine.data("qpos")[:, 0], [depth, depth / 4, 2 * depth], rtol=2e-3)


@pytest.mark.parametrize("solref", ["0.02 1", "-2500 -100"])  # one contact in both formats: 1 / 0.02^2, 2 / 0.02
def test_damping_of_contacts_slows_how_a_ball_sinks_in_and_not_how_deep(solref: str) -> None:
    xml = SPRINGY.format(solver=f'solimp="0.9 0.9 0.001" solref="{solref}"', mass=1)
    env = worlds(xml, {"contact_damping": {}}, 1.0, 3.0)
    rest, omega, t = 0.1 * 9.81 * 0.02**2, 1 / 0.02, 0.03  # x'' = -0.1 g - 2 zeta omega x' - omega^2 x from 0
    env.engine.data("qpos")[:, 0] = -1e-9  # where it is on the floor, a contact would begin a step later
    env.engine.step(round(t / 0.0005))
    slow, fast = omega * (3 - 8**0.5), omega * (3 + 8**0.5)  # zeta = 3
    by_hand = [
        rest * (1 - (1 + omega * t) * np.exp(-omega * t)),
        rest * (1 - (fast * np.exp(-slow * t) - slow * np.exp(-fast * t)) / (fast - slow)),
    ]
    np.testing.assert_allclose(-env.engine.data("qpos")[:, 0], by_hand, rtol=0.03)
    env.engine.step(2000)
    np.testing.assert_allclose(-env.engine.data("qpos")[:, 0], rest, rtol=1e-3)


def test_a_margin_makes_contacts_act_from_afar_and_a_gap_only_shows_them() -> None:
    env = worlds(REST.format(height=0.1), {"geom_margin": {"of": "shape"}}, 0.0, 0.01)
    touching, hovering = rest_height(env)
    assert hovering - touching == pytest.approx(0.01, abs=5e-4)
    env = worlds(REST.format(height=0.105), {"geom_gap": {"of": "shape"}}, 0.0, 0.01)  # 5 mm above the floor
    assert isinstance(env.engine, CpuEngine)
    assert [env.engine.export_to_mujoco(i)[1].ncon for i in range(2)] == [0, 4]
    low, high = rest_height(env)
    assert low == pytest.approx(high, abs=1e-6)


BALL = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1" friction="1 0.0001 0.0001"/>
    <body pos="0 0 0.1">
      <freejoint/>
      <geom name="ball" size="0.1" mass="1" condim="6" friction="1 0.01 0.01"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.mark.parametrize(
    ("quantity", "speeds"),
    [
        ("geom_friction_roll", {0: 1.0, 4: 10.0}),  # rolling along x at 1 m/s
        ("geom_friction_spin", {5: 10.0}),  # spinning about the vertical
    ],
)
def test_rolling_and_spinning_friction_brake_only_what_they_are_named_after(
    quantity: str, speeds: dict[int, float]
) -> None:
    env = worlds(BALL, {quantity: {"of": "ball", "range": [0.5, 3]}}, 1.0, 3.0)
    for dof, speed in speeds.items():
        env.engine.data("qvel")[:, dof] = speed
    env.engine.step(50)
    (dof, speed), *_ = reversed(speeds.items())
    lost = speed - env.engine.data("qvel")[:, dof].numpy()
    assert lost[0] > 0
    assert lost[1] / lost[0] == pytest.approx(3.0, rel=0.1)
    other = {"geom_friction_roll": "geom_friction_spin", "geom_friction_spin": "geom_friction_roll"}[quantity]
    env = worlds(BALL, {other: {"of": "ball", "range": [0.5, 3]}}, 1.0, 3.0)
    for index, value in speeds.items():
        env.engine.data("qvel")[:, index] = value
    env.engine.step(50)
    same = env.engine.data("qvel")[:, dof].numpy()
    assert same[0] == pytest.approx(same[1], rel=1e-3)


def test_the_timestep_is_each_environments_own() -> None:
    xml = (
        '<mujoco><option timestep="0.002"/><worldbody><body><freejoint/><geom size="0.1"/></body></worldbody></mujoco>'
    )
    env = worlds(xml, {"timestep": {}}, 1.0, 0.5, 1.5)
    env.engine.step(100)
    np.testing.assert_allclose(env.engine.data("time").flatten().numpy(), [0.2, 0.1, 0.3])
    times = np.array([0.2, 0.1, 0.3])
    fallen = -env.engine.data("qpos")[:, 2].numpy()
    np.testing.assert_allclose(fallen, 9.81 * times**2 / 2 * (1 + 1 / 100), rtol=1e-9)  # semi-implicit: one step in 100


def test_a_delay_in_milliseconds_is_counted_in_each_environments_own_steps() -> None:
    # 20 steps of 2 ms or of 1 ms: a command 12 ms late takes effect after 6 or 12 of them
    xml = '<mujoco><option timestep="0.002" gravity="0 0 0"/><worldbody><body><joint name="j" type="slide"/>'
    xml += '<geom size="0.1" mass="1"/></body></worldbody><actuator><motor joint="j"/></actuator></mujoco>'
    entries = {"timestep": {"range": [0.5, 1.0]}, "action_delay": {"range": [0, 20]}}
    task = TinyTask(xml)
    env = build(task, 2, fixed_worlds(task, entries, [[1.0, 12.0], [0.5, 12.0]]))
    env.step(torch.ones(2, 1))
    # v = F t / m: (40 - 12) ms and (20 - 12) ms of pushing with 1 N
    np.testing.assert_allclose(env.engine.data("qvel")[:, 0].numpy(), [0.028, 0.008], rtol=1e-9)


def test_wind_carries_a_light_ball_along_and_denser_air_does_so_faster() -> None:
    xml = '<mujoco><option gravity="0 0 0" density="1"/><worldbody><body><freejoint/>'
    xml += '<geom size="0.1" mass="0.01"/></body></worldbody></mujoco>'
    entries = {"wind": {"of": "x"}, "air_density": {"range": [0, 2]}}
    task = TinyTask(xml)
    env = build(task, 3, fixed_worlds(task, entries | {"wind": {"of": "x", "range": [0, 3]}}, [[0, 0], [3, 0], [3, 2]]))
    env.engine.step(100)
    still, carried, faster = env.engine.data("qvel")[:, 0].tolist()
    assert still == 0.0
    assert 0.1 < carried < faster < 3.0


def test_viscosity_slows_a_ball() -> None:
    # Drag 3 pi eta D v, where D = sqrt(6 I / m) is the side of the box of equal inertia, I = 0.4 m r^2: D = 0.155 m
    xml = '<mujoco><option gravity="0 0 0" timestep="0.001"/><worldbody><body><freejoint/>'
    xml += '<geom size="0.1" mass="1"/></body></worldbody></mujoco>'
    env = worlds(xml, {"air_viscosity": {}}, 0.0, 0.5)
    env.engine.data("qvel")[:, 0] = 1.0
    env.engine.step(1000)
    free, slowed = env.engine.data("qvel")[:, 0].tolist()
    assert free == 1.0
    assert slowed == pytest.approx(np.exp(-3 * np.pi * 0.5 * np.sqrt(6 * 0.4 * 0.1**2)), rel=1e-3)
