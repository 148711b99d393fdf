"""Motors as they are: every consequence worked out by hand beside its test, and MuJoCo's own DC motor."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TinyTask, build, fixed_worlds
from envs.environment import Environment
from randomization.effects.motors.motors import Motors
from randomization.parameters import RandomizationError, build_parameters
from randomization.randomizer import DomainRandomizer

# Two rotors of 0.02 kg m^2 without gravity, each on a motor that gives 2 N m at most.
ROTORS = """
<mujoco>
  <option timestep="0.001" gravity="0 0 0"/>
  <worldbody>
    <body name="a"><joint name="a" axis="0 0 1" armature="0.02" {joint}/><geom size="0.01" mass="1e-6"/></body>
    <body name="b" pos="1 0 0"><joint name="b" axis="0 0 1" armature="0.02" {joint}/><geom size="0.01" mass="1e-6"/>
    </body>
  </worldbody>
  <actuator>{a}<motor name="b" joint="b" gear="2" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
INERTIA = 0.02
HARD = 'solimpfriction="0.9999 0.9999 0.001"'  # by default MuJoCo lets a joint that friction holds creep
BARE = '<motor name="a" joint="a" gear="2" ctrllimited="true" ctrlrange="-1 1"/>'
STRONG = '<motor name="a" joint="a" gear="-4" forcelimited="true" forcerange="-0.5 0.5"/>'  # geared the other way


def rotors(
    entries: dict[str, Any], worlds: list[list[float]], joint: str = "", a: str = BARE, decimation: int = 10
) -> Environment:
    wide = {name: {"range": _around(worlds, i), "of": "a"} | entry for i, (name, entry) in enumerate(entries.items())}
    for name in wide:
        if name.startswith("supply") or name in ("motor_thermal_time", "motor_stribeck_speed"):
            del wide[name]["of"]
    task = TinyTask(ROTORS.format(joint=joint, a=a), decimation=decimation, max_episode_steps=10**6)
    return build(task, len(worlds), fixed_worlds(task, wide, worlds))


def _around(worlds: list[list[float]], column: int) -> list[float]:
    values = [world[column] for world in worlds]
    return [min(values), max(values)]


def play(env: Environment, seconds: float, *commands: float) -> Environment:
    for _ in range(round(seconds / env.task.control_period_s)):
        env.step(torch.tensor([commands], dtype=torch.float64).expand(env.num_envs, -1))
    return env


def spinning(env: Environment, speed: float, *commands: float) -> Tensor:
    """Torque of motor a at a speed under commands [N], in the physics step that follows."""
    torque = env.engine.data("qfrc_actuator")
    env.engine.data("qvel")[:, 0] = speed
    env.task.decimation = 1
    env.step(torch.tensor([commands], dtype=torch.float64).expand(env.num_envs, -1))
    return torque[:, 0].clone()


def speed(env: Environment) -> np.ndarray:
    return env.engine.data("qvel")[:, 0].numpy().copy()


def motors(env: Environment) -> Motors:
    assert isinstance(env.layer, DomainRandomizer)
    (effect,) = (e for e in env.layer._effects.effects.values() if isinstance(e, Motors))
    return effect


def test_a_motor_spins_up_as_mujocos_own_dc_motor_does() -> None:
    # Torque constant 0.1, resistance 0.05, 1 V: stall torque 0.1 / 0.05 = 2 N m, no-load speed 1 / 0.1 = 10 rad/s
    theirs = mujoco.MjModel.from_xml_string(
        ROTORS.format(joint="", a='<dcmotor name="a" joint="a" motorconst="0.1" resistance="0.05"/>')
    )
    data = mujoco.MjData(theirs)
    data.ctrl[:] = 1.0
    env = rotors({"motor_no_load_speed": {}}, [[10.0]])
    for share in (0.2, 0.5, 1.0):  # of the time constant I w0 / stall = 0.1 s
        while data.time < share * 0.1 - 1e-9:
            mujoco.mj_step(theirs, data)
        play(env, share * 0.1 - float(env.engine.data("time")[0]), 1.0, 0.0)
        assert speed(env)[0] == pytest.approx(data.qvel[0], rel=1e-9)
    assert speed(env)[0] == pytest.approx(10.0 * (1.0 - np.exp(-1.0)), rel=5e-3)


