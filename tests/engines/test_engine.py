"""The CPU engine: live views, masks, threads, per-simulation fields, late binding, state, commands."""

from __future__ import annotations

import copy
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import HINGE, SLIDER, TinyTask, build, fixed_worlds, only, snapshot
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.gymnasium_adapter.engine import GymnasiumEngine
from envs.gymnasium_adapter.task import AdaptedTask
from envs.manipulation.fetch import FetchTask

# A free body dragged by a mocap body, and a servo: both kinds of command.
DRAGGED = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <body name="hand" mocap="true"/>
    <body name="load" pos="0 0 0.1"><freejoint/><geom name="load" size="0.05" mass="1"/></body>
    <body name="arm" pos="1 0 0"><joint name="hinge" axis="0 1 0"/><geom size="0.05" pos="0.3 0 0" mass="1"/></body>
  </worldbody>
  <equality><weld body1="hand" body2="load"/></equality>
  <actuator><position name="servo" joint="hinge" kp="20" kv="1"/></actuator>
</mujoco>
"""


def engine_of(xml: str = HINGE, num_envs: int = 3, threads: int = 1) -> CpuEngine:
    return CpuEngine(mujoco.MjModel.from_xml_string(xml), num_envs, threads)


def rows(engine: Any) -> Tensor:
    """The live state of every simulation, [N, nstate]."""
    return torch.from_numpy(engine.state_rows())


def shake(engine: CpuEngine, seed: int = 0) -> None:
    """Give every simulation a state of its own."""
    generator = torch.Generator().manual_seed(seed)
    for name in ("qvel", "ctrl"):
        engine.data(name).copy_(torch.randn(engine.data(name).shape, generator=generator, dtype=torch.float64))
    engine.forward()


def test_a_view_is_memory_that_the_simulation_runs_on() -> None:
    engine = engine_of()
    qpos, qvel, xpos = engine.data("qpos"), engine.data("qvel"), engine.data("geom_xpos")
    assert qpos.data_ptr() == engine.data("qpos").data_ptr()
    qvel[1] = 3.0
    before = xpos.clone()
    engine.step(1)
    # no gravity; damping 0.5 on the joint and kv 1 on the servo slow it a little in one step of 2 ms
    assert 0.8 * 0.006 < float(qpos[1, 0]) < 0.006
    assert qpos[[0, 2], 0].tolist() == [0.0, 0.0]
    engine.forward()
    assert not torch.equal(xpos[1], before[1])  # derived fields are live, too
    assert torch.equal(xpos[[0, 2]], before[[0, 2]])


def test_per_simulation_fields_are_live_and_the_nominal_model_stays_as_it_was() -> None:
    engine = engine_of()
    damping = engine.field("dof_damping")
    assert damping.shape == (3, 1)
    assert damping.data_ptr() == engine.field("dof_damping").data_ptr()
    damping[2] = 50.0
    assert engine.model.dof_damping.tolist() == [0.5]
    nominal = engine.nominal("dof_damping")
    nominal += 1.0
    assert engine.nominal("dof_damping").tolist() == [0.5]
    engine.data("qvel").fill_(1.0)
    engine.step(10)
    speed = engine.data("qvel")[:, 0]
    assert float(speed[0]) == float(speed[1])
    assert float(speed[2]) < 0.5 * float(speed[0])


def test_gravity_is_a_field_and_an_unknown_field_is_named() -> None:
    engine = engine_of(SLIDER)
    assert engine.nominal("opt.gravity").tolist() == [0.0, 0.0, -9.81]
    assert engine.field("opt.gravity").shape == (3, 3)
    with pytest.raises(ValueError, match="'body_masss' is not an mjModel field"):
        engine.field("body_masss")


@pytest.mark.parametrize("name", ["reset", "forward", "set_const"])
def test_a_mask_touches_only_the_simulations_it_names(name: str) -> None:
    engine = engine_of(SLIDER)
    shake(engine)
    engine.step(5)
    xpos, weight = engine.data("xpos"), engine.field("body_subtreemass")
    engine.field("body_mass").mul_(2.0)
    engine.data("qpos").add_(0.125)
    state, derived, constants = rows(engine).clone(), xpos.clone(), weight.clone()
    getattr(engine, name)(only(3, 1))
    for i in (0, 2):
        assert torch.equal(rows(engine)[i], state[i])
        assert torch.equal(xpos[i], derived[i])
        assert torch.equal(weight[i], constants[i])
    if name == "reset":
        assert engine.data("qpos")[1].tolist() == engine.model.qpos0.tolist()
        assert engine.data("qvel")[1].abs().max() == 0.0
    elif name == "forward":
        assert torch.equal(rows(engine)[1], state[1])
        # the box's position is (0, 0, 0.1) + (x, 0, z), and both coordinates were moved by 0.125
        torch.testing.assert_close(
            xpos[1, 1] - derived[1, 1], torch.tensor([0.125, 0, 0.125]).double(), atol=0.01, rtol=0
        )
    else:
        assert torch.equal(rows(engine)[1], state[1])
        torch.testing.assert_close(weight[1], 2.0 * constants[1])  # the nominal constants, doubled


def test_an_empty_mask_does_nothing() -> None:
    engine = engine_of(SLIDER)
    shake(engine)
    state = rows(engine).clone()
    for method in (engine.reset, engine.forward, engine.set_const):
        method(torch.zeros(3, dtype=torch.bool))
    assert torch.equal(rows(engine), state)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    def run(threads: int) -> tuple[Tensor, Tensor]:
        task = FetchTask("FetchPush")
        env = Environment(task, CpuEngine(task.model, 5, threads))
        env.reset()
        assert isinstance(env.engine, CpuEngine)
        assert env.engine.threads == threads
        for step in range(5):
            env.step(torch.sin(torch.arange(20.0) + step).view(5, 4))
        assert env.divergences == 0
        return rows(env.engine).clone(), env.engine.data("site_xpos").clone()

    one, two = run(1), run(2)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert len(torch.unique(one[0], dim=0)) == 5  # five simulations, no two alike


def test_a_heavier_simulation_differs_and_its_neighbours_equal_a_plain_mj_step_loop() -> None:
    engine = engine_of(SLIDER)
    box = 1
    engine.field("body_mass")[1, box] *= 2.0
    engine.field("body_inertia")[1, box] *= 2.0
    engine.set_const(only(3, 1))
    engine.data("ctrl")[:] = torch.tensor([15.0, 0.3], dtype=torch.float64)
    engine.step(200)
    data = mujoco.MjData(engine.model)
    data.ctrl[:] = [15.0, 0.3]
    mujoco.mj_step(engine.model, data, nstep=200)
    for i in (0, 2):
        np.testing.assert_array_equal(engine.data("qpos")[i].numpy(), data.qpos)
        np.testing.assert_array_equal(engine.data("qvel")[i].numpy(), data.qvel)
    assert float(engine.data("qpos")[1, 0]) < 0.8 * data.qpos[0]


def test_a_field_bound_late_is_computed_without_refreshing_fields_that_lag() -> None:
    early, late = engine_of(SLIDER), engine_of(SLIDER)
    for engine in (early, late):
        engine.data("xpos")
        shake(engine)
        engine.step(7)
    lagged = late.data("xpos").clone()
    site = late.data("geom_xpos")
    assert torch.equal(late.data("xpos"), lagged)  # still one substep behind
    fresh = late.export_to_mujoco(0)[1]
    np.testing.assert_array_equal(site[0].numpy(), fresh.geom_xpos)
    assert not np.array_equal(lagged[0].numpy(), fresh.xpos)
    early.step(7)
    late.step(7)
    assert torch.equal(rows(early), rows(late))
    assert torch.equal(early.data("xpos"), late.data("xpos"))


def test_only_simulations_whose_qpos_was_written_are_refreshed() -> None:
    engine = engine_of()
    place = engine.data("geom_xpos")
    shake(engine)
    engine.step(4)
    lagged = place.clone()
    engine.refresh_written()
    assert torch.equal(place, lagged)
    engine.data("qpos")[1] = 0.5
    engine.refresh_written()
    assert torch.equal(place[[0, 2]], lagged[[0, 2]])
    # the rod's middle is at 0.15 m; about the y axis x -> cos, z -> -sin
    expected = [0.15 * np.cos(0.5), 0.0, -0.15 * np.sin(0.5)]
    np.testing.assert_allclose(place[1, 0].numpy(), expected, atol=1e-12)


def test_commands_are_packed_in_mujocos_order_however_they_are_named() -> None:
    engine = engine_of(DRAGGED, num_envs=2)
    assert engine.use_commands(("mocap_quat", "ctrl", "mocap_pos")) == 1 + 3 + 4
    engine.write_command(torch.arange(16.0, dtype=torch.float64).view(2, 8))
    assert engine.data("ctrl").tolist() == [[0.0], [8.0]]
    assert engine.data("mocap_pos").tolist() == [[[1.0, 2.0, 3.0]], [[9.0, 10.0, 11.0]]]
    assert engine.data("mocap_quat").tolist() == [[[4.0, 5.0, 6.0, 7.0]], [[12.0, 13.0, 14.0, 15.0]]]


def test_commands_per_physics_step_equal_a_loop_of_single_steps() -> None:
    engine = engine_of(DRAGGED, num_envs=2)
    size = engine.use_commands(("ctrl", "mocap_pos", "mocap_quat"))
    generator = torch.Generator().manual_seed(1)
    commands = 0.2 * torch.randn(2, 12, size, generator=generator, dtype=torch.float64)
    commands[:, :, 4] = 1.0  # w of the quaternion
    engine.step(12, commands)
    for i in range(2):
        data = mujoco.MjData(engine.model)
        for command in commands[i].numpy():
            data.ctrl[:], data.mocap_pos[0], data.mocap_quat[0] = command[:1], command[1:4], command[4:]
            mujoco.mj_step(engine.model, data)
        np.testing.assert_array_equal(engine.data("qpos")[i].numpy(), data.qpos)
        np.testing.assert_array_equal(engine.data("qvel")[i].numpy(), data.qvel)
        # the last command holds from now on
        np.testing.assert_array_equal(engine.data("mocap_pos")[i, 0].numpy(), commands[i, -1, 1:4].numpy())
    engine.step(3)
    assert torch.equal(engine.data("ctrl")[:, 0], commands[:, -1, 0])


def test_settling_moves_the_chosen_simulations_alone() -> None:
    engine, reference = engine_of(SLIDER), engine_of(SLIDER)
    shake(engine)
    shake(reference)
    before = rows(engine).clone()
    engine.advance_some(4, only(3, 0, 2))
    reference.step(4)
    assert torch.equal(rows(engine)[[0, 2]], rows(reference)[[0, 2]])
    assert torch.equal(rows(engine)[1], before[1])


def test_settling_moves_the_chosen_environments_of_gymnasium_alone() -> None:
    task = AdaptedTask("Hopper-v5")
    engine = task.make_engine(3, 1)
    assert isinstance(engine, GymnasiumEngine)
    Environment(task, engine, seed=3).reset()
    before = engine.data("qpos").clone()
    raw: Any = engine.envs[1].unwrapped
    expected = copy.copy(raw.data)
    mujoco.mj_step(raw.model, expected, 4)
    engine.advance_some(4, only(3, 1))
    np.testing.assert_array_equal(engine.data("qpos")[1].numpy(), expected.qpos)
    assert torch.equal(engine.data("qpos")[[0, 2]], before[[0, 2]])
    assert not engine.diverged().any()


def test_restored_constants_are_those_that_were_saved_not_those_of_fields_written_since() -> None:
    """A task may move bodies after the constants were computed; their last digits depend on where bodies are."""
    engine = engine_of(SLIDER)
    engine.field("body_mass")[:, 1] = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    engine.set_const()
    engine.field("body_pos")[:, 2, 0] = 0.3
    engine.field("body_mass")[:, 1] += 1.0
    saved = snapshot(engine)
    restored, used = engine_of(SLIDER), engine_of(SLIDER)
    used.field("body_mass")[:, 1] = 9.0
    used.set_const()
    for other in (restored, used):
        other.load_state_dict(saved)
        for name in ("dof_invweight0", "body_subtreemass", "body_invweight0"):
            np.testing.assert_array_equal(other._batch.expanded(name), engine._batch.expanded(name))
        assert torch.equal(other.field("body_mass"), engine.field("body_mass"))
    plain = snapshot(engine_of(SLIDER))
    used.load_state_dict(plain)  # whose constants were never computed: nominal
    np.testing.assert_array_equal(used._batch.expanded("dof_invweight0")[2], used.model.dof_invweight0)


def test_an_unstable_simulation_is_reported_once_and_the_others_are_not(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log where it warns
    engine = engine_of()
    assert engine.diverged().tolist() == [False, False, False]
    engine.data("qvel")[1] = 1e12
    engine.step(5)
    assert engine.diverged().tolist() == [False, True, False]
    assert engine.diverged().tolist() == [False, False, False]


def test_a_materialized_simulation_is_its_state_and_its_model() -> None:
    engine = engine_of(SLIDER)
    shake(engine)
    engine.field("body_mass")[2, 1] = 7.0
    engine.step(3)
    model, data = engine.export_to_mujoco(2)
    assert model.body_mass[1] == 7.0
    np.testing.assert_array_equal(data.qpos, engine.data("qpos")[2].numpy())
    expected = mujoco.MjData(model)
    expected.qpos[:], expected.qvel[:] = data.qpos, data.qvel
    mujoco.mj_kinematics(model, expected)
    np.testing.assert_array_equal(data.xpos, expected.xpos)


WORLDS = {
    "body_mass": {"of": "box", "range": [0.5, 2]},
    "geom_friction": {"of": "box", "range": [0.5, 2]},
    "joint_damping": {"of": "swing", "range": [0.5, 2]},
    "action_delay": {"range": [0, 50]},
    "observation_noise": {"of": "position", "range": [0, 0.1]},
}


@pytest.mark.parametrize("name", ["slider", "pick and place"])
def test_a_restored_run_continues_bit_for_bit(name: str) -> None:
    """In the Fetch task the next command is placed from xpos as it was one substep before the state."""

    def begin() -> Any:
        if name == "slider":
            task = TinyTask(SLIDER, spread=0.1, max_episode_steps=6)
            layer = fixed_worlds(task, WORLDS, [[0.6, 1.5, 0.7, 30.0, 0.01], [1.9, 0.6, 1.8, 4.0, 0.02]])
            return build(task, 2, layer)
        return build(FetchTask("FetchPickAndPlace"), 2)

    def advance(env: Any, first: int, count: int) -> list[Tensor]:
        shown = []
        for step in range(first, first + count):
            generator = torch.Generator().manual_seed(step)
            result = env.step(2.0 * torch.rand(2, env.task.action_size, generator=generator) - 1.0)
            shown += [result.observed.policy, result.final.policy, result.reward]
        return shown

    env = begin()
    advance(env, 0, 9)
    saved = snapshot(env)
    uninterrupted = advance(env, 9, 9)
    restored = begin()
    advance(restored, 50, 3)  # somewhere else
    restored.load_state_dict(saved)
    assert torch.equal(restored.observed.policy, saved["observed"]["policy"])
    for a, b in zip(uninterrupted, advance(restored, 9, 9), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(rows(env.engine), rows(restored.engine))


ARM_AND_BALL = """
<mujoco>
  <worldbody>
    <geom type="plane" size="2 2 0.1"/>
    <body name="ball" pos="1 0 0.05"><freejoint/><geom size="0.05" mass="1"/></body>
    <body name="arm" pos="0 0 1"><joint name="hinge" axis="0 1 0" damping="1"/>
      <geom size="0.05" pos="0.3 0 0" mass="1"/><site name="tip" pos="0.3 0 0"/></body>
  </worldbody>
  <actuator><position name="servo" joint="hinge" kp="20" kv="1"/></actuator>
  <sensor><jointpos joint="hinge"/><jointvel joint="hinge"/><accelerometer site="tip"/></sensor>
