"""Action delay: a command arrives exactly so many physics steps after it was sent."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import HINGE, TinyTask, build, fixed_worlds, only, snapshot
from envs.environment import Environment
from envs.manipulation.fetch import FetchTask
from randomization.effects.actions.delay_buffer import CommandDelayBuffer
from randomization.parameters import build_parameters

DELAY = {"action_delay": {"range": [0, 70]}}
EVERYONE = torch.ones(4, dtype=torch.bool)


def new_line(delays: list[int], longest: int = 33, decimation: int = 20) -> CommandDelayBuffer:
    """A line per delay, each filled with the command 0."""
    line = CommandDelayBuffer(len(delays), 1, decimation, longest, torch.device("cpu"), torch.float64)
    line.reset(torch.ones(len(delays), dtype=torch.bool), torch.tensor(delays))
    line.fill(torch.zeros(len(delays), 1, dtype=torch.float64))
    return line


def send(line: CommandDelayBuffer, value: float) -> list[list[int]]:
    """What arrives in each environment, per physics step, when all send `value`."""
    n = len(line.fresh)
    return line.send(torch.full((n, 1), value, dtype=torch.float64))[:, :, 0].long().tolist()


def test_commands_arrive_after_their_delay_which_differs_between_environments() -> None:
    line = new_line([0, 7, 20, 33])
    # physics steps 0 to 19 of control step t; commands 1, 2, 3, 4 are sent at t = 0, 1, 2, 3
    assert send(line, 1) == [
        [1] * 20,  # no delay
        [0] * 7 + [1] * 13,  # arrives in the middle
        [0] * 20,  # arrives with the next control step
        [0] * 20,  # arrives 13 physics steps into the next one
    ]
    assert send(line, 2) == [[2] * 20, [1] * 7 + [2] * 13, [1] * 20, [0] * 13 + [1] * 7]
    assert send(line, 3) == [[3] * 20, [2] * 7 + [3] * 13, [2] * 20, [1] * 13 + [2] * 7]
    assert send(line, 4) == [[4] * 20, [3] * 7 + [4] * 13, [3] * 20, [2] * 13 + [3] * 7]


@pytest.mark.parametrize("decimation", [1, 3, 20])
@pytest.mark.parametrize("delay", [0, 1, 2, 3, 5, 20, 21, 40, 59, 60])
def test_every_delay_shifts_the_sequence_of_commands_by_that_many_physics_steps(delay: int, decimation: int) -> None:
    line = new_line([delay], longest=60, decimation=decimation)
    steps = 150 // decimation + 2
    sent = [float(t + 1) for t in range(steps) for _ in range(decimation)]
    arrived = [value for t in range(steps) for value in send(line, float(t + 1))[0]]
    assert arrived == [0.0] * delay + sent[: len(sent) - delay]


def test_a_reset_empties_the_line_and_the_hold_command_fills_it_until_the_first_one_arrives() -> None:
    line = new_line([7, 33, 33])
    for value in (1, 2, 3):
        send(line, value)
    line.reset(only(3, 1), torch.tensor([0, 25, 0]))
    assert line.fresh.tolist() == [False, True, False]
    line.fill(torch.tensor([[90.0], [91.0], [92.0]], dtype=torch.float64))
    assert line.fresh.tolist() == [False, False, False]
    assert send(line, 4) == [
        [3] * 7 + [4] * 13,
        [91] * 20,  # nothing that was sent before the reset arrives after it
        [2] * 13 + [3] * 7,
    ]
    assert send(line, 5) == [[4] * 7 + [5] * 13, [91] * 5 + [4] * 15, [3] * 13 + [4] * 7]


def test_a_delay_beyond_the_longest_is_the_longest() -> None:
    assert send(new_line([99], longest=7), 1) == [[0] * 7 + [1] * 13]


def test_a_restored_line_still_holds_what_was_on_its_way() -> None:
    line, other = new_line([7, 33]), new_line([0, 0])
    for value in (1, 2, 3, 4):  # three places: the ring has wrapped around
        send(line, value)
    send(other, 8)
    send(other, 9)
    saved = snapshot(line)
    expected = [send(line, 5), send(line, 6)]
    other.load_state_dict(saved)
    assert [send(other, 5), send(other, 6)] == expected


def hinge(delays_ms: list[float], decimation: int) -> Environment:
    task = TinyTask(HINGE, decimation=decimation, max_episode_steps=1000)
    return build(task, len(delays_ms), fixed_worlds(task, DELAY, [[d] for d in delays_ms]))


def test_a_delay_of_30_ms_shifts_the_response_of_an_arm_by_15_physics_steps_of_2_ms() -> None:
    # A control step is one physics step here, so that observations show every one of them.
    env = hinge([0.0, 30.0, 2.9, 3.1], decimation=1)
    angle = []
    for step in range(80):
        action = np.sin(0.1 * (step + 1))
        angle.append(env.step(torch.full((4, 1), action)).final.policy[:, 0])
    now, late, one, two = torch.stack(angle).T
    assert torch.equal(late[:15], torch.zeros(15).double())  # at rest until the first command arrives
    assert torch.equal(late[15:], now[:-15])  # bit for bit: the arm is at rest in the same state until then
    assert torch.equal(one[1:], now[:-1])  # 2.9 ms are 1.45 physics steps: the nearest is 1
    assert torch.equal(two[2:], now[:-2])  # 3.1 ms are 1.55: 2
    assert float(now.abs().max()) > 0.1


@pytest.mark.parametrize("delay_ms", [0.0, 14.0, 40.0, 66.0])
def test_delays_of_less_and_more_than_a_control_step_equal_a_loop_of_physics_steps(delay_ms: float) -> None:
    env = hinge([delay_ms], decimation=20)
    data = mujoco.MjData(env.engine.model)
    actions = [0.8, -0.5, 0.3, 1.0, -1.0]
    sent = [0.0] * round(delay_ms / 2.0) + [a for a in actions for _ in range(20)]
    for t, action in enumerate(actions):
        result = env.step(torch.tensor([[action]], dtype=torch.float64))
        for u in sent[20 * t : 20 * t + 20]:
            data.ctrl[0] = u
            mujoco.mj_step(env.engine.model, data)
        assert result.final.policy[0, :2].tolist() == [data.qpos[0], data.qvel[0]]


def test_a_new_episode_does_not_receive_the_commands_of_the_last_one() -> None:
    task = TinyTask(HINGE, decimation=10, max_episode_steps=3)
    env = build(task, 1, fixed_worlds(task, DELAY, [[60.0]]))  # three control steps
    for step in range(6):
        result = env.step(torch.ones(1, 1))
        assert float(result.final.policy[0, 0]) == 0.0  # the first command arrives after the episode's end
        assert bool(result.truncated) == (step % 3 == 2)


def fetch(delays_ms: list[float]) -> tuple[Environment, list[Tensor]]:
    """FetchReach with a delay per environment, and the schedules of commands that its layer sends."""
    task = FetchTask("FetchReach")
    layer = fixed_worlds(task, DELAY, [[d] for d in delays_ms])
    env = build(task, len(delays_ms), layer)
    schedules: list[Tensor] = []
    original = layer.schedule

    def schedule(command: Tensor) -> Tensor | None:
        sent = original(command)
        assert sent is not None
        schedules.append(torch.cat((command[:, None], sent), dim=1))
        return sent

    layer.schedule = schedule  # pyright: ignore[reportAttributeAccessIssue]
    return env, schedules


def test_a_mocap_driven_arm_is_delayed_at_the_resolution_of_a_physics_step_too() -> None:
    env, schedules = fetch([0.0, 30.0, 40.0])
    data = env.engine.data
    grip = env.task._gripper_body  # pyright: ignore[reportAttributeAccessIssue]
    start = torch.cat((data("xpos")[:, grip], data("xquat")[:, grip] + torch.tensor([1.0, 0, 1, 0]).double()), dim=1)
    for step in range(4):
        env.step(torch.sin(torch.arange(12.0) + step).view(3, 4))
    sent = [s[:, 0] for s in schedules]  # what the task commanded: mocap position and orientation
    for step, arrived in enumerate(s[:, 1:] for s in schedules):
        before = sent[step - 1] if step else start  # the arm stays where it is until the first command arrives
        assert torch.equal(arrived[0], sent[step][0].expand(20, -1))
        assert torch.equal(arrived[1, :15], before[1].expand(15, -1))  # 30 ms are 15 steps of 2 ms
        assert torch.equal(arrived[1, 15:], sent[step][1].expand(5, -1))
        assert torch.equal(arrived[2], before[2].expand(20, -1))
    assert not torch.equal(sent[0][1], start[1])


def test_the_delayed_gripper_moves_as_a_loop_of_physics_steps_has_it() -> None:
    env, schedules = fetch([30.0, 14.0])
    task: Any = env.task
    model = task.model
    loops = [mujoco.MjData(model) for _ in range(2)]
    for i, loop in enumerate(loops):
        loop.time = task.start.time_s
        loop.qpos[:], loop.qvel[:] = env.engine.data("qpos")[i].numpy(), env.engine.data("qvel")[i].numpy()
        mujoco.mj_forward(model, loop)
    fingers = [int(model.joint(f"robot0:{side}_gripper_finger_joint").qposadr[0]) for side in ("r", "l")]
    moved = torch.zeros(0)
    for step in range(4):
        action = torch.sin(torch.arange(8.0) + step).view(2, 4)
        result = env.step(action)
        for i, loop in enumerate(loops):
            arrived = schedules[step][i, 1:].numpy()
            for s in range(20):
                loop.mocap_pos[0], loop.mocap_quat[0] = arrived[s, :3], arrived[s, 3:]
                mujoco.mj_step(model, loop)
            loop.qpos[fingers] = 0.0  # as the task does after a control step
            mujoco.mj_forward(model, loop)
            np.testing.assert_allclose(env.engine.data("qpos")[i].numpy(), loop.qpos, atol=1e-12)
            np.testing.assert_allclose(result.final.policy[i, :3].numpy(), loop.site("robot0:grip").xpos, atol=1e-12)
        moved = result.final.policy[:, :3] - torch.as_tensor(task.start.grip_pos)
    assert float(moved.norm(dim=1).min()) > 0.01


def test_no_delay_parameter_means_no_line_at_all() -> None:
    task = TinyTask(HINGE)
    layer = fixed_worlds(task, {"joint_damping": {}}, [[1.0]])
    env = build(task, 1, layer)
    assert layer.schedule(task.command(torch.ones(1, 1))) is None
    assert build_parameters(task, DELAY)[0].unit == "ms"
    env.step(torch.ones(1, 1))
    assert env.engine.data("ctrl").item() == 1.0
