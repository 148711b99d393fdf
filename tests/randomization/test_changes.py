"""Worlds that change within an episode: every consequence worked out by hand beside its test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import HINGE, SLIDER, TinyTask, build, snapshot
from envs.environment import Environment
from envs.manipulation.fetch import FetchTask
from envs.registry import make_task
from envs.task import Task
from randomization.catalogue.table import QUANTITIES
from randomization.changes import Change, Changing, fixed_because
from randomization.parameters import RandomizationError, build_parameters
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Manual

MOTOR = HINGE.replace('<position name="servo" joint="hinge" kp="20" kv="1"/>', '<motor name="servo" joint="hinge"/>')
FREE = MOTOR.replace('damping="0.5"', "")
BOUND = MOTOR.replace('joint="hinge"/>', 'joint="hinge" ctrllimited="true" ctrlrange="-1 1"/>', 1)


def changing(
    task: Task,
    entries: Mapping[str, Any],
    changes: list[tuple[float, float, dict[str, float]]],
    num_envs: int = 1,
    seed: int = 0,
    unchanged: bool = False,
) -> Environment:
    """Environments whose worlds change: at_s, over_s, values."""
    parts = [Change(at, over, {k: (v, v) for k, v in values.items()}) for at, over, values in changes]
    sampler = Changing(Manual(build_parameters(task, entries)), parts)
    return build(task, num_envs, DomainRandomizer(sampler.unchanged if unchanged else sampler, explore=False), seed)


def tiny(xml: str = HINGE, decimation: int = 10, **more: Any) -> TinyTask:
    return TinyTask(xml, decimation=decimation, max_episode_steps=10**6, **more)


def play(env: Environment, steps: int, action: float = 0.0) -> list[Tensor]:
    """What sensors show after each step."""
    return [
        env.step(torch.full((env.num_envs, env.task.action_size), action, dtype=torch.float64)).final.policy.clone()
        for _ in range(steps)
    ]


def speeds(env: Environment, steps: int, action: float = 0.0) -> list[float]:
    shown = []
    for _ in range(steps):
        env.step(torch.full((env.num_envs, env.task.action_size), action, dtype=torch.float64))
        shown.append(float(env.engine.data("qvel")[0, 0]))
    return shown


def test_friction_that_drops_brakes_half_as_much_from_that_moment() -> None:
    env = changing(tiny(SLIDER), {"geom_friction": {"range": [1, 1]}}, [(1.2, 0.0, {"geom_friction": 0.5})])
    speeds(env, 50)  # it comes to rest on the floor
    env.engine.data("qvel")[:, 0] = 2.0
    slows = -np.diff([2.0, *speeds(env, 20)]) / 0.02  # m/s^2, of 20 ms each; the change is before the eleventh
    np.testing.assert_allclose(slows[:10].mean(), 0.4 * 9.81, rtol=0.02)
    np.testing.assert_allclose(slows[10:].mean(), 0.2 * 9.81, rtol=0.02)


def test_a_mass_that_doubles_halves_the_acceleration_and_moves_nothing_else() -> None:
    env = changing(tiny(FREE), {"body_mass": {"range": [1, 1]}}, [(0.1, 0.0, {"body_mass": 2.0})])
    gains = np.diff([0.0, *speeds(env, 10, 0.1)])
    np.testing.assert_allclose(gains[5:], 0.5 * gains[:5], rtol=1e-9)
    # constants were computed anew for another configuration: the state is that of the motion all the same
    angle = 0.02 * np.cumsum(np.cumsum(gains)) - 0.01 * np.cumsum(gains)
    assert float(env.engine.data("qpos")[0, 0]) == pytest.approx(angle[-1], rel=0.1)


def test_gravity_that_turns_slowly_accelerates_by_what_it_has_become() -> None:
    task = tiny(SLIDER.replace('friction="0.4 0.005 0.0001"', 'friction="0 0 0"').replace('"0.05 ', '"0 '))
    env = changing(task, {"slope": {"quantity": "gravity", "of": "x", "range": [0, 0]}}, [(0.1, 0.2, {"slope": 1.0})])
    gains = np.diff([0.0, *speeds(env, 20)]) / 0.02
    ramp = np.clip((0.02 * np.arange(20) - 0.1) / 0.2, 0.0, 1.0)
    np.testing.assert_allclose(gains, ramp, atol=2e-3)


def test_a_delay_that_rises_holds_the_last_command_and_one_that_falls_lets_none_overtake() -> None:
    # Control and physics step of 2 ms; from step 5 on 6 ms late, from step 12 on not late
    env = changing(
        tiny(decimation=1), {"action_delay": {"range": [0, 0]}},
        [(0.010, 0.0, {"action_delay": 6.0}), (0.024, 0.0, {"action_delay": 0.0})],
    )  # fmt: skip
    shown = []
    for step in range(18):
        env.step(torch.full((1, 1), 0.01 * (step + 1), dtype=torch.float64))
        shown.append(round(100 * float(env.engine.data("ctrl")[0, 0])) - 1)
    # sent at 5, 6, ... arrives at 8, 9, ...; until then 4 holds. What is sent at 12 waits for what was sent at 11.
    assert shown == [0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17]


def test_whole_steps_of_latency_change_in_the_same_way() -> None:
    env = changing(
        tiny(decimation=1), {"action_latency": {"range": [0, 0]}},
        [(0.010, 0.0, {"action_latency": 3.0}), (0.024, 0.0, {"action_latency": 1.0})],
    )  # fmt: skip
    shown = []
    for step in range(18):
        env.step(torch.full((1, 1), 0.01 * (step + 1), dtype=torch.float64))
        shown.append(round(100 * float(env.engine.data("ctrl")[0, 0])) - 1)
    assert shown == [0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16]


def test_a_loose_camera_drifts_evenly_in_a_direction_of_its_own() -> None:
    task = tiny(spread=0.5)
    env = changing(
        task, {"observation_bias": {"of": "position", "range": [0, 0]}}, [(0.1, 0.4, {"observation_bias": 0.2})], 200
    )
    errors = [play(env, 1)[0][:, 0] - task.observe()[:, 0] for _ in range(40)]
    final = errors[-1]
    assert float(final.square().mean().sqrt()) == pytest.approx(0.2, rel=0.15)  # of 200 episodes
    for step, error in enumerate(errors):
        part = min(max((0.02 * step - 0.1) / 0.4, 0.0), 1.0)  # the reading after a step has the world of that step
        torch.testing.assert_close(error, part * final, rtol=1e-6, atol=1e-9)


def test_a_sensor_that_becomes_late_shows_nothing_newer_for_a_while() -> None:
    env = changing(
        tiny(FREE, decimation=1), {"observation_delay": {"of": "position", "range": [0, 0]}},
        [(0.010, 0.0, {"observation_delay": 6.0})],
    )  # fmt: skip
    env.engine.data("qvel")[:, 0] = 1.0  # rad/s, for ever
    places = [round(float(shown[0, 0]) / 0.002) for shown in play(env, 12)]
    # the reading after step 5 (the sixth) is the first of a late sensor
    assert places == [1, 2, 3, 4, 5, 5, 5, 5, 6, 7, 8, 9]


def test_a_battery_that_sags_takes_the_speed_that_a_motor_reaches() -> None:
    env = changing(
        tiny(BOUND.replace('damping="0.5"', 'damping="1e-6"')),
        {"motor_no_load_speed": {"range": [4, 4]}}, [(2.0, 2.0, {"motor_no_load_speed": 2.0})],
    )  # fmt: skip
    reached = speeds(env, 350, 1.0)
    assert reached[99] == pytest.approx(4.0, rel=0.03)
    assert reached[-1] == pytest.approx(2.0, rel=0.03)


def test_stiction_that_goes_lets_go_of_what_it_held() -> None:
    hard = MOTOR.replace('damping="0.5"', 'damping="0.5" solimpfriction="0.9999 0.9999 0.001"')
    env = changing(tiny(hard), {"motor_stiction": {"range": [0.2, 0.2]}}, [(0.2, 0.0, {"motor_stiction": 0.0})])
    moved = speeds(env, 100, 0.1)
    assert max(moved[:10]) < 1e-3  # 0.1 N m is less than what holds it
    assert moved[-1] == pytest.approx(0.1 / 0.5, rel=0.01)  # and then only damping does


def test_backlash_that_grows_keeps_the_motor_where_it_is_in_it() -> None:
    entries = {"actuator_backlash": {"range": [0.01, 0.01]}}
    changes = [(0.1, 0.0, {"actuator_backlash": 0.1})]
    env, same = (changing(tiny(MOTOR), entries, changes, unchanged=u) for u in (False, True))
    first, other = speeds(env, 5, 0.5), speeds(same, 5, 0.5)
    assert first == other
    assert first[-1] > 0  # it pushes: the slack is taken up, and stays so
    assert speeds(env, 5, 0.5)[-1] == speeds(same, 5, 0.5)[-1]
    assert speeds(env, 5, -0.5)[-1] > speeds(same, 5, -0.5)[-1]  # the other way it takes longer


PHYSICS = [name for name, q in QUANTITIES.items() if q.channel == "physics" and not q.changes_timestep]


def test_what_a_change_writes_is_what_a_reset_writes() -> None:
    task = make_task("FetchPush-v4")
    compared = 0
    for name in PHYSICS:
        try:
            found = build_parameters(task, {name: {}})[0]
            (low, high), nominal = found.limits, found.nominal
            value = high if abs(high - nominal) > abs(low - nominal) else low
            reset = changing(FetchTask("FetchPush"), {name: {"range": [value, value]}}, [], 2, seed=3)
        except RandomizationError:
            continue  # not in this task, or not as far as that
        _compare(name, nominal, value, reset)
        compared += 1
    assert compared > 25


def _compare(name: str, nominal: float, value: float, reset: Environment) -> None:
    env = changing(
        FetchTask("FetchPush"), {name: {"range": [nominal, nominal]}}, [(0.04, 0.0, {name: value})], 2, seed=3
    )
    before = {field: env.engine.field(field).clone() for field in QUANTITIES[name].writes}
    play(env, 2)
    changed = False
    for field, was in before.items():
        torch.testing.assert_close(env.engine.field(field), reset.engine.field(field), rtol=1e-12, atol=0.0, msg=name)
        changed |= not torch.equal(was, env.engine.field(field))
    assert changed, name
    for field in ("body_subtreemass", "dof_invweight0"):
        torch.testing.assert_close(env.engine.field(field), reset.engine.field(field), rtol=1e-9, atol=1e-12, msg=name)


def test_a_value_that_a_task_has_put_elsewhere_is_moved_by_as_much() -> None:
    env = changing(tiny(), {"joint_damping": {"range": [1, 1]}}, [(0.02, 0.0, {"joint_damping": 3.0})])
    env.engine.field("dof_damping")[0, 0] = 0.7  # 0.2 above the model's
    play(env, 2)
    assert float(env.engine.field("dof_damping")[0, 0]) == pytest.approx(1.7)  # 3 times 0.5, and that 0.2


ENTRIES = {
    "body_mass": {"range": [0.5, 2.0], "distribution": "loguniform"}, "action_delay": {"range": [0, 40]},
    "observation_bias": {"of": "position", "range": [0, 0.1]}, "action_noise": {"range": [0, 0.1]},
}  # fmt: skip
CHANGES = [
    Change(0.1, 0.1, {"body_mass": (1.0, 3.0), "observation_bias": (0.0, 0.3)}),
    Change(0.16, 0.0, {"action_delay": (60.0, 100.0)}),
]


def drawn(num_envs: int, unchanged: bool = False) -> Environment:
    task = TinyTask(decimation=10, max_episode_steps=20, spread=0.3)
    sampler = Changing(Manual(build_parameters(task, ENTRIES)), CHANGES)
    return build(task, num_envs, DomainRandomizer(sampler.unchanged if unchanged else sampler, explore=False), 7)


def tracks(env: Environment, steps: int) -> dict[int, list[Tensor]]:
    """What is shown, by episode."""
    found: dict[int, list[Tensor]] = {}
    for _ in range(steps):
        number = env.rng.episode.tolist()
        result = env.step(0.5 * env.observed.policy[:, :1].float().sin())
        for i, n in enumerate(number):
            found.setdefault(n, []).append(result.final.policy[i].clone())
    return found


def test_an_episode_is_the_same_at_any_number_of_environments() -> None:
    many, few = tracks(drawn(6), 20), tracks(drawn(2), 60)
    assert set(many) == set(few)
    for number, track in many.items():
        assert torch.equal(torch.stack(track), torch.stack(few[number]))


def test_until_something_changes_an_episode_is_that_of_the_world_that_stays() -> None:
    changes, stays = tracks(drawn(4), 20), tracks(drawn(4, unchanged=True), 20)
    for number, track in changes.items():
        assert torch.equal(torch.stack(track[:5]), torch.stack(stays[number][:5]))
        assert not torch.equal(torch.stack(track[6:]), torch.stack(stays[number][6:]))


def test_the_next_episode_begins_in_a_world_as_it_was_drawn() -> None:
    env = drawn(2)
    layer = env.layer
    assert isinstance(layer, DomainRandomizer)
    first = layer.lam.clone()
    tracks(env, 19)
    assert not torch.equal(layer.lam, first)
    tracks(env, 1)
    mass, delay = layer.lam[:, 0], layer.lam[:, 1]
    assert bool(((mass >= 0.5) & (mass <= 2.0) & (delay <= 40.0)).all())


def test_an_interrupted_episode_goes_on_with_the_same_bits() -> None:
    env, again = drawn(3), drawn(3)
    tracks(env, 7)
    state = snapshot(env)
    rest = tracks(env, 12)
    again.load_state_dict(state)
    for number, track in tracks(again, 12).items():
        assert torch.equal(torch.stack(track), torch.stack(rest[number]))


def test_a_policy_that_is_told_the_world_is_told_what_it_has_become() -> None:
    env = changing(tiny(), {"joint_damping": {"range": [1, 1]}}, [(0.02, 0.0, {"joint_damping": 3.0})])
    told = [env.observed.privileged, *(env.step(torch.zeros(1, 1)).observed.privileged for _ in range(2))]
    values = [float(group[0, -1]) for group in told if group is not None]
    assert values == [-1.0, -1.0, 1.0]  # of limits from 1 to 3


@pytest.mark.parametrize(
    ("entries", "values", "said"),
    [
        ({"joint_damping": {}}, {"joint_dampin": 2.0}, "joint_dampin: no such parameter .did you mean 'joint_damping'"),
        ({"joint_damping": {}}, {"joint_damping": -1.0}, "joint_damping: -1 is not within"),
        ({"timestep": {}}, {"timestep": 1.1}, "timestep cannot change within an episode: times are counted in its"),
        ({"actuator_stuck": {}}, {"actuator_stuck": 1.0}, "actuator_stuck holds for a whole episode and cannot change"),
        ({"adversary_action": {}}, {"adversary_action": 1.0}, "adversary_action holds for a whole episode"),
        (
            {"actuator_strength": {"range": [1, 1]}, "actuator_failure": {}}, {"actuator_strength": 0.5},
            "actuator_failure: holds for a whole episode and writes actuator_",
        ),
    ],
)  # fmt: skip
def test_what_cannot_change_is_refused(entries: dict[str, Any], values: dict[str, float], said: str) -> None:
    with pytest.raises(RandomizationError, match=said):
        changing(tiny(), entries, [(0.1, 0.0, values)])


BUSY = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <body name="arm" pos="0 0 1">
      <joint name="hinge" axis="0 1 0" damping="0.5"/>
      <geom name="rod" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="1"/>
    </body>
    <body name="ball" pos="2 0 1"><freejoint/><geom name="ball" type="sphere" size="0.1" mass="1"/></body>
  </worldbody>
  <actuator><position name="servo" joint="hinge" kp="20" kv="1" ctrlrange="-1 1" forcerange="-4 4"/></actuator>
</mujoco>
"""
EFFECTS = [
    name for name, q in QUANTITIES.items()
    if q.channel in ("action", "observation", "disturbance") and not fixed_because(name)
]  # fmt: skip
ENDS = {"motor_thermal_time": 0.01, "motor_no_load_speed": 1.0, "encoder_resolution": 0.2, "motor_stribeck_speed": 5.0}
BESIDE = {"motor_continuous_torque": 0.3, "motor_no_load_speed": 4.0, "actuator_backlash": 0.1, "motor_stiction": 1.0}


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_acts_from_the_change_on_and_not_before(name: str) -> None:
    quantity = QUANTITIES[name]
    entries: dict[str, Any] = {name: {"range": [quantity.nominal, quantity.nominal]}}
    if quantity.needs:
        value = BESIDE.get(quantity.needs, QUANTITIES[quantity.needs].default_range[1])
        entries[quantity.needs] = {"range": [value, value]}
    if name == "motor_continuous_torque":  # which warm motors feel
        entries["motor_start_heat"] = {"range": [1.0, 1.0]}
    end = ENDS.get(name, quantity.default_range[1])
    if end == quantity.nominal:
        end = quantity.default_range[0]
    tracks = []
    for unchanged in (True, False):
        env = changing(tiny(BUSY), entries, [(0.6, 0.0, {name: end})], 1, 5, unchanged)
        rows = []
        for step in range(90):
            result = env.step(torch.full((1, 1), 0.9 * float(np.sin(0.4 * step)), dtype=torch.float64))
            rows.append(torch.cat((result.final.policy[0], env.engine.data("qpos")[0])))
        tracks.append(torch.stack(rows))
    same = (tracks[0] == tracks[1]).all(dim=1)
    assert bool(same[:30].all())  # steps of 20 ms: the one that begins at 0.6 s is the first in the other world
    assert not bool(same[30:].all())
