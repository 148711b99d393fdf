"""Slack joints added to a model: the link moves freely within the play, and the task sees its own joints."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from conftest import HINGE, TinyTask, build
from envs.engines.backlash_joints import AddBacklashJoints, BacklashJointEngine, carry_over, geared_joints, set_backlash
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.registry import make_task
from envs.task import Task, editing_specs
from randomization.parameters import build_parameters
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Manual

HANGING = HINGE.replace('gravity="0 0 0"', 'gravity="0 0 -1"')
PLAY = 0.05


class Compiled(TinyTask):
    """TinyTask, compiled through `compile_spec`."""

    def __init__(self, xml: str = HINGE, **options: float) -> None:
        super().__init__(xml, **options)  # pyright: ignore[reportArgumentType]
        self.compile_full(())


def loose(task: Task, play: float = PLAY, n: int = 2, layer: DomainRandomizer | None = None) -> Environment:
    """Environments of a task whose driven joints have play."""
    edit = AddBacklashJoints.to(task.model, geared_joints(task.model))
    with editing_specs(edit):
        model = Compiled(task.xml).model if isinstance(task, Compiled) else make_task(task.id).model
    assert set_backlash(model, play) == len(edit.joints) > 0
    carry_over(task.model, model)
    environment = Environment(task, BacklashJointEngine(CpuEngine(model, n, threads=1)), layer)
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


# What the compiler derives from inertia: the servo's damping from dampratio (kv), the joint's spring and damper from
# springdamper, the muscle's peak force from the acceleration of 1 N; the spring of a tendon from its length.
DERIVED = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.002" gravity="0 0 -1" integrator="{integrator}"/>
  <default><joint springdamper="0.4 0.7" frictionloss="0.01" margin="0.01" solimplimit="0.5 0.6 0.1"/></default>
  <worldbody>
    <body name="arm">
      <joint name="hinge" axis="0 1 0" armature="0.02" range="-2 2"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="1"/>
    </body>
  </worldbody>
  <tendon><fixed name="cord" stiffness="1"><joint joint="hinge" coef="1"/></fixed></tendon>
  <actuator>
    <position name="servo" joint="hinge" kp="40" dampratio="1"/>
    <muscle name="muscle" joint="hinge" gear="0.05"/>
  </actuator>
</mujoco>
"""


def course(environment: Environment, commands: list[float]) -> torch.Tensor:
    """Angles of the arm, rad [steps], under commands to its servo."""
    angles = []
    for command in commands:
        action = torch.zeros(environment.num_envs, environment.task.action_size)
        action[:, 0] = command
        environment.step(action)
        angles.append(environment.engine.data("qpos")[0, 0].clone())
    return torch.stack(angles)


@pytest.mark.parametrize("integrator", ["implicitfast", "Euler"])
def test_without_play_the_arm_moves_as_it_does_without_slack(integrator: str) -> None:
    xml, commands = DERIVED.format(integrator=integrator), [0.5] * 8 + [-0.3] * 8
    options = {"decimation": 5, "max_episode_steps": 100}
    tight = course(build(Compiled(xml, **options), 1), commands)
    slack = course(loose(Compiled(xml, **options), play=1e-9, n=1), commands)
    assert float(tight.max()) > 0.3
    torch.testing.assert_close(slack, tight, rtol=0.0, atol=5e-3)


def test_what_the_compiler_derives_from_inertia_is_that_of_the_task() -> None:
    task = Compiled(DERIVED.format(integrator="implicitfast"))
    model = loose(task, play=1e-9).engine.model
    # kv = 2 * sqrt(kp * inertia), inertia of the arm about its hinge and the rotor
    assert model.actuator_biasprm[0, 2] == pytest.approx(-2.0 * np.sqrt(40.0 * task.model.dof_M0[0]))
    for field in ("actuator_biasprm", "actuator_lengthrange", "tendon_lengthspring"):
        ours, theirs = getattr(model, field)[:1], getattr(task.model, field)[:1]
        np.testing.assert_array_equal(ours, theirs, err_msg=field)
    np.testing.assert_array_equal(model.actuator_lengthrange, task.model.actuator_lengthrange)
    assert model.jnt_stiffness.tolist() == [task.model.jnt_stiffness[0], 0.0]
    assert model.dof_damping.tolist() == [task.model.dof_damping[0], 0.0]
    assert model.dof_frictionloss.tolist() == [0.01, 0.0]
    assert model.jnt_margin.tolist() == [0.01, 0.0]
    assert model.jnt_solimp[1].tolist() == [0.9, 0.95, 0.001, 0.5, 2.0]
    # MuJoCo: peak force of a muscle = scale (200 N) / acceleration of the joint under a unit force, at compile
    assert model.actuator_gainprm[1, 2] == pytest.approx(200.0 / task.model.actuator_acc0[1])


