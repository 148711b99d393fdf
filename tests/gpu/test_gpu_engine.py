"""The GPU engine means what the CPU engine means. Runs on CUDA where there is one, else on Warp's CPU device."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

pytest.importorskip("mujoco_warp")

from envs.engines.base import EngineError
from envs.engines.gpu.engine import GpuEngine
from gpu_worlds import DERIVED, STATE, WORLD, bind, copy_state, far, gpu, mask_of, pair, shake

pytestmark = pytest.mark.gpu

# A shelf on a wall, and something that moves, without which there is nothing to simulate.
NESTED = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <body name="wall" pos="1 0 1" euler="0 0 30">
      <geom name="wall" type="box" size="0.1 1 1" pos="0.1 0 0" euler="0 20 0"/>
      <body name="shelf" pos="-0.3 0 0.2" euler="10 0 0">
        <geom name="shelf" type="box" size="0.2 0.5 0.02" pos="0 0.1 0" euler="5 0 0"/>
      </body>
    </body>
    <body pos="-3 0 5">
      <freejoint/><geom size="0.1" pos="0.1 0 0" euler="5 0 0"/><geom size="0.1" pos="0.2 0 0" euler="5 0 0"/>
    </body>
  </worldbody>
</mujoco>
"""
BOX = mujoco.MjModel.from_xml_string(WORLD).body("box").id


def test_a_view_is_memory_that_the_simulation_runs_on() -> None:
    engine = gpu()
    qpos, site = engine.data("qpos"), engine.data("site_xpos")
    engine.forward()
    assert qpos.data_ptr() == engine.data("qpos").data_ptr()
    hinge = engine.model.jnt_qposadr[engine.model.joint("hinge").id]
    before = site.clone()
    engine.data("qvel")[1, engine.model.joint("hinge").dofadr[0]] = 3.0
    engine.step(1)
    assert 0.8 * 0.006 < float(qpos[1, hinge]) < 0.0065  # 3 rad/s for 2 ms, slowed a little
    assert abs(float(qpos[0, hinge])) < 1e-3
    engine.forward()
    assert far(site[1], before[1]) > 1e-3
    with pytest.raises(ValueError, match="'qposs' is not an mjData field"):
        engine.data("qposs")


def test_twenty_steps_agree_with_the_cpu_and_derived_fields_lag_alike() -> None:
    cpu, engine = pair()
    bind(DERIVED, cpu, engine)
    shake(cpu, engine)
    copy_state(cpu, engine)
    for _ in range(4):
        cpu.step(5)
        engine.step(5)
    assert far(cpu.data("qpos"), engine.data("qpos")) < 2e-5
    assert far(cpu.data("qvel"), engine.data("qvel")) < 2e-3
    for name in DERIVED:
        scale = 1.0 + float(cpu.data(name).abs().max())
        assert far(cpu.data(name), engine.data(name)) < 1e-3 * scale, name
    # The lag is one physics step: the arm's tip has moved since, by more than the engines differ.
    fresh = torch.as_tensor(engine.export_to_mujoco(0)[1].site_xpos.copy())
    assert far(fresh, engine.data("site_xpos")[0]) > 10 * far(cpu.data("site_xpos")[0], engine.data("site_xpos")[0])


def test_settling_moves_the_chosen_simulations_as_the_cpu_does_and_nothing_of_the_others() -> None:
    cpu, engine = pair()
    xpos = engine.data("xpos")
    shake(cpu, engine)
    copy_state(cpu, engine)
    watched = {name: engine.data(name) for name in (*STATE, "xpos")}
    before = {name: view.clone() for name, view in watched.items()}
    cpu.advance_some(10, mask_of(cpu, 1))
    engine.advance_some(10, mask_of(engine, 1))
    assert far(cpu.data("qpos"), engine.data("qpos")) < 1e-5
    assert far(xpos[1], before["xpos"][1]) > 1e-4
    for name, view in watched.items():
        assert torch.equal(view[[0, 2]], before[name][[0, 2]]), name
    engine.data("qvel")[0, 0] = float("nan")
    engine.advance_some(1, mask_of(engine, 2))
    assert engine.diverged().tolist() == [False, False, False]
    assert bool(engine.data("qvel")[0, 0].isnan())


