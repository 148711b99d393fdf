"""Every native task on both engines: from the same state one control step agrees, and episodes stay close.

Runs on CUDA where there is one, else on Warp's CPU device, where most tasks take minutes to compile the first time
(`-m slow` runs them).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

pytest.importorskip("mujoco_warp")

from envs.engines.base import EngineError
from envs.engines.gpu.engine import GpuEngine
from envs.engines.gpu.options import GpuOptions
from envs.environment import Environment
from envs.registry import make_task, task_ids
from envs.task import Task
from gpu_worlds import DEVICE, copy_state, far
from randomization.parameters import build_parameters
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Manual
from robots import skipping_missing
from scripted import standing
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import evaluate
from simreal.evaluation.worlds import find_world
from simreal.training.build import make_engine

pytestmark = pytest.mark.gpu

QUICK = ("InvertedPendulum-v5", "Reacher-v5", "HalfCheetah-v5")
# One task of every family: the others have the same model with other goals, rewards or what is shown of the sensors.
FAMILIES: dict[str, dict[str, Any]] = {
    **{name: {} for name in QUICK},
    **{f"{name}-v5": {} for name in ("Hopper", "Walker2d", "Swimmer", "Ant", "Humanoid", "HumanoidStandup", "Pusher")},
    "InvertedDoublePendulum-v5": {},
    **{f"Fetch{name}-v4": {} for name in ("Reach", "Push", "Slide", "PickAndPlace")},
    "HandReach-v3": {},
    "HandManipulateBlock-v1": {},
    "HandManipulateEgg_ContinuousTouchSensors-v1": {},
    "HandManipulatePen-v1": {},
    **{f"AdroitHand{name}-v1": {} for name in ("Door", "Hammer", "Pen", "Relocate")},
    "Go1Velocity-v0": {},
    "Go1Velocity-v0, rough": {"terrain": "rough"},
    "AllegroCube-v0": {},
    "ShadowCube-v0": {},
    "RubiksCube-v0": {},
}
TASKS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
PGS = ("Humanoid-v5", "HumanoidStandup-v5")


@dataclass(frozen=True)
class Within:
    """How far from MuJoCo one control step from the same state may lead: coordinates of qpos, and all that is seen."""

    qpos: float = 1e-4
    typical: float = 1e-5  # of half of the coordinates
    seen: float = 2e-3  # relative and absolute
    start: float = 1e-5  # the first observation


# Where shapes touch, mujoco_warp 4.0 finds fewer points than MuJoCo: between two boxes four at most, between two
# capsules that are nearly parallel one of two, between a shape and a height field four. The joints that are pressed on
# then move differently, and their velocities and the forces at fingertips more so; the other coordinates agree.
_TOUCHING = Within(qpos=2e-2, seen=10.0)
# An object that was dropped onto a hand has also bounced by the time an episode begins.
_DROPPED = Within(qpos=1e-2, seen=2.0, start=0.2)
_WITHIN = {
    "FetchSlide": Within(qpos=5e-4),  # a finger grazes the table, which the redundant arm shows in its elbow
    "HumanoidStandup": Within(seen=0.1),  # forces on bodies that lie on the floor
    "Adroit": Within(qpos=2e-3, seen=1.0),
    "HandReach": Within(qpos=1e-2, seen=0.5),
    "HandManipulate": _DROPPED,
    "AllegroCube": _TOUCHING,
    "ShadowCube": _TOUCHING,
    "RubiksCube": _TOUCHING,
    "Go1Velocity-v0, rough": Within(qpos=5e-2, seen=100.0, typical=2e-4),
}


def made(name: str) -> Task:
    """A task of a family, or a skipped test where its robot's model is not there."""
    with skipping_missing():
        return make_task(name.partition(",")[0], **FAMILIES.get(name, {}))


def comparable(name: str) -> Task:
    """A task whose model means the same on both engines.

    PGS is not on the GPU. For a capsule that stands steeply on a plane mujoco_warp turns the tangents of the contact,
    and with them the pyramid that stands for the friction cone; elliptic cones do not depend on the tangents.
    """
    task = made(name)
    task.model = copy.copy(task.model)  # tasks of one kind share theirs
    if name.startswith(("Ant", "Humanoid")):
        task.model.opt.solver = int(mujoco.mjtSolver.mjSOL_NEWTON)
        task.model.opt.cone = int(mujoco.mjtCone.mjCONE_ELLIPTIC)
        from envs.engines.cfrc_ext import note_plain, without_plugin

        plain = without_plugin(task.model)
        plain.opt.solver, plain.opt.cone = task.model.opt.solver, task.model.opt.cone
        note_plain(task.model, plain)
    if name.endswith("rough"):
        task.model.geom_margin[:] = 0.0  # which the GPU engine does with shapes on height fields
    return task