def test_full_inertia_matrices_do_not_change_what_the_compiler_derives() -> None:
    task = Compiled(DERIVED.format(integrator="Euler"))
    before = task.model
    task.compile_full((1,))
    assert task.model is not before
    for field in ("actuator_biasprm", "actuator_gainprm", "actuator_lengthrange", "jnt_stiffness", "dof_damping"):
        np.testing.assert_allclose(getattr(task.model, field), getattr(before, field), rtol=1e-12, err_msg=field)


def test_what_a_task_writes_to_its_compiled_model_reaches_the_model_with_slack() -> None:
    task = Compiled()
    task.model.dof_armature[:], task.model.actuator_gainprm[0, 0], task.model.geom_friction[0, 0] = 0.3, 7.0, 0.123
    model = loose(task).engine.model
    assert model.dof_armature.tolist() == [0.3, 0.0]
    assert (model.actuator_gainprm[0, 0], model.geom_friction[0, 0]) == (7.0, 0.123)


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
    torch.testing.assert_close(engine.data("qpos"), expected, rtol=0.0, atol=1e-15)
    inner = engine._inner  # pyright: ignore[reportAttributeAccessIssue]
    assert float(inner.data("qpos")[1, 3] + inner.data("qpos")[1, 4]) == pytest.approx(0.2)


def test_randomized_joints_are_those_of_the_task() -> None:
    task = Compiled()
    layer = DomainRandomizer(Manual(build_parameters(task, {"joint_damping": {"range": [3, 3]}})))
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


CLASHING = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"/>
  <worldbody>
    <body><joint axis="0 0 1"/><geom size=".1"/></body>
    <body pos="0 1 0"><joint name="joint0" axis="0 0 1"/><geom size=".1"/></body>
    <body pos="0 2 0"><joint name="hip~slack" axis="0 0 1"/><geom size=".1"/></body>
    <body pos="0 3 0"><joint name="hip~slack2" axis="0 0 1" range="-9 9"/><geom size=".1"/></body>
  </worldbody>
  <actuator>
    <motor joint="hip~slack"/><motor joint="joint0"/><pid joint="joint0" kp="1" kv=".1"/>
  </actuator>
</mujoco>
"""


def test_joints_that_are_called_as_slack_is_keep_their_ranges_and_unnamed_ones_get_some() -> None:
    task = Compiled(CLASHING)
    assert geared_joints(task.model) == ["joint0", "hip~slack"]
    task.model.actuator_trnid[1, 0] = 0  # the motor drives the joint without a name
    assert geared_joints(task.model) == ["joint0_unnamed", "joint0", "hip~slack"]
    edit = AddBacklashJoints.to(task.model, geared_joints(task.model))
    with editing_specs(edit):
        model = Compiled(CLASHING).model
    assert set_backlash(model, PLAY) == 3
    names = [model.joint(i).name for i in range(model.njnt)]
    added = [i for i, name in enumerate(names) if name.endswith("~slack3")]
    assert names == ["", names[1], "joint0", names[3], "hip~slack", names[5], "hip~slack2"]
    assert added == [1, 3, 5]  # each beside its own
    assert model.jnt_range[added].tolist() == [[-PLAY, PLAY]] * 3
    assert model.jnt_range[6].tolist() == pytest.approx([-9 * np.pi / 180, 9 * np.pi / 180])
    engine = BacklashJointEngine(CpuEngine(model, 2, threads=1))
    assert engine.data("qpos").shape == (2, 4)