@pytest.mark.parametrize("a", [BARE, STRONG])
def test_no_load_speed_stall_torque_and_all_four_quadrants(a: str) -> None:
    forward = -1.0 if a is STRONG else 1.0  # what turns it forward; beyond its limit where that is 0.5

    def torque(at: float, command: float) -> list[float]:
        entries: dict[str, Any] = {"motor_no_load_speed": {}, "motor_stall_torque": {}}
        return spinning(rotors(entries, [[10.0, 1.0], [10.0, 2.0]], a=a), at, forward * command, 0.0).tolist()

    # 2 N m at most; the voltage allows 2 (1 - v / 10), or 4 (1 - v / 10)
    assert torque(0.0, 1.0) == pytest.approx([2.0, 2.0])
    assert torque(4.0, 1.0) == pytest.approx([1.2, 2.0])  # driving
    assert torque(7.5, 1.0) == pytest.approx([0.5, 1.0])
    assert torque(7.5, -1.0) == pytest.approx([-2.0, -2.0])  # braking: all that the drive bears
    assert torque(-7.5, -1.0) == pytest.approx([-0.5, -1.0])
    assert torque(-7.5, 1.0) == pytest.approx([2.0, 2.0])
    assert torque(12.0, 1.0) == pytest.approx([-0.4, -0.8])  # driven beyond its speed: it brakes, -2 * 0.2
    assert torque(12.0, 0.0) == pytest.approx([-0.4, -0.8])
    long = play(rotors({"motor_no_load_speed": {}}, [[10.0], [3.0]], a=a), 2.0, forward, 0.0)
    np.testing.assert_allclose(speed(long), [10.0, 3.0], rtol=1e-6)


def test_a_curve_too_steep_for_the_timestep_settles_all_the_same() -> None:
    # 2 N m over 0.01 rad/s on 0.02 kg m^2: 10 times what an explicit step of 1 ms bears
    env = play(rotors({"motor_no_load_speed": {}}, [[0.01]]), 0.2, 1.0, 0.0)
    assert speed(env)[0] == pytest.approx(0.01, rel=1e-6)


def test_limits_hold_within_a_control_step_and_not_once_per_one() -> None:
    slow, fast = (rotors({"motor_no_load_speed": {}}, [[10.0]], decimation=d) for d in (50, 1))
    assert speed(play(slow, 0.2, 1.0, 0.0)).tolist() == speed(play(fast, 0.2, 1.0, 0.0)).tolist()


