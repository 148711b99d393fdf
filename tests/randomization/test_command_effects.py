"""What happens to commands on their way: lost, late by a varying time, ignored, without force, taken up by slack."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import HINGE, SLIDER, FixedWorlds, TinyTask, build, fixed_worlds
from envs.environment import Environment
from envs.manipulation.fetch import FetchTask
from randomization.effects.actions.bursty_delay import BurstyDelay
from randomization.effects.actions.delay_buffer import CommandDelayBuffer
from randomization.effects.context import EffectContext
from randomization.effects.parameter_index import StepRandomNumbers
from randomization.effects.step_durations import StepDurations
from randomization.parameters import Parameter, RandomizationError, build_parameters

N = 1000
# A joint whose gears have play: the motor drives `driven`, the arm hangs on `slack` (MuJoCo's two-joint recipe).
PLAY = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"/>
  <worldbody>
    <body>
      <joint name="driven" axis="0 1 0" armature="0.01" damping="0.2"/>
      <joint name="slack" axis="0 1 0" limited="true" range="-5 5"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="1"/>
      <body pos="0.3 0 0">
        <joint name="wrist" axis="0 1 0" limited="true" range="-30 30"/>
        <geom type="sphere" size="0.03" mass="0.1"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="motor" joint="driven"/>
    <muscle name="muscle" joint="wrist" lengthrange="0 1"/>
  </actuator>
</mujoco>
"""
MOTOR = HINGE.replace('<position name="servo" joint="hinge" kp="20" kv="1"/>', '<motor name="servo" joint="hinge"/>')


def hinge(
    entries: dict[str, Any], worlds: list[list[float]], xml: str = HINGE, decimation: int = 1, episode: int = 1000
) -> Environment:
    task = TinyTask(xml, decimation=decimation, max_episode_steps=episode)
    return build(task, len(worlds), fixed_worlds(task, entries, worlds))


def arrived(env: Environment, actions: list[float]) -> Tensor:
    """Commands [T, N] in force at the end of each control step."""
    shown = []
    for action in actions:
        env.step(torch.full((env.num_envs, env.task.action_size), action, dtype=torch.float64))
        shown.append(env.engine.data("ctrl")[:, 0].clone())
    return torch.stack(shown)


def test_a_lost_command_leaves_the_one_before_it_in_force() -> None:
    env = hinge({"action_dropout": {"range": [0, 1]}}, [[0.3]] * N)
    sent = [0.1, 0.2, 0.3, 0.4, 0.5]
    shown = arrived(env, sent)
    before = torch.cat((torch.zeros(1, N), shown[:-1]))
    through = shown == torch.tensor(sent, dtype=torch.float64)[:, None]
    assert (through | (shown == before)).all()
    assert abs(float(through.double().mean()) - 0.7) < 4.5 * math.sqrt(0.21 / through.numel())


def test_without_any_command_the_robot_does_what_an_action_of_zero_does() -> None:
    env = hinge({"action_dropout": {"range": [0, 1]}}, [[1.0], [0.0]], episode=3)
    shown = arrived(env, [0.5, 0.6])
    assert shown.tolist() == [[0.0, 0.5], [0.0, 0.6]]


def test_commands_with_varying_delays_arrive_in_order_and_of_two_together_the_newer_counts() -> None:
    line = CommandDelayBuffer(1, 1, 10, 30, torch.device("cpu"), torch.float64)
    line.reset(torch.tensor([True]), torch.tensor([0]))
    line.fill(torch.zeros(1, 1, dtype=torch.float64))
    got = []
    # sent at 0, 10, 20, 30, 40 with these delays: due at 12, 35, 23 (waits until 35), 30 (also), 65
    for value, delay in enumerate([12, 25, 3, 0, 25], start=1):
        got += line.send(torch.full((1, 1), float(value)).double(), torch.tensor([delay]))[0, :, 0].tolist()
    assert got == [0] * 12 + [1] * 23 + [4] * 15
    for _ in range(2):
        got += line.send(torch.full((1, 1), 9.0).double(), torch.tensor([30]))[0, :, 0].tolist()
    assert got[50:] == [4] * 15 + [5] * 5