@pytest.mark.parametrize("name", ["reset", "forward", "set_const"])
def test_a_mask_touches_only_the_simulations_it_names(name: str) -> None:
    engine = gpu()
    xpos, weight = engine.data("xpos"), engine.field("body_subtreemass")
    shake(engine)
    engine.step(5)
    engine.field("body_mass").mul_(2.0)
    engine.data("qpos")[:, 2] += 0.125  # the box
    watched = [engine.data(field) for field in STATE]
    state, derived, constants = [v.clone() for v in watched], xpos.clone(), weight.clone()
    getattr(engine, name)(mask_of(engine, 1))
    for i in (0, 2):
        assert all(torch.equal(a[i], b[i]) for a, b in zip(watched, state, strict=True))
        assert torch.equal(weight[i], constants[i])
        if name != "reset":  # which first looks at what was written from outside
            assert torch.equal(xpos[i], derived[i])
    if name == "reset":
        assert far(engine.data("qpos")[1], torch.as_tensor(engine.model.qpos0)) < 1e-6
        assert float(engine.data("qvel")[1].abs().max()) == 0.0
    elif name == "forward":
        assert float(xpos[1, BOX, 2] - derived[1, BOX, 2]) == pytest.approx(0.125, abs=0.005)
    else:
        assert far(weight[1], 2.0 * constants[1]) < 1e-5


def test_randomized_fields_and_their_constants_are_those_of_the_cpu_and_act_alike() -> None:
    cpu, engine = pair()
    assert engine.nominal("body_mass").tolist() == cpu.nominal("body_mass").tolist()
    for each in (cpu, engine):
        factors = torch.tensor([0.5, 1.0, 3.0], dtype=each.dtype, device=each.device)[:, None]
        each.field("body_mass").mul_(factors)
        each.field("body_inertia").mul_(factors[:, :, None])
        each.field("dof_armature").add_(0.01 * factors)
        each.field("dof_damping").mul_(factors)
        each.field("geom_friction").mul_(factors[:, :, None])
        each.field("opt.gravity")[:, 2].mul_(factors[:, 0])
        each.set_const()
    for name in ("body_subtreemass", "body_invweight0", "dof_invweight0", "actuator_acc0"):
        expected = cpu.field(name)
        assert float((expected[0] - expected[2]).abs().max()) > 0.0
        torch.testing.assert_close(engine.field(name).double().cpu(), expected, rtol=2e-5, atol=1e-6)
    assert engine.model.body_mass[BOX] == 1.0
    shake(cpu, engine)
    cpu.step(50)
    engine.step(50)
    assert far(cpu.data("qpos"), engine.data("qpos")) < 1e-4
    with pytest.raises(ValueError, match="'body_masss' is not an mjModel field"):
        engine.field("body_masss")


def test_the_ground_can_differ_between_simulations() -> None:
    """mujoco_warp places shapes of the world once; here the box falls onto floors of different heights."""
    cpu, engine = pair()
    for each in (cpu, engine):
        each.field("geom_pos")[:, 0, 2] = torch.tensor([0.0, -0.02, -0.05], dtype=each.dtype)
        each.set_const()
        each.step(100)
    heights = engine.data("qpos")[:, 2].tolist()
    assert heights == pytest.approx(cpu.data("qpos")[:, 2].tolist(), abs=1e-4)
    assert heights == pytest.approx([0.1, 0.08, 0.05], abs=0.003)


