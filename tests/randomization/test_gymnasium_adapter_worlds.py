"""Randomization of Gymnasium environments behind the adapter: each one's own model, always from nominal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from test_physics_catalogue import COMPILED, MODEL, fields

from adapted_env import MINE, build, flat, raw, register, seeds
from conftest import fixed_worlds, manual_layer
from envs.gymnasium_adapter.task import AdaptedTask
from envs.registry import TaskError, make_task
from randomization.config import randomization_config
from randomization.parameters import RandomizationError, build_parameters
from randomization.randomizer import DomainRandomizer
from simreal.cli.describe import available
from simreal.cli.suggest import suggested_yaml
from simreal.training.build import make_environment

register()


def test_physics_reaches_each_environments_own_model_and_nothing_else_changes() -> None:
    task = AdaptedTask("AdroitHandDoor-v1")
    entries = {"body_mass": {"of": "palm"}, "joint_damping": {"of": "door_hinge"}, "gravity": {"of": "z"}}
    env = build(task, 2, fixed_worlds(task, entries, [[2.0, 3.0, 1.0], [1.0, 1.0, 0.0]]))
    nominal, ours, other = fields(task.model), fields(raw(env, 0).model), fields(raw(env, 1).model)
    palm, door = task.model.body("palm").id, task.model.joint("door_hinge").dofadr[0]
    frame = task.model.body("frame").id  # the environment places its door itself
    assert ours["body_mass"][palm] == 2.0 * nominal["body_mass"][palm]
    assert ours["dof_damping"][door] == 3.0 * nominal["dof_damping"][door]
    assert ours["opt.gravity"].tolist() == [0.0, 0.0, nominal["opt.gravity"][2] + 1.0]
    assert (ours["body_pos"][frame] != nominal["body_pos"][frame]).all()
    derived = set(mujoco.MjModel._setconst_outputs)
    for name, values in nominal.items():
        changed = {"body_mass", "body_inertia", "dof_damping", "opt.gravity", "body_pos"} & {name}
        if changed or name in derived:
            continue
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
    for name, values in nominal.items():
        if name != "body_pos":
            np.testing.assert_array_equal(other[name], values, err_msg=name)


@pytest.mark.parametrize(("name", "of", "value", "change"), COMPILED, ids=[f"{c[0]}-{c[1]}" for c in COMPILED])
def test_constants_are_those_of_a_model_compiled_with_the_change(name: str, of: str, value: float, change: Any) -> None:
    if of == "ball":
        pytest.skip("needs another compilation, which an environment of its own cannot be made to do")
    task = AdaptedTask("Somebodys-v0", xml=MODEL, goals=False)
    env = build(task, 2, fixed_worlds(task, {name: {"of": of}}, [[value], [1.0 if value > 0.2 else 0.0]]))
    spec = mujoco.MjSpec.from_string(MODEL)
    change(spec)
    compiled, ours = fields(spec.compile()), fields(raw(env, 0).model)
    different = [key for key, nominal in fields(task.model).items() if not np.array_equal(ours[key], nominal)]
    assert different
    for key, values in compiled.items():
        np.testing.assert_allclose(ours[key], values, rtol=1e-9, atol=1e-12, err_msg=key)


def test_a_thousand_resets_do_not_drift() -> None:
    task = AdaptedTask("Somebodys-v0", xml=MODEL, goals=False)
    everything = {
        "body_mass": {}, "body_size": {"of": ["stone", "ball"]}, "geom_friction": {}, "joint_armature": {},
        "actuator_gain": {}, "gravity": {"of": "z"}, "timestep": {}, "tendon_stiffness": {},
    }  # fmt: skip
    env = build(task, 2, manual_layer(task, everything), threads=1)
    for _ in range(1000):
        env.reset()
    assert isinstance(env.layer, DomainRandomizer)
    lam = env.layer.lam.tolist()
    fresh_task = AdaptedTask("Somebodys-v0", xml=MODEL, goals=False)
    fresh = build(fresh_task, 2, fixed_worlds(fresh_task, everything, lam), threads=1)
    assert env.rng.episode.tolist() == [2000, 2001]
    for i in range(2):
        drifted, expected = fields(raw(env, i).model), fields(raw(fresh, i).model)
        for name, values in expected.items():
            np.testing.assert_array_equal(drifted[name], values, err_msg=name)


def test_recomputed_constants_leave_what_the_environment_has_chosen() -> None:
    # gymnasium-robotics sets the pose of the Fetch arm's weld; mj_setConst would put that of qpos0 in its place.
    worlds = {"parameters": {"body_mass": {"of": "object0", "range": [2.0, 2.0]}}}
    shown = []
    for randomization in (None, worlds):
        env = make_environment("gymnasium:FetchPush-v4", 1, randomization, threads=1, seed=1)
        env.reset()
        moves = torch.tensor([[0.5, 0.3, 0.4, 0.0]])
        shown.append(torch.stack([env.step(moves).final.policy[:, :3] for _ in range(8)]))
    torch.testing.assert_close(shown[0], shown[1], rtol=0.0, atol=1e-6)
    assert float(shown[0][-1, 0, 2] - shown[0][0, 0, 2]) > 0.02  # and it does move


def test_what_an_environment_writes_at_its_reset_cannot_be_randomized() -> None:
    door = {"parameters": {"body_pos_x": {"of": "frame", "range": [0.01, 0.01]}}}
    with pytest.raises(TaskError, match=r"gymnasium:AdroitHandDoor-v1: its reset writes body_pos itself"):
        make_environment("gymnasium:AdroitHandDoor-v1", 1, door).reset()
    mass = {"parameters": {"body_mass": {"range": [1.5, 1.5]}}}
    with pytest.raises(TaskError, match="body_mass"):
        make_environment(MINE, 1, mass, task_options={"writes_mass": True}).reset()
    elsewhere = {"parameters": {"joint_damping": {"range": [1.5, 1.5]}}}
    make_environment(MINE, 1, elsewhere, task_options={"writes_mass": True}).reset()


def test_what_a_step_writes_is_written_again_at_the_next_reset() -> None:
    task = AdaptedTask("Somebodys-v0", wears=True)
    env = build(task, 2, fixed_worlds(task, {"joint_damping": {"range": [1, 3]}}, [[3.0], [2.0]]))
    for _ in range(3):
        env.step(torch.zeros(2, 1))
    assert raw(env, 0).model.dof_damping[0] < 2.4 * task.model.dof_damping[0]
    env.reset()
    assert [raw(env, i).model.dof_damping[0] / task.model.dof_damping[0] for i in range(2)] == [3.0, 2.0]


def test_actions_arrive_whole_steps_late() -> None:
    task = AdaptedTask("Somebodys-v0")
    env = build(task, 2, fixed_worlds(task, {"action_latency": {"range": [0, 3]}}, [[0.0], [2.0]]))
    alone = gymnasium.make("Somebodys-v0", disable_env_checker=True)
    alone.reset(seed=seeds(env)[1])
    middle, half = 0.75, 1.25  # of [-0.5, 2]
    actions = [0.2, -0.6, 0.9, 0.1, -1.0]
    for arriving, action in zip([0.0, 0.0, *actions], actions, strict=False):
        shown = env.step(torch.full((2, 1), action, dtype=torch.float64)).final.policy[1]
        expected = alone.step(np.array([middle + half * arriving], np.float32))[0]
        np.testing.assert_array_equal(shown.numpy(), flat(env, expected))


@pytest.mark.parametrize("name", ["action_delay", "action_delay_jitter", "actuator_stuck", "actuator_backlash"])
def test_what_needs_single_commands_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(RandomizationError, match=rf"^{name}: gymnasium:HalfCheetah-v5 writes its controls.*there is"):
        make_environment("gymnasium:HalfCheetah-v5", 1, {"parameters": {name: {}}})
    assert name not in available(make_task("gymnasium:HalfCheetah-v5"))
    assert name in available(make_task("HalfCheetah-v5"))


@pytest.mark.parametrize("env_id", ["AdroitHandDoor-v1", "FetchPush-v4"])
def test_the_suggested_block_loads_back_and_runs(env_id: str, tmp_path: Path) -> None:
    task = make_task(f"gymnasium:{env_id}")
    (tmp_path / "w.yaml").write_text(suggested_yaml(task))
    config = randomization_config(tmp_path / "w.yaml")
    assert {"body_mass", "geom_friction", "joint_damping", "observation_noise"} <= set(config.parameters)
    if env_id == "AdroitHandDoor-v1":
        config.parameters["body_mass"]["of"] = "*"
    env = make_environment(task.id, 2, config, threads=1)
    env.reset()
    for _ in range(3):
        env.step(torch.zeros(2, task.action_size))
    assert bool(torch.isfinite(env.observed.policy).all())


def test_a_centre_of_mass_that_the_compiled_model_cannot_move_is_refused() -> None:
    task = make_task("gymnasium:FetchPush-v4")
    with pytest.raises(RandomizationError, match="object0 is no body with a movable centre of mass"):
        build_parameters(task, {"body_com": {"of": "object0"}})


def test_forces_and_pushes_reach_the_simulations() -> None:
    task = AdaptedTask("Ant-v5")
    entries = {"force_size": {"range": [0, 50]}, "force_probability": {"range": [1, 1]}, "push_velocity": {}}
    env = build(task, 2, fixed_worlds(task, entries, [[50.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    env.step(torch.zeros(2, 8))
    assert np.abs(raw(env, 0).data.xfrc_applied).max() > 1.0
    assert not raw(env, 1).data.xfrc_applied.any()
    env.engine.reset(torch.tensor([True, False]))  # an environment's own reset need not take them back
    assert not raw(env, 0).data.xfrc_applied.any()