def test_a_command_of_the_last_episode_does_not_hold_up_those_of_the_next() -> None:
    line = CommandDelayBuffer(2, 1, 10, 30, torch.device("cpu"), torch.float64)
    line.reset(torch.tensor([True, True]), torch.tensor([0, 0]))
    line.fill(torch.zeros(2, 1, dtype=torch.float64))
    line.send(torch.ones(2, 1, dtype=torch.float64), torch.tensor([30, 30]))
    line.reset(torch.tensor([True, False]), torch.tensor([0, 0]))
    line.fill(torch.full((2, 1), 7.0, dtype=torch.float64))
    got = line.send(torch.full((2, 1), 2.0, dtype=torch.float64), torch.tensor([4, 4]))[:, :, 0].tolist()
    assert got == [[7.0] * 4 + [2.0] * 6, [0.0] * 10]


@pytest.mark.parametrize("decimation", [1, 4, 20])
def test_varying_delays_agree_with_a_queue_that_is_simulated_one_physics_step_at_a_time(decimation: int) -> None:
    chance, steps, longest = random.Random(decimation), 60, 45
    line = CommandDelayBuffer(1, 1, decimation, longest, torch.device("cpu"), torch.float64)
    line.reset(torch.tensor([True]), torch.tensor([0]))
    line.fill(torch.zeros(1, 1, dtype=torch.float64))
    got, due, expected = [], [0], []
    for t in range(steps):
        delay = chance.randint(-3, longest + 5)
        got += line.send(torch.full((1, 1), t + 1.0).double(), torch.tensor([delay]))[0, :, 0].tolist()
        due.append(max(due[-1], t * decimation + min(max(delay, 0), longest)))
    for s in range(steps * decimation):
        sent = s // decimation + 1
        expected.append(float(max(i for i in range(sent + 1) if due[i] <= s)))
    assert got == expected


def test_jitter_varies_the_delay_of_every_command_around_that_of_the_episode() -> None:
    entries = {"action_delay": {"range": [0, 40]}, "action_delay_jitter": {"range": [0, 8]}}
    env = hinge(entries, [[20.0, 4.0]] * N, decimation=40)  # delays of 10 +- 2 physics steps within one of 40
    schedules: list[Tensor] = []
    step = env.engine.step
    env.engine.step = lambda n, commands=None: (schedules.append(commands), step(n, commands))[1]  # pyright: ignore
    arrived(env, [0.1, 0.2, 0.3])
    for before, sent, schedule in zip([0.0, 0.1, 0.2], [0.1, 0.2, 0.3], schedules, strict=True):
        late = (schedule[:, :, 0] == before).sum(dim=1).double()
        assert ((schedule[:, :, 0] == before) | (schedule[:, :, 0] == sent)).all()
        assert abs(float(late.mean()) - 10.0) < 4.5 * 2.0 / math.sqrt(N)
        assert abs(float(late.var()) - (4.0 + 1 / 12)) < 4.5 * 4.1 * math.sqrt(2 / N)  # + rounding
    assert len(torch.unique((schedules[0] == 0.0).sum(dim=1))) > 5


def test_a_congested_line_is_late_by_what_the_burst_adds() -> None:
    # 20 ms at 2 ms a physics step and one physics step per control step: 10 steps more than the usual 2
    entries = {
        "action_delay": {"range": [0, 10]},
        "action_burst_delay": {"range": [0, 20]},
        "action_burst_rate": {"range": [0, 1e9]},
        "action_burst_time": {"range": [1, 1e9]},
    }
    env = hinge(entries, [[4.0, 20.0, 1e9, 1e9], [4.0, 0.0, 1e9, 1e9], [4.0, 20.0, 0.0, 1.0]])
    shown = arrived(env, [0.1 * i for i in range(1, 21)])
    first = (shown != 0.0).to(torch.int8).argmax(dim=0).tolist()
    assert first == [12, 2, 2]  # always congested, nothing added, never congested