def test_a_supply_sags_under_the_power_that_all_motors_draw() -> None:
    # Against 0.1 N m s/rad with 20 rad/s and 2 N m: at 0.8 of the voltage 2 (0.8 - v / 20) = 0.1 v, so v = 8 rad/s and
    # 0.8 N m. That draws 0.8 (8 + 0.8 * 20 / 2) = 12.8 W: R / V^2 = 0.8 * 0.2 / 12.8 = 1 / 80 per W.
    entries: dict[str, Any] = {"motor_no_load_speed": {"of": "*"}, "supply_sag": {}}
    worlds = [[20.0, 12.5], [20.0, 0.0]]
    env = play(rotors(entries, worlds, joint='damping="0.1"'), 3.0, 1.0, 0.0)
    np.testing.assert_allclose(motors(env).voltage[:, 0], [0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(speed(env), [8.0, 10.0], rtol=1e-5)
    # Both motors: the sum counts. With s of the voltage v = 10 s, torque s, each draws s (10 s + 10 s) = 20 s^2, and
    # s (1 - s) = 40 s^2 / 80 leads to s = 2 / 3
    play(env, 3.0, 1.0, 1.0)
    np.testing.assert_allclose(motors(env).voltage[:, 0], [2 / 3, 1.0], rtol=1e-6)
    np.testing.assert_allclose(speed(env), [20 / 3, 10.0], rtol=1e-5)


def test_a_motor_warms_with_the_square_of_its_torque_cools_and_is_limited_to_what_it_bears_for_ever() -> None:
    # It bears 0.5 * 2 = 1 N m. Half of that leads to 0.25 of the allowed rise; after one time constant to 63 % of it.
    entries: dict[str, Any] = {"motor_continuous_torque": {}, "motor_thermal_time": {}, "motor_start_heat": {}}
    stiff = 'damping="1000"'
    env = play(rotors(entries, [[0.5, 1.0, 0.0], [0.5, 1.0, 1.0]], joint=stiff), 1.0, 0.25, 0.0)
    left = np.exp(-1.0)
    np.testing.assert_allclose(motors(env).heat[:, 0], [0.25 * (1.0 - left), 0.25 + 0.75 * left], rtol=1e-9)
    play(env, 10.0, 0.25, 0.0)
    np.testing.assert_allclose(motors(env).heat[:, 0], 0.25, rtol=1e-3)
    play(env, 1.0, 0.0, 0.0)
    np.testing.assert_allclose(motors(env).heat[:, 0], 0.25 * left, rtol=1e-3)  # it recovers
    cold = play(rotors(entries, [[0.5, 1.0, 0.0]], joint=stiff), 0.1, 1.0, 0.0)
    assert cold.engine.data("qfrc_actuator")[0, 0] == pytest.approx(2.0)  # heat 4 (1 - exp(-0.1)) = 0.38: the peak
    play(cold, 20.0, 1.0, 0.0)
    assert cold.engine.data("qfrc_actuator")[0, 0] == pytest.approx(1.0, rel=1e-3)
    assert float(motors(cold).heat[0, 0]) == pytest.approx(1.0, rel=1e-3)


def test_efficiency_of_a_gear_is_the_ratio_of_powers_in_either_direction() -> None:
    entries: dict[str, Any] = {"gear_efficiency": {}, "gear_backdrive_efficiency": {}}
    worlds = [[0.8, 0.5], [1.0, 1.0]]
    env = play(rotors(entries, worlds, joint='damping="0.1"'), 3.0, 0.5, 0.0)
    power = env.engine.data("actuator_force")[:, 0].numpy() * 2.0 * speed(env)
    np.testing.assert_allclose(0.1 * speed(env) ** 2 / power, [0.8, 1.0], rtol=1e-4)
    # The joint, pulled by 1 N m, drives a motor that resists with 0.4: 0.4 / 0.5 = 0.8 are needed for that
    env = rotors(entries, worlds)
    env.engine.data("qfrc_applied")[:, 0] = 1.0
    before = speed(play(env, 0.1, -0.2, 0.0))
    after = speed(play(env, 0.1, -0.2, 0.0))
    np.testing.assert_allclose((after - before) / 0.1, np.array([1.0 - 0.8, 1.0 - 0.4]) / INERTIA, rtol=2e-3)


def test_a_gear_that_is_hard_to_drive_back_holds_a_load_and_still_starts() -> None:
    entries: dict[str, Any] = {"gear_efficiency": {}, "gear_backdrive_efficiency": {}}
    env = rotors(entries, [[0.7, 0.3]], joint=HARD)
    env.engine.data("qfrc_applied")[:, 0] = -1.0  # 0.4 / 0.3 > 1: the motor alone would give way
    assert abs(speed(play(env, 1.0, 0.2, 0.0))[0]) < 1e-3
    # It starts where 0.7 * torque exceeds the load: 1 / 0.7 = 1.43 N m
    assert abs(speed(play(env, 0.2, 0.70, 0.0))[0]) < 1e-3
    assert speed(play(env, 0.2, 0.75, 0.0))[0] == pytest.approx((0.7 * 1.5 - 1.0) * 0.2 / INERTIA, rel=0.1)


def test_friction_grows_with_load() -> None:
    env = play(rotors({"motor_friction_load": {}}, [[0.25], [0.0]]), 0.1, 0.5, 0.0)  # 1 N m
    np.testing.assert_allclose(speed(env), np.array([0.75, 1.0]) * 0.1 / INERTIA, rtol=5e-3)
    # of the 2 N m that the motor exerts, not of the 20 that its servo asks for
    servo = '<position name="a" joint="a" kp="20" {}/>'
    for limit, joint in (('forcerange="-2 2"', ""), ("", 'actuatorfrcrange="-2 2"')):
        env = rotors({"motor_friction_load": {}}, [[0.25], [0.0]], a=servo.format(limit), joint=joint)
        np.testing.assert_allclose(speed(play(env, 0.05, 1.0, 0.0)), np.array([1.5, 2.0]) * 0.05 / INERTIA, rtol=5e-3)


def test_friction_at_rest_holds_and_is_lost_with_speed() -> None:
    entries: dict[str, Any] = {"motor_stiction": {}, "motor_stribeck_speed": {}}
    env = rotors(entries, [[0.5, 0.1], [0.3, 0.1]], joint='frictionloss="0.1" ' + HARD)  # 0.6 and 0.4 N m at rest
    # 0.5 N m move the second, which then has 0.1 to overcome
    got = speed(play(env, 0.5, 0.25, 0.0))
    assert abs(got[0]) < 1e-3
    assert got[1] == pytest.approx((0.5 - 0.1) * 0.5 / INERTIA, rel=0.1)
    # at the Stribeck speed 0.1 + 0.5 exp(-1) of friction are left, at 20 times that 0.1
    for at, friction in ((0.1, 0.1 + 0.5 * np.exp(-1.0)), (2.0, 0.1)):
        fresh = rotors(entries, [[0.5, 0.1]], joint='frictionloss="0.1" ' + HARD)
        spinning(fresh, at, 0.5, 0.0)  # 1 N m, one step of 1 ms
        assert (speed(fresh)[0] - at) / 0.001 * INERTIA == pytest.approx(1.0 - friction, rel=2e-2)


SERVO = '<position name="a" joint="a" kp="20" kv="0.5" gear="2"/>'


def test_a_servo_acts_on_the_angle_that_its_encoder_shows() -> None:
    env = rotors({"encoder_resolution": {}}, [[0.1], [0.0]], a=SERVO)
    env.engine.data("qpos")[:, 0] = 0.13
    # length 2 * 0.13, seen as 2 * 0.1; force -20 * 0.2, torque twice that
    np.testing.assert_allclose(spinning(env, 0.0, 0.0, 0.0), [-20 * 0.2 * 2, -20 * 0.26 * 2], rtol=1e-12)


def test_nominal_values_and_other_motors_leave_the_same_bits() -> None:
    task = TinyTask(ROTORS.format(joint='damping="0.1" frictionloss="0.05"', a=SERVO), 10, 10**6)
    plain = build(task, 2)
    nominal: dict[str, Any] = {
        "motor_friction_load": {}, "gear_efficiency": {}, "gear_backdrive_efficiency": {}, "motor_stiction": {},
        "encoder_resolution": {}, "motor_no_load_speed": {"of": "b"}, "motor_continuous_torque": {"of": "b"},
    }  # fmt: skip
    worlds = [[0.0, 1.0, 1.0, 0.0, 0.0, 5.0, 0.5]]
    disturbed = rotors(nominal, worlds * 2, joint='damping="0.1" frictionloss="0.05"', a=SERVO)
    for env in (plain, disturbed):
        play(env, 0.5, 0.3, 0.0)
    assert torch.equal(plain.engine.data("qpos")[:, 0], disturbed.engine.data("qpos")[:, 0])


def test_a_resumed_environment_has_the_same_bits() -> None:
    entries: dict[str, Any] = {
        "motor_no_load_speed": {"of": "*"}, "supply_sag": {}, "motor_continuous_torque": {}, "motor_stiction": {}
    }  # fmt: skip
    world = [10.0, 20.0, 0.3, 0.1]
    env = play(rotors(entries, [world]), 0.3, 1.0, -1.0)
    state = env.state_dict()
    play(env, 0.3, -1.0, 1.0)
    again = rotors(entries, [world])
    again.load_state_dict(state)
    play(again, 0.3, -1.0, 1.0)
    assert torch.equal(env.engine.data("qvel"), again.engine.data("qvel"))
    assert torch.equal(motors(env).heat, motors(again).heat)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"motor_no_load_speed": {"of": "a"}}, "a is no motor or servo at a hinge or slide, without dynamics or delay"),
        ({"motor_stall_torque": {"of": "b"}}, "does nothing without motor_no_load_speed of b"),
        ({"gear_efficiency": {"of": "b", "range": [0.0, 1.0]}}, "is not within"),
        ({"encoder_resolution": {"of": "b"}}, "that acts on its angle"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(entries: dict[str, Any], said: str) -> None:
    task = TinyTask(ROTORS.format(joint="", a='<position name="a" joint="a" kp="20"/>'))  # no largest force
    with pytest.raises(RandomizationError, match=r"^[^\n]*$") as error:
        build_parameters(task, entries)
    assert said in str(error.value)