def test_shapes_of_the_world_can_turn_and_move_with_their_bodies() -> None:
    cpu, engine = pair(3, NESTED)
    generator = torch.Generator().manual_seed(0)
    for name in ("body_pos", "body_quat", "geom_pos", "geom_quat"):
        nominal = cpu.nominal(name)
        values = nominal + 0.3 * torch.randn((3, *nominal.shape), generator=generator, dtype=nominal.dtype)
        if name.endswith("quat"):
            values /= torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        for each in (cpu, engine):
            each.field(name)[:, 1:] = values[:, 1:].to(each.dtype).to(each.device)  # the world itself stays
    bind(("geom_xpos", "geom_xmat"), cpu, engine)
    for each in (cpu, engine):
        each.set_const()
        each.forward()
    for name in ("geom_xpos", "geom_xmat"):
        assert far(cpu.data(name), engine.data(name)) < 1e-5, name
        assert float(cpu.data(name)[:, 1:].std(dim=0).flatten(1).amax(dim=1).min()) > 0.01  # they do differ
    for each in (cpu, engine):
        each.field("geom_pos")[:, 2] += 0.5
        each.step(1)  # notices by itself
    assert far(cpu.data("geom_xpos"), engine.data("geom_xpos")) < 1e-5


def test_commands_for_every_physics_step_arrive_in_order_and_the_last_one_holds() -> None:
    cpu, engine = pair(2)
    generator = torch.Generator().manual_seed(1)
    commands = 0.05 * torch.randn(2, 12, 8, generator=generator)
    commands[:, :, 1:4] += torch.tensor([0.0, 1.0, 0.5])
    commands[:, :, 4] = 1.0  # w of the quaternion
    for each in (cpu, engine):
        assert each.use_commands(("mocap_quat", "ctrl", "mocap_pos")) == 8
        each.step(12, commands.to(each.device, each.dtype))
    assert far(cpu.data("qpos"), engine.data("qpos")) < 5e-5
    for name in ("ctrl", "mocap_pos", "mocap_quat"):
        assert far(cpu.data(name), engine.data(name)) < 1e-6
    engine.write_command(torch.arange(16.0, device=engine.device).view(2, 8))
    assert engine.data("ctrl").tolist() == [[0.0], [8.0]]
    assert engine.data("mocap_quat").tolist() == [[[4.0, 5.0, 6.0, 7.0]], [[12.0, 13.0, 14.0, 15.0]]]


def test_an_unstable_simulation_is_reset_and_reported_once_and_the_others_do_not_notice() -> None:
    engine, calm = gpu(), gpu()
    for each in (engine, calm):
        each.data("xpos")
        shake(each)
    engine.data("qvel")[1, 0] = float("nan")
    engine.data("qvel")[2, 3] = 1e12
    engine.step(5)
    calm.step(5)
    assert engine.diverged().tolist() == [False, True, True]
    assert engine.diverged().tolist() == [False, False, False]
    assert torch.equal(engine.data("qpos")[0], calm.data("qpos")[0])
    assert bool(engine.data("qpos").isfinite().all())
    engine.step(5)
    calm.step(5)
    assert not bool(engine.diverged().any())
    assert torch.equal(engine.data("qpos")[0], calm.data("qpos")[0])
    assert bool(engine.data("xpos").isfinite().all())


def test_a_restored_engine_continues_as_the_saved_one() -> None:
    def begin() -> GpuEngine:
        engine = gpu(2)
        engine.data("xpos")
        engine.field("body_mass")
        return engine

    engine = begin()
    engine.field("body_mass")[1] *= 2.0
    engine.set_const()
    shake(engine)
    engine.step(10)
    saved = engine.state_dict()
    engine.step(10)
    restored = begin()
    restored.step(3)
    restored.load_state_dict(saved)
    assert torch.equal(restored.data("xpos"), saved["outputs"]["xpos"])
    restored.step(10)
    same = torch.equal if engine.device.type == "cpu" else lambda a, b: far(a, b) < 1e-4
    for name in ("qpos", "qvel", "xpos", "qacc_warmstart"):
        assert same(engine.data(name), restored.data(name)), name
    assert torch.equal(engine.field("dof_invweight0"), restored.field("dof_invweight0"))