def test_congestion_comes_and_goes_at_its_rate_and_lasts_its_time() -> None:
    # p = 1 - exp(-2 * 0.04) = 0.0769 and q = 1 - exp(-0.04 / 0.2) = 0.1813 per step: congested p / (p + q) = 0.298
    durations = StepDurations(torch.full((N,), 0.002, dtype=torch.float64), 0.002, 20)
    env = build(TinyTask(HINGE), N)
    rng, draws = env.rng, StepRandomNumbers(env.rng)
    names = ("action_burst_delay", "action_burst_rate", "action_burst_time")
    parameters = [Parameter(name, quantity=name, limits=(-1, 99)) for name in names]
    line = BurstyDelay(EffectContext(env, parameters, draws, durations))
    everywhere = torch.ones(N, dtype=torch.bool)
    rng.next_episode(everywhere)
    line.reset(everywhere, torch.tensor([[30.0, 2.0, 0.2]], dtype=torch.float64).expand(N, -1))
    late = []
    for step in range(100):
        rng.set_step(torch.full((N,), step))
        draws.draw()
        late.append(line.advance())
    extra = torch.stack(late)
    assert set(extra.unique().tolist()) == {0.0, 15.0}  # 30 ms
    congested = extra > 0
    p, q = 1.0 - math.exp(-0.08), 1.0 - math.exp(-0.2)
    assert abs(float(congested[0].double().mean()) - p) < 4.5 * math.sqrt(p * (1 - p) / N)
    began, ended = ~congested[:-1] & congested[1:], congested[:-1] & ~congested[1:]
    for events, exposed, rate in ((began, ~congested[:-1], p), (ended, congested[:-1], q)):
        n = int(exposed.sum())
        assert abs(int(events.sum()) / n - rate) < 4.5 * math.sqrt(rate * (1 - rate) / n)
    assert abs(float(congested[40:].double().mean()) - p / (p + q)) < 0.02


def test_a_motor_fades_evenly_over_the_episode_and_is_whole_again_in_the_next() -> None:
    env = hinge(
        {"actuator_fade": {"range": [0, 1]}, "actuator_gain": {"range": [1, 2]}},
        [[0.5, 1.0], [0.0, 2.0], [1.0, 1.0]], xml=MOTOR, decimation=20, episode=4,
    )  # fmt: skip
    force, seen = env.engine.data("actuator_force"), []
    for _ in range(5):
        env.step(torch.ones(3, 1))
        seen.append(force[:, 0].tolist())
    assert seen[:3] == [[1.0, 2.0, 1.0], [0.875, 2.0, 0.75], [0.75, 2.0, 0.5]]
    assert seen[4] == [1.0, 2.0, 1.0]  # the next episode


def test_a_faded_servo_saturates_earlier_and_its_values_do_not_drift() -> None:
    xml = HINGE.replace('kv="1"', 'kv="1" forcerange="-6 6"')
    env = hinge({"actuator_fade": {"range": [0, 1]}}, [[0.5]], xml=xml, episode=4)
    names = ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")
    for _ in range(102):
        env.step(torch.ones(1, 1))
    assert env.engine.data("actuator_force")[0, 0] == 6.0 * 0.875  # 20 N m wanted, second step of four
    for _ in range(2):
        env.step(torch.ones(1, 1))
    for name in names:
        assert torch.equal(env.engine.field(name)[0], env.engine.nominal(name)), name


def test_a_stuck_actuator_keeps_the_command_of_the_start_and_the_others_do_not() -> None:
    task = TinyTask(SLIDER, decimation=1, max_episode_steps=4)
    env = build(task, N, fixed_worlds(task, {"actuator_stuck": {"of": "servo", "range": [0, 1]}}, [[0.3]] * N))
    fates, command = [], env.engine.data("ctrl")
    for _ in range(2):
        for action in (0.5, -0.5, 0.2):
            env.step(torch.full((N, 2), action, dtype=torch.float64))
            command = env.engine.data("ctrl").clone()
            assert (command[:, 0] == action).all()
            assert ((command[:, 1] == action) | (command[:, 1] == 0.0)).all()
        stuck = command[:, 1] == 0.0
        assert abs(float(stuck.double().mean()) - 0.3) < 4.5 * math.sqrt(0.21 / N)
        fates.append(stuck)
        env.step(torch.zeros(N, 2))
    assert (fates[0] != fates[1]).any()