def both(name: str, num_envs: int, worlds: Mapping[str, Any] | None = None, seed: int = 5) -> list[Environment]:
    """The same environments on the CPU engine and on the GPU engine, reset."""
    environments = []
    for kind in ("cpu", "gpu"):
        task = comparable(name)
        layer = None if worlds is None else DomainRandomizer(Manual(build_parameters(task, worlds)))
        if layer is not None:
            layer.prepare(task)
        engine = (
            make_engine("cpu", task.model, num_envs, 1)
            if kind == "cpu"
            else GpuEngine(task.model, num_envs, DEVICE, GpuOptions())
        )
        environments.append(Environment(task, engine, layer, seed))
        environments[-1].reset()
    return environments


def actions(step: int, env: Environment) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return 2.0 * torch.rand(env.num_envs, env.task.action_size, generator=generator) - 1.0


def test_every_native_task_has_a_family_here_and_runs_on_the_gpu_or_says_in_one_line_why_not() -> None:
    refused: dict[str, str] = {}
    models: set[tuple[int, ...]] = set()
    for name in [*FAMILIES, *task_ids()]:
        model = made(name).model
        kind = (model.nq, model.nbody, model.ngeom, model.nmesh, model.nhfield, int(model.opt.solver))
        if name not in FAMILIES:
            assert kind in models, f"{name} has a model that no family has"
            continue
        models.add(kind)
        try:
            GpuEngine(model, 1, DEVICE)
        except EngineError as error:
            refused[name] = str(error)
    assert sorted(refused) == sorted(PGS)
    for reason in refused.values():
        assert reason.startswith("engine: the model's solver PGS does not run on the GPU")
        assert "\n" not in reason


@pytest.mark.parametrize("name", TASKS)
def test_one_control_step_from_the_same_state_agrees(name: str) -> None:
    cpu, gpu = both(name, 3)
    within = next((sizes for prefix, sizes in _WITHIN.items() if name.startswith(prefix)), Within())
    assert far(cpu.observed.policy, gpu.observed.policy) < within.start
    for step in range(6):
        copy_state(cpu.engine, gpu.engine)  # pyright: ignore[reportArgumentType]
        if cpu.task.goal_size:
            gpu.task.goal.copy_(cpu.task.goal)
        action = actions(step, cpu)
        mine, theirs = cpu.step(action), gpu.step(action)
        apart = (cpu.engine.data("qpos") - gpu.engine.data("qpos").double().cpu()).abs()
        assert float(apart.max()) < within.qpos, step
        assert float(apart.median()) < within.typical, step
        for a, b in ((mine.final.policy, theirs.final.policy), (mine.final.privileged, theirs.final.privileged)):
            if a is not None and b is not None:
                torch.testing.assert_close(b.double().cpu(), a, rtol=within.seen, atol=within.seen)
        worth = max(1e-3, 5.0 * within.qpos)
        torch.testing.assert_close(theirs.reward.double().cpu(), mine.reward, rtol=worth, atol=worth)
        assert torch.equal(mine.terminated, theirs.terminated.cpu())
    assert cpu.divergences == gpu.divergences == 0