def test_only_simulations_whose_qpos_was_written_are_refreshed() -> None:
    engine = gpu()
    place = engine.data("site_xpos")
    shake(engine)
    engine.step(4)
    lagged = place.clone()
    engine.refresh_written()
    assert torch.equal(place, lagged)
    hinge = engine.model.jnt_qposadr[engine.model.joint("hinge").id]
    engine.data("qpos")[1, hinge] = 0.2
    engine.refresh_written()
    assert torch.equal(place[[0, 2]], lagged[[0, 2]])
    # the tip is at 0.3 m on an arm at (0, -1, 1); about the y axis x -> cos, z -> -sin
    assert place[1, 0].tolist() == pytest.approx([0.3 * np.cos(0.2), -1.0, 1.0 - 0.3 * np.sin(0.2)], abs=1e-5)
    # what is written between a reset and the forward that follows is part of the reset
    engine.reset(mask_of(engine, 2))
    engine.data("qpos")[2, hinge] = 0.1
    engine.forward(mask_of(engine, 2))
    seen = place.clone()
    engine.refresh_written()
    assert torch.equal(place, seen)


def test_a_field_bound_late_is_computed_without_refreshing_fields_that_lag() -> None:
    engine = gpu()
    xpos = engine.data("xpos")
    shake(engine)
    engine.step(7)
    lagged = xpos.clone()
    site = engine.data("site_xpos")
    assert torch.equal(xpos, lagged)
    fresh = engine.export_to_mujoco(0)[1]
    assert far(site[0], torch.as_tensor(fresh.site_xpos.copy())) < 1e-6
    assert far(xpos[0], torch.as_tensor(fresh.xpos.copy())) > 1e-5


def test_a_materialized_simulation_is_its_state_and_its_model() -> None:
    engine = gpu()
    shake(engine)
    engine.field("body_mass")[2, BOX] = 7.0
    engine.field("opt.gravity")[2, 2] = -1.0
    engine.step(3)
    model, data = engine.export_to_mujoco(2)
    assert (model.body_mass[BOX], model.opt.gravity[2]) == (7.0, -1.0)
    assert (engine.model.body_mass[BOX], engine.model.opt.gravity[2]) == (1.0, -9.81)
    np.testing.assert_array_equal(data.qpos, engine.data("qpos")[2].double().cpu().numpy())
    expected = mujoco.MjData(model)
    expected.qpos[:], expected.qvel[:] = data.qpos, data.qvel
    mujoco.mj_kinematics(model, expected)
    np.testing.assert_array_equal(data.xpos, expected.xpos)


def test_forces_on_bodies_are_computed_where_they_are_read() -> None:
    """On the CPU a plugin asks for them; without it the field stays zero there, so the oracle calls the function."""
    _, engine = pair(1)
    forces = engine.data("cfrc_ext")
    data = mujoco.MjData(engine.model)
    for _ in range(20):
        mujoco.mj_step(engine.model, data)
    mujoco.mj_rnePostConstraint(engine.model, data)
    engine.step(20)
    assert abs(data.cfrc_ext[BOX]).max() > 1.0
    np.testing.assert_allclose(forces[0].cpu().numpy(), data.cfrc_ext, atol=0.02)


def test_stages_bring_up_to_date_what_they_name() -> None:
    cpu, engine = pair(2)
    bind(DERIVED, cpu, engine)
    shake(cpu, engine)
    for stage in ("kinematics", "position", "velocity"):
        for each in (cpu, engine):
            each.data("qpos")[:, :2] += 0.1
            each.data("qvel")[:, :2] += 0.1
            each.forward(stage=stage)
        for name in ("xpos", "site_xpos", "subtree_com", *(("cvel",) if stage == "velocity" else ())):
            assert far(cpu.data(name), engine.data(name)) < 1e-5, (stage, name)


def test_too_little_room_for_contacts_or_constraints_is_an_error_that_names_the_setting() -> None:
    for setting in ("contacts_per_env", "constraints_per_env"):
        engine = gpu(2, **{setting: 2})
        with pytest.raises(EngineError, match=rf"enlarge gpu\.{setting}, now 2$"):
            engine.step(40)