def test_a_failed_actuator_is_limp_for_an_episode_and_whole_again_in_the_next() -> None:
    env = hinge({"actuator_failure": {"range": [0, 1]}}, [[1.0], [0.0]], decimation=20, episode=3)
    layer: Any = env.layer
    assert isinstance(layer.sampler, FixedWorlds)
    result = env.step(torch.ones(2, 1))
    assert float(result.final.policy[0, :2].abs().max()) == 0.0
    assert float(result.final.policy[1, 0]) > 0.01
    layer.sampler.worlds = layer.sampler.worlds.flip(0)
    env.reset()
    result = env.step(torch.ones(2, 1))
    assert float(result.final.policy[0, 0]) > 0.01
    assert float(result.final.policy[1, :2].abs().max()) == 0.0
    assert env.engine.field("actuator_gainprm")[:, 0, 0].tolist() == [20.0, 0.0]
    assert env.engine.field("actuator_biasprm")[:, 0, :3].tolist() == [[0.0, -20.0, -1.0], [0.0, 0.0, 0.0]]


def test_failures_are_as_frequent_as_their_probability() -> None:
    env = hinge({"actuator_failure": {"range": [0, 1]}}, [[0.2]] * N)
    limp = env.engine.field("actuator_gainprm")[:, 0, 0] == 0
    assert abs(float(limp.double().mean()) - 0.2) < 4.5 * math.sqrt(0.16 / N)


def test_a_weak_actuator_exerts_a_share_of_its_force_and_saturates_at_a_share_of_its_limit() -> None:
    xml = HINGE.replace('kv="1"', 'kv="1" forcerange="-6 6"')
    env = hinge({"actuator_strength": {"range": [0.1, 1]}}, [[1.0], [0.5]], xml=xml)
    force = env.engine.data("actuator_force")
    env.step(torch.full((2, 1), 0.2))  # 20 * 0.2 = 4 N m at rest
    assert force[:, 0].tolist() == [4.0 * float(torch.tensor(0.2)) / 0.2, 2.0 * float(torch.tensor(0.2)) / 0.2]
    env.reset()
    env.step(torch.full((2, 1), 1.0))  # 20 N m wanted
    assert force[:, 0].tolist() == [6.0, 3.0]


def test_slack_is_taken_up_in_the_time_that_the_model_says() -> None:
    # delta = 1 / 0.1 s = 10: a command of 0.5 moves the slack by 0.5 * 10 * 0.04 = 0.2 per control step of 40 ms
    env = hinge({"actuator_backlash": {"range": [0, 0.5]}}, [[0.1], [0.0]], xml=MOTOR, decimation=20)
    forward, back = arrived(env, [0.5] * 7), arrived(env, [-0.5] * 12)
    expected = torch.tensor([0.0] * 5 + [0.5] * 2, dtype=torch.float64)  # from the middle: half the gap
    torch.testing.assert_close(forward[:, 0], expected)
    expected = torch.tensor([0.0] * 10 + [-0.5] * 2, dtype=torch.float64)  # a reversal crosses all of it
    torch.testing.assert_close(back[:, 0], expected)
    assert torch.equal(forward[:, 1], torch.full((7,), 0.5, dtype=torch.float64))
    assert torch.equal(back[:, 1], torch.full((12,), -0.5, dtype=torch.float64))
    env.reset()
    torch.testing.assert_close(arrived(env, [0.5] * 7), forward)  # an episode begins in the middle of the gap


def test_a_step_in_which_the_slack_ends_gives_its_share_of_the_command() -> None:
    # delta = 1 / 0.016 = 62.5: ds = 0.5 * 62.5 * 0.04 = 1.25, the first 80 % of the step take up the slack
    env = hinge({"actuator_backlash": {"range": [0, 0.5]}}, [[0.016]], xml=MOTOR, decimation=20)
    torch.testing.assert_close(arrived(env, [0.5])[:, 0], torch.tensor([0.5 * 0.2], dtype=torch.float64))