@pytest.mark.parametrize("steps", [52, pytest.param(100, marks=pytest.mark.slow)])  # episodes of 50 steps
def test_a_hundred_steps_without_contacts_stay_close(steps: int) -> None:
    cpu, gpu = both("Reacher-v5", 2)
    for step in range(steps):
        mine, theirs = cpu.step(0.3 * actions(step, cpu)), gpu.step(0.3 * actions(step, gpu))
        assert torch.equal(mine.done, theirs.done.cpu()), step
        assert far(mine.final.policy, theirs.final.policy) < 1e-3, step
        assert far(mine.observed.policy, theirs.observed.policy) < 1e-3, step
    assert cpu.rng.episode.tolist() == [2 * (steps // 50), 2 * (steps // 50) + 1]


WORLDS: dict[str, Any] = {
    "body_mass": {"range": [0.5, 2.0]},
    "geom_friction": {"range": [0.5, 2.0]},
    "contact_stiffness": {"range": [0.25, 1.0]},
    "joint_damping": {"range": [0.5, 2.0]},
    "joint_armature": {"range": [0.5, 2.0]},
    "actuator_strength": {"range": [0.5, 1.5]},
    "gravity": {"of": "z", "range": [-1.0, 1.0]},
    "body_com": {"of": "torso", "range": [0.0, 0.02]},
    "action_delay": {"range": [0, 60]},
    "action_latency": {"range": [0, 2]},
    "action_noise": {"range": [0, 0.1]},
    "actuator_backlash": {"range": [0, 0.05]},
    "observation_noise": {"range": [0, 0.1]},
    "observation_delay": {"range": [0, 60]},
    "observation_dropout": {"range": [0, 0.3]},
    "force_size": {"range": [0, 1.0]},
    "adversary_action": {"range": [0, 0.3]},
}


def test_the_same_lambda_gives_the_same_world_noise_and_delays() -> None:
    cpu, gpu = both("HalfCheetah-v5", 3, WORLDS)
    assert isinstance(cpu.layer, DomainRandomizer)
    assert isinstance(gpu.layer, DomainRandomizer)
    assert torch.equal(cpu.layer.lam, gpu.layer.lam.cpu())
    constants = ("body_subtreemass", "dof_invweight0", "body_invweight0", "actuator_acc0")
    fields = ("body_mass", "body_inertia", "body_ipos", "geom_friction", "dof_damping", "dof_armature", "opt.gravity")
    for field in (*fields, "geom_solref", "geom_solimp", "actuator_gainprm", *constants):
        mine, theirs = cpu.engine.field(field), gpu.engine.field(field).double().cpu()
        torch.testing.assert_close(theirs, mine, rtol=5e-5, atol=1e-6)
    assert float((cpu.engine.field("body_mass")[0] - cpu.engine.field("body_mass")[1]).abs().max()) > 0.1
    for step in range(8):
        mine, theirs = cpu.step(actions(step, cpu)), gpu.step(actions(step, gpu))
        torch.testing.assert_close(theirs.final.policy.double().cpu(), mine.final.policy, rtol=5e-3, atol=5e-3)
        assert far(cpu.engine.data("ctrl"), gpu.engine.data("ctrl")) < 1e-3, step
        assert far(cpu.engine.data("xfrc_applied"), gpu.engine.data("xfrc_applied")) < 1e-4, step


def test_episodes_that_end_begin_anew_in_new_worlds_and_the_others_go_on() -> None:
    cpu, gpu = both("InvertedPendulum-v5", 4, {"body_mass": {"range": [0.5, 2.0]}})
    assert isinstance(gpu.layer, DomainRandomizer)
    seen = 0
    for step in range(30):
        before = gpu.engine.field("body_mass").clone()
        result = gpu.step(actions(step, gpu))
        cpu.step(actions(step, cpu))
        changed = (gpu.engine.field("body_mass") != before).any(dim=1)
        assert torch.equal(changed, result.done)
        seen += int(result.done.sum())
    assert seen > 2
    assert torch.equal(cpu.rng.episode, gpu.rng.episode.cpu())


def test_a_restored_environment_continues_as_the_saved_one() -> None:
    saved, steps = None, []
    _, env = both("InvertedPendulum-v5", 3, {"body_mass": {"range": [0.5, 2.0]}, "action_delay": {"range": [0, 60]}})
    for step in range(16):
        if step == 8:
            saved = env.state_dict()
        result = env.step(actions(step, env))
        steps.append(result.observed.policy)
    _, other = both("InvertedPendulum-v5", 3, {"body_mass": {"range": [0.5, 2.0]}, "action_delay": {"range": [0, 60]}})
    assert saved is not None
    other.load_state_dict(saved)
    for step in range(8, 16):
        shown = other.step(actions(step, other)).observed.policy
        assert far(shown, steps[step]) <= (0.0 if DEVICE == "cpu" else 1e-4), step


@pytest.mark.slow
def test_fetch_reach_under_randomization_is_the_same_task_on_both_engines() -> None:
    worlds = {
        "body_mass": {"of": "robot0:*", "range": [0.5, 2.0]},
        "joint_damping": {"of": "robot0:*", "range": [0.5, 2.0]},
        "action_delay": {"range": [0, 40]},
        "observation_noise": {"range": [0, 0.01]},
        "observation_bias": {"of": "grip_pos", "range": [0, 0.01]},
    }
    cpu, gpu = both("FetchReach-v4", 3, worlds)
    for step in range(55):
        mine, theirs = cpu.step(actions(step, cpu)), gpu.step(actions(step, gpu))
        assert far(mine.final.policy, theirs.final.policy) < 2e-3, step
        assert torch.equal(mine.done, theirs.done.cpu())
    assert float(cpu.observed.policy.abs().max()) > 0.0


def test_the_world_of_the_other_engine_is_the_same_task() -> None:
    policy = standing("InvertedPendulum-v5")
    nominal, other = (find_world(name, policy) for name in ("nominal", "other_engine"))
    document = evaluate(policy, [nominal, other], 12, None, seed=3)
    mine, theirs = (world["samples"]["return"] for world in document["worlds"])
    assert len(set(mine)) > 1
    assert theirs == pytest.approx(mine, abs=1.0)  # a pole falls within the same step, or the next


def test_the_world_of_the_other_engine_is_left_out_where_the_engine_does_not_run_the_model() -> None:
    with pytest.raises(UserError, match=r"^other_engine: engine: the model's solver PGS does not run on the GPU"):
        find_world("other_engine", standing("Humanoid-v5"))


@pytest.mark.slow
def test_backlash_as_joints_of_its_own_is_the_same_on_both_engines() -> None:
    policy = standing("HalfCheetah-v5")
    world = find_world("backlash", policy)
    cpu, gpu = (replace(world, engine=name).make_environment(policy, 2, seed=1) for name in ("cpu", "gpu"))
    assert far(cpu.reset().policy, gpu.reset().policy) < 1e-5
    for step in range(20):
        mine, theirs = cpu.step(0.3 * actions(step, cpu)), gpu.step(0.3 * actions(step, gpu))
        torch.testing.assert_close(theirs.final.policy.double().cpu(), mine.final.policy, rtol=1e-2, atol=1e-2)
        assert far(cpu.engine.data("qpos"), gpu.engine.data("qpos")) < 1e-3, step
    wide = cpu.engine.data("qpos").shape[1]
    assert cpu.engine.model.nq == gpu.engine.model.nq == wide + 6