</mujoco>
"""
_STAGES_OF_MUJOCO = {
    "kinematics": (mujoco.mj_fwdPosition, mujoco.mj_sensorPos),
    "position": (mujoco.mj_fwdPosition, mujoco.mj_sensorPos),
    "velocity": (mujoco.mj_fwdPosition, mujoco.mj_sensorPos, mujoco.mj_fwdVelocity, mujoco.mj_sensorVel),
    "acceleration": (mujoco.mj_forward,),
}
_DERIVED = ("xpos", "ncon", "nefc", "cvel", "qfrc_bias", "actuator_velocity", "actuator_force", "qacc", "sensordata")


@pytest.mark.parametrize("stage", list(_STAGES_OF_MUJOCO))
@pytest.mark.parametrize("masked", [False, True])
def test_a_forward_to_a_stage_leaves_what_later_stages_compute(stage: Any, masked: bool) -> None:
    """As MuJoCo's own functions of these stages do in an mjData of each simulation's."""
    engine = engine_of(ARM_AND_BALL)
    fields = {name: engine.data(name) for name in _DERIVED}
    shake(engine)
    model = engine.model
    alone = [engine.export_to_mujoco(index)[1] for index in range(3)]
    engine.data("qvel").mul_(-0.5)
    engine.data("qpos")[:, 2] += 0.1  # off the ground
    chosen = torch.tensor([True, False, True]) if masked else torch.ones(3, dtype=torch.bool)
    engine.forward(chosen if masked else None, stage)
    for index in chosen.nonzero().ravel().tolist():
        data = alone[index]
        data.qvel[:] *= -0.5
        data.qpos[2] += 0.1
        counts = {name: getattr(data, name) for name in ("ncon", "nefc")}
        for function in _STAGES_OF_MUJOCO[stage]:
            function(model, data)
        for name, values in fields.items():
            expected = counts[name] if stage == "kinematics" and name in counts else getattr(data, name)
            np.testing.assert_allclose(values[index].numpy(), expected, rtol=0, atol=1e-12, err_msg=f"{name} {index}")


@pytest.mark.parametrize("call", ["reset", "set_const"])
def test_fields_of_one_simulation_never_show_anothers(call: str) -> None:
    engine = engine_of(ARM_AND_BALL)
    fields = {name: engine.data(name) for name in _DERIVED}
    engine.field("body_mass")
    shake(engine)
    before = {name: values.clone() for name, values in fields.items()}
    getattr(engine, call)(torch.tensor([True, False, False]))
    for name, values in fields.items():
        torch.testing.assert_close(values[1:], before[name][1:], rtol=0, atol=0)
        if name in ("qacc", "actuator_force", "cvel"):
            assert not bool((values[0] == before[name][2]).all()), name