def test_backlash_of_a_servo_delays_a_reversal() -> None:
    env = hinge({"actuator_backlash": {"range": [0, 0.5]}}, [[0.0], [0.05]], decimation=20)
    angle = []
    for target in [0.4] * 20 + [0.2] * 20:
        angle.append(env.step(torch.full((2, 1), target, dtype=torch.float64)).final.policy[:, 0])
    at, after = torch.stack(angle[:20]), torch.stack(angle[20:])
    assert float(at[-1, 0]) == pytest.approx(0.4, abs=1e-3)
    turned = (after < at[-1] - 0.01).int().argmax(dim=0)
    assert int(turned[1]) > int(turned[0]) + 1
    assert float((after[turned[1] - 1, 1] - at[-1, 1]).abs()) < 0.01  # it stays where it was until then
    assert float(after[-1, 0]) == pytest.approx(0.2, abs=1e-3)


def test_backlash_differs_between_directions_and_episodes_by_its_spread() -> None:
    entries = {"actuator_backlash": {"range": [0, 0.5]}, "actuator_backlash_spread": {"range": [0, 1]}}
    env = hinge(entries, [[0.1, 0.2]] * N, xml=MOTOR)
    layer: Any = env.layer
    backlash = layer._effects.effects["actuator_backlash"]
    n = torch.stack([torch.log(0.002 / d[:, 0]) / math.log(0.1) for d in (backlash._up, backlash._down)])
    kept = n > math.log(0.5) / math.log(0.1)  # delta is at least 2
    assert float(kept.double().mean()) > 0.99
    assert abs(float(n.mean()) - 1.0) < 4.5 * 0.2 / math.sqrt(2 * N)
    assert abs(float(n.std()) - 0.2) < 4.5 * 0.2 / math.sqrt(4 * N)
    assert abs(float(torch.corrcoef(n)[0, 1])) < 4.5 / math.sqrt(N)


def test_slack_joints_get_their_range_and_the_arm_follows_the_motor_later() -> None:
    env = hinge({"backlash_range": {"range": [0.2, 2.0]}}, [[1.0], [0.2]], xml=PLAY)
    ranges = env.engine.field("jnt_range")
    torch.testing.assert_close(ranges[:, 1], math.radians(5.0) * torch.tensor([[-1.0, 1.0], [-0.2, 0.2]]).double())
    assert torch.equal(ranges[0, [0, 2]], ranges[1, [0, 2]])
    # The motor moves first, the arm's angle is driven + slack.
    moved = []
    for _ in range(300):
        state = env.step(torch.tensor([[0.05, 0.0]]).double().expand(2, 2)).final.policy
        moved.append(state[:, 0] + state[:, 1])
    late = (torch.stack(moved) > 0.005).int().argmax(dim=0)
    assert int(late[0]) > int(late[1])


def test_what_makes_no_sense_is_refused_by_naming_what_exists() -> None:
    fetch = FetchTask("FetchPush")
    for name in ("actuator_backlash", "actuator_stuck", "actuator_failure"):
        with pytest.raises(RandomizationError, match=r"no actuator .* it has: action_noise.*action_delay"):
            build_parameters(fetch, {name: {}})
    with pytest.raises(RandomizationError, match="no actuator"):
        build_parameters(fetch, {"actuator_strength": {}})
    play = TinyTask(PLAY)
    assert build_parameters(play, {"actuator_backlash": {}})[0].targets == ("motor",)
    assert build_parameters(play, {"backlash_range": {}})[0].targets == ("slack",)
    with pytest.raises(RandomizationError, match="muscle is no motor, servo or PID"):
        build_parameters(play, {"actuator_backlash": {"of": "muscle"}})
    with pytest.raises(RandomizationError, match="wrist is no slack joint"):
        build_parameters(play, {"backlash_range": {"of": "wrist"}})
    with pytest.raises(RandomizationError, match="does nothing without actuator_backlash of motor: add that"):
        build_parameters(play, {"actuator_backlash_spread": {"of": "motor"}})
    with pytest.raises(RandomizationError, match="does nothing without actuator_backlash of servo: add that"):
        build_parameters(TinyTask(SLIDER), {"actuator_backlash": {"of": "push"}, "actuator_backlash_spread": {}})
