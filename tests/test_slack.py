"""Slack joints added to a model: the link moves freely within the play, and the task sees its own joints."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from conftest import HINGE, TinyTask, build
from envs.cpu_engine import CpuEngine
from envs.environment import Environment
from envs.registry import make_task
from envs.slack import AddSlack, SlackEngine, geared_joints, set_play
from envs.task import Task, editing_specs
from randomization.environment import Randomization
from randomization.parameters import build_parameters
from randomization.samplers import Manual

HANGING = HINGE.replace('gravity="0 0 0"', 'gravity="0 0 -1"')
PLAY = 0.05


class Compiled(TinyTask):
    """TinyTask, compiled through `compile_spec`."""

    def __init__(self, xml: str = HINGE, **options: float) -> None:
        super().__init__(xml, **options)  # pyright: ignore[reportArgumentType]
        self.compile_full(())


def loose(task: Task, play: float = PLAY, n: int = 2, layer: Randomization | None = None) -> Environment:
    """Environments of a task whose driven joints have play."""
    edit = AddSlack.to(task.model, geared_joints(task.model))
    with editing_specs(edit):
        model = Compiled(task.xml).model if isinstance(task, Compiled) else make_task(task.id).model
    assert set_play(model, play) == len(edit.joints) > 0
    environment = Environment(task, SlackEngine(CpuEngine(model, n, threads=1)), layer)
    environment.reset()
    return environment


def settled(environment: Environment, steps: int = 100) -> float:
    """Where the arm comes to rest for an action of zero, rad."""
    environment.task.max_episode_steps = environment.max_episode_steps = 10_000
    for _ in range(steps):
        environment.step(torch.zeros(environment.num_envs, environment.task.action_size))
    return float(environment.engine.data("qpos")[0, 0])


def test_a_hanging_arm_sags_by_the_play_more() -> None:
    tight, slack = settled(build(Compiled(HANGING), 2)), settled(loose(Compiled(HANGING)))
    assert tight == pytest.approx(0.0075, rel=0.01)  # 1 kg * 1 m/s^2 * 0.15 m against 20 N m/rad
    assert slack - tight == pytest.approx(PLAY, abs=0.003)


def test_without_play_the_arm_does_what_it_does_without_slack() -> None:
    assert settled(loose(Compiled(HANGING), play=1e-6)) == pytest.approx(settled(build(Compiled(HANGING), 2)), abs=2e-3)


def test_the_motor_crosses_the_play_before_the_arm_follows() -> None:
    environment = loose(Compiled())
    inner = environment.engine._inner  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(2):
        environment.step(torch.full((2, 1), 0.5))
    motor, slack = inner.data("qpos")[0].tolist()
    assert motor > 0.02
    assert slack < -0.02  # the arm stays behind
    assert float(environment.engine.data("qpos")[0, 0]) == motor + slack


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Humanoid-v5", "Ant-v5"])
def test_what_the_task_sees_is_where_the_bodies_are(name: str) -> None:
    task = make_task(name)
    environment, plain = loose(task), build(make_task(name), 2)
    assert environment.observed.policy.shape == plain.observed.policy.shape
    assert torch.equal(environment.engine.data("qpos"), plain.engine.data("qpos"))  # the same start
    generator = torch.Generator().manual_seed(0)
    for _ in range(15):
        environment.step(2.0 * torch.rand(2, task.action_size, generator=generator) - 1.0)
    engine, data = environment.engine, mujoco.MjData(task.model)
    engine.forward()
    for i in range(2):
        data.qpos[:], data.qvel[:] = engine.data("qpos")[i].numpy(), engine.data("qvel")[i].numpy()
        mujoco.mj_forward(task.model, data)
        assert np.abs(data.xpos - engine.data("xpos")[i].numpy()).max() < 1e-9
        assert np.abs(data.cvel - engine.data("cvel")[i].numpy()).max() < 1e-9


def test_written_state_arrives_at_the_motor_and_other_joints_keep_theirs() -> None:
    environment = loose(make_task("HalfCheetah-v5"))
    engine = environment.engine
    for _ in range(5):
        environment.step(torch.ones(2, 6))
    before, qpos = engine.data("qpos").clone(), engine.data("qpos")
    qpos[1, 3] = 0.2
    engine.refresh_written()
    expected = before.clone()
    expected[1, 3] = 0.2
    assert torch.equal(engine.data("qpos"), expected)
    inner = engine._inner  # pyright: ignore[reportAttributeAccessIssue]
    assert float(inner.data("qpos")[1, 3] + inner.data("qpos")[1, 4]) == pytest.approx(0.2)


def test_randomized_joints_are_those_of_the_task() -> None:
    task = Compiled()
    layer = Randomization(Manual(build_parameters(task, {"joint_damping": {"range": [3, 3]}})))
    environment = loose(task, layer=layer)
    environment.step(torch.zeros(2, 1))
    inner = environment.engine._inner  # pyright: ignore[reportAttributeAccessIssue]
    assert inner.field("dof_damping").tolist() == [[1.5, 0.0]] * 2
    assert environment.engine.nominal("dof_damping").tolist() == [0.5]


def test_state_comes_back() -> None:
    one, other = loose(make_task("HalfCheetah-v5")), loose(make_task("HalfCheetah-v5"))
    for _ in range(5):
        one.step(torch.ones(2, 6))
    other.load_state_dict(one.state_dict())
    a, b = one.step(-torch.ones(2, 6)), other.step(-torch.ones(2, 6))
    assert torch.equal(a.observed.policy, b.observed.policy)
    assert torch.equal(a.reward, b.reward)


def test_only_the_last_joint_of_a_body_can_have_slack() -> None:
    names = geared_joints(make_task("Humanoid-v5").model)
    assert "abdomen_y" in names
    assert "abdomen_z" not in names  # turns before abdomen_y in the same body
    assert geared_joints(make_task("FetchPush-v4").model) == []
