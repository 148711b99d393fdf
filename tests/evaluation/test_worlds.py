"""Worlds to evaluate in: what their files may say, what is generated, and what they change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from conftest import TinyTask
from envs.registry import make_task
from envs.task import Task
from randomization.parameters import build_parameters
from randomization.samplers.base import Extremes, Manual, Points
from robots import skipping_missing
from scripted import reaching, standing
from simreal.common.errors import UserError
from simreal.evaluation.model_variants import ModelVariant, ModelVariantError
from simreal.evaluation.worlds import beyond, check_names, find_world, find_worlds
from simreal.training.build import make_environment
from simreal.training.run_directory import LoadedPolicy

FREE_BALL = """
<mujoco>
  <worldbody>
    <body name="base"><geom name="floor" type="plane" size="1 1 1"/></body>
    <body name="ball" pos="0 0 1"><freejoint/><geom name="ball" type="sphere" size="0.1" mass="2"/>{extra}</body>
    <body name="arm" pos="0 1 1">
      <joint name="hinge" axis="0 1 0"/>
      <geom name="rod" type="box" size="0.2 0.1 0.05" pos="0.1 0.05 0" euler="10 20 30" mass="1.5"/>{other}
    </body>
  </worldbody>
  <actuator><motor joint="hinge"/></actuator>
</mujoco>
"""
POINT = '<geom type="sphere" size="1e-4" pos="{}" mass="0.7" contype="0" conaffinity="0"/>'


def altered(task: Task, **blocks: Any) -> mujoco.MjModel:
    return ModelVariant.model_validate(blocks).apply(task, lambda: make_task(task.id))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_options_change_in_a_model_of_its_own_and_the_control_period_stays() -> None:
    task, other = make_task("FetchReach-v4"), make_task("FetchReach-v4")
    period_s = task.control_period_s
    physics = {"integrator": "implicit", "solver": "PGS", "cone": "elliptic", "impratio": 4.0, "timestep": 0.004}
    model = altered(task, physics=physics)
    assert model is task.model
    assert (model.opt.integrator, model.opt.solver, model.opt.cone) == (2, 0, 1)
    assert (model.opt.impratio, model.opt.timestep, task.decimation) == (4.0, 0.004, 10)
    assert task.control_period_s == pytest.approx(period_s)
    assert (other.model.opt.integrator, other.model.opt.timestep, other.decimation) == (0, 0.002, 20)


@pytest.mark.parametrize(("factor", "decimation"), [(0.5, 40), (1.5, 13), (2.0, 10), (100.0, 1)])
def test_a_factor_of_the_timestep_is_rounded_to_whole_steps(factor: float, decimation: int) -> None:
    task = make_task("FetchReach-v4")
    model = altered(task, physics={"timestep_factor": factor})
    assert task.decimation == decimation
    assert model.opt.timestep == pytest.approx(0.04 / decimation)


def test_a_payload_adds_up_as_a_point_mass_that_mujoco_compiles() -> None:
    for body, place, where in (("ball", "extra", (0.0, 0.05, 0.2)), ("arm", "other", (-0.1, 0.0, 0.3))):
        task = TinyTask(FREE_BALL.format(extra="", other=""))
        model = altered(task, model={"payload": {"body": body, "mass": 0.7, "pos": where}})
        parts = {"extra": "", "other": "", place: POINT.format(" ".join(map(str, where)))}
        expected = mujoco.MjModel.from_xml_string(FREE_BALL.format(**parts))
        data, reference = mujoco.MjData(model), mujoco.MjData(expected)
        for each, m in ((data, model), (reference, expected)):
            each.qvel[:] = np.linspace(-1.0, 1.0, m.nv)
            mujoco.mj_forward(m, each)
        assert model.body_mass.sum() == pytest.approx(expected.body_mass.sum())
        index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, body)
        assert np.allclose(model.body_ipos[index], expected.body_ipos[index])
        assert np.allclose(sorted(model.body_inertia[index]), sorted(expected.body_inertia[index]), atol=1e-8)
        assert np.allclose(data.qacc, reference.qacc, atol=1e-6)  # the same motion
        assert np.allclose(model.dof_invweight0, expected.dof_invweight0, rtol=1e-6)


def test_what_a_model_does_not_have_is_named() -> None:
    task = TinyTask(FREE_BALL.format(extra="", other=""))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model": {"payload": {"body": "bal", "mass": 1.0}}}, "no body 'bal' (did you mean 'ball'?)"),
        ({"model": {"payload": {"body": "base", "mass": 1.0}}}, "base of Tiny-v0 cannot move"),
        (
            {"model": {"backlash": {"play": 0.1, "of": "hing"}}},
            "matches 'hing' (did you mean 'hinge'?)",
        ),
        ({"physics": {"timestep": 0.0033}}, "does not divide the control period"),
        ({"physics": {"integrator": "Euler", "cone": "pyramidal"}}, "changes nothing"),
    ]
    for blocks, message in wrong:
        with pytest.raises(ModelVariantError) as error:
            altered(task, **blocks)
        assert message in str(error.value)
    with pytest.raises(ModelVariantError, match="no joint that an actuator drives"):
        altered(make_task("FetchPush-v4"), model={"backlash": {"play": 0.1}})


DAMPED = """
<mujoco>
  <option timestep="0.005" gravity="0 0 0" integrator="implicitfast"/>
  <worldbody>
    <body><joint name="loose" axis="0 1 0"/><geom size="0.1" mass="10"/></body>
    <body pos="0 1 0">
      <joint name="stiff" axis="0 1 0" damping="{damping}"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="1"/>
    </body>
  </worldbody>
  <actuator><position joint="stiff" kp="1" kv="{kv}"/></actuator>
</mujoco>
"""


@pytest.mark.parametrize(
    ("integrator", "of_joint", "of_servo", "limit"),
    [("RK4", 1.0, 0.0, 2.785), ("RK4", 0.5, 0.5, 2.785), ("Euler", 0.0, 1.0, 2.0)],
)
@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_integrators_that_would_make_damping_explode_are_refused(
    integrator: str, of_joint: float, of_servo: float, limit: float, factor: float
) -> None:
    inertia = mujoco.MjModel.from_xml_string(DAMPED.format(damping=0, kv=0)).dof_M0[1]
    damping = factor * limit * inertia / 0.005
    task = TinyTask(DAMPED.format(damping=of_joint * damping, kv=of_servo * damping))
    model = copy.copy(task.model)
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4 if integrator == "RK4" else mujoco.mjtIntegrator.mjINT_EULER
    data = mujoco.MjData(model)
    data.qvel[1] = 1e-6
    mujoco.mj_step(model, data, nstep=100)
    grows = abs(data.qvel[1]) > 1e-6
    assert grows == (factor > 1.0)  # MuJoCo itself
    if grows:
        with pytest.raises(
            ModelVariantError, match=r"physics.integrator: .* unstable: .* the damping of stiff explicitly"
        ):
            altered(task, physics={"integrator": integrator})
    else:
        assert altered(task, physics={"integrator": integrator}).opt.integrator == model.opt.integrator


def test_a_centre_of_mass_that_moves_has_a_full_inertia_beside_backlash() -> None:
    environment = make_environment(
        "HandManipulateBlock-v1", 1, {"parameters": {"body_com_x": {"of": "object", "range": [0.0, 0.01]}}},
        variant=ModelVariant.model_validate({"model": {"backlash": {"play": 0.01}}}),
    )  # fmt: skip
    assert environment.engine.model.njnt > environment.task.model.njnt
    for model in (environment.engine.model, environment.task.model):
        assert model.body_simple[model.body("object").id] == 0


def test_a_policy_plays_with_backlash_and_sees_what_it_knows() -> None:
    policy = standing("HalfCheetah-v5")
    world = find_world("backlash", policy)
    environment = world.make_environment(policy, 2, seed=0)
    assert environment.engine.model.njnt == environment.task.model.njnt + 6
    observed = environment.reset()
    for _ in range(5):
        observed = environment.step(policy.act(observed.policy)).observed
    assert observed.policy.shape == (2, 17)


TASKS = {  # task: shipped worlds that it cannot have, with the reason
    "FetchPush-v4": {"backlash": "no joint", "motor_fade": "no actuator", "pyramidal_cone": "changes nothing"},
    "FetchReach-v4": {"backlash": "no joint", "motor_fade": "no actuator", "pyramidal_cone": "changes nothing"},
    "Go1Velocity-v0": {"pyramidal_cone": "changes nothing"},
    "HalfCheetah-v5": {"pyramidal_cone": "changes nothing"},
    "Hopper-v5": {"pyramidal_cone": "changes nothing"},
    "Walker2d-v5": {"pyramidal_cone": "changes nothing"},
    "InvertedPendulum-v5": {
        "pyramidal_cone": "changes nothing",
        "backlash": "joints that it does not know",
        "friction_drops": "no pair names",
    },
}


@pytest.mark.parametrize("task_id", sorted(TASKS))
def test_every_shipped_world_fits_its_tasks(task_id: str) -> None:
    with skipping_missing():
        policy = standing(task_id)
    worlds, left_out = find_worlds(["held_out", "unmodelled"], policy)
    left_out.pop("other_engine", None)  # where no GPU engine is installed
    assert left_out.keys() == TASKS[task_id].keys(), left_out
    for name, reason in TASKS[task_id].items():
        assert reason in left_out[name]
    names = {world.name for world in worlds}
    assert {"latency", "bursty_latency", "fine_timestep", "cg_solver", "tilted_gravity"} <= names
    assert {"fetch_payload" in names, "planar_payload" in names} == {
        task_id.startswith("Fetch"), task_id[:4] in ("Half", "Hopp", "Walk")
    }  # fmt: skip
    for world in worlds:
        assert world.group in ("held_out", "unmodelled")
    boxes = {"fetch_box", "go1_box", "planar_box"} & names
    assert len(boxes) == (task_id not in ("FetchReach-v4", "InvertedPendulum-v5"))


def test_extremes_lie_around_the_range_and_never_in_it() -> None:
    task = TinyTask()
    wide = build_parameters(task, {"joint_damping": {"range": [0.4, 1.1]}, "joint_armature_": {
        "quantity": "action_delay", "range": [0, 30]}})  # fmt: skip
    sampler = Extremes(wide, torch.tensor([[0.6, 0.9], [0.0, 20.0]]))
    u = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)[:, None].expand(-1, 2)
    lam, boundary = sampler.draw(u, u)
    assert (boundary == -1).all()
    damping, delay = lam.unbind(dim=1)
    assert ((damping <= 0.6) | (damping >= 0.9)).all()
    assert float((damping < 0.75).double().mean()) == pytest.approx(0.5)  # [0.4, 0.6] and [0.9, 1.1] are equally long
    assert (damping.min(), damping.max()) == pytest.approx((0.4, 1.1), abs=1e-3)
    assert (delay.min(), delay.max()) == pytest.approx((20.0, 30.0), abs=0.02)  # nothing lies below 0


def test_one_at_a_time_leaves_the_others_in_their_range() -> None:
    task = TinyTask()
    names = ("joint_damping", "actuator_gain", "body_mass")
    wide = build_parameters(task, {name: {"range": [0.5, 2.0]} for name in names})
    inner = torch.tensor([[0.8, 1.2], [0.5, 2.0], [0.8, 1.2]])  # the second fills its limits
    sampler = Extremes(wide, inner, one_at_a_time=True)
    generator = torch.Generator().manual_seed(0)
    u, choice = (torch.rand(2000, k, generator=generator, dtype=torch.float64) for k in (3, 2))
    lam, _ = sampler.draw(u, choice)
    out = (lam < inner[:, 0]) | (lam > inner[:, 1])
    assert (out.sum(dim=1) == 1).all()
    assert out.double().mean(dim=0).tolist() == pytest.approx([0.5, 0.0, 0.5], abs=0.04)


def test_what_lies_beyond_a_range_is_half_its_width_within_what_makes_sense() -> None:
    task = make_task("FetchReach-v4")
    entries = {
        "body_mass": {"of": "robot0:*", "range": [0.5, 2.0]},  # a factor: [0.5 / 2, 2 * 2]
        "action_delay": {"range": [20, 60]},  # 20 ms more on either side
        "observation_noise": {"of": "grip_pos", "range": [0, 0.01]},  # nothing below 0
        "action_dropout": {"range": [0.5, 0.9]},  # a probability
        "geom_gap": {
            "of": "floor0",
            "range": [0.0, 0.0],
        },  # no width: half the default's, 0.0005, and the model's own gap is 0
    }
    ends = [beyond(task, p) for p in build_parameters(task, entries)]
    expected = [(0.25, 4.0), (0.0, 80.0), (0.0, 0.015), (0.3, 1.0), (0.0, 0.00025)]
    assert np.allclose(ends, expected)


def test_range_and_extremes_come_from_the_policys_training() -> None:
    policy = reaching({"action_delay": {"range": [10, 30]}, "grip_bias": {
        "quantity": "observation_bias", "of": "grip_pos", "range": [0, 0.01]}})  # fmt: skip
    world = find_world("range", policy)
    assert (world.group, [p.limits for p in world.sampler.parameters]) == ("trained", [(10, 30), (0, 0.01)])
    world = find_world("extremes:action_delay", policy)
    u = torch.rand(500, 2, dtype=torch.float64)
    lam, _ = world.sampler.draw(u, u)
    assert ((lam[:, 0] < 10) | (lam[:, 0] > 30)).all()
    assert ((lam[:, 1] > 0) & (lam[:, 1] < 0.01)).all()
    assert (world.group, world.name) == ("held_out", "extremes:action_delay")
    with pytest.raises(UserError, match=r"extremes:action_dely: .*did you mean 'action_delay'"):
        find_world("extremes:action_dely", policy)
    with pytest.raises(UserError, match=r"trained without randomization.*--ranges-of"):
        find_world("extremes", reaching())
    of_another = find_world("extremes", reaching(), ranges_of=policy)
    assert of_another.signature() == find_world("extremes", policy).signature()
    with pytest.raises(UserError, match="is of HalfCheetah-v5"):
        find_world("extremes", policy, ranges_of=standing("HalfCheetah-v5"))


def test_a_file_states_range_and_extremes_of_packer() -> None:
    world = find_world("packer_extremes", standing("Hopper-v5"))
    u = torch.rand(500, 3, dtype=torch.float64)
    lam, _ = world.sampler.draw(u, u)
    power = 0.75 * lam[:, 0]  # R is [0.6, 0.9], E reaches from 0.4 to 1.1
    assert (((power >= 0.4 - 1e-4) & (power <= 0.6)) | ((power >= 0.9 - 1e-9) & (power <= 1.1 + 1e-4))).all()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("physics: {integrator: implict}", ("physics.integrator", "'implict'", "did you mean 'implicit'")),
        ("physics: {timestp: 0.001}", ("physics.timestp", "timestep")),
        ("phyics: {cone: elliptic}", ("phyics", "physics")),
        ("model: {payload: {body: robot0:griper_link, mass: 1}}", ("model.payload.body", "robot0:gripper_link")),
        ("model: {payload: {body: robot0:gripper_link, mass: -1}}", ("model.payload.mass", "greater than 0")),
        ("tasks: Go1*", ("is for Go1*", "FetchReach-v4")),
        ("engine: cuda", ("engine", "'gpu'")),
        ("physics: {timestep: 1.0e-9}", ("physics.timestep", "1e-09")),  # days for an episode
        ("physics: {timestep_factor: 1.0e-9}", ("physics.timestep_factor", "1e-09")),
        ("randomization: {parameters: {body_mass: {of: nobody}}}", ("body_mass.of", "nobody")),
        ("randomization: {sampler: adr, parameters: {action_delay: {}}}", ("sampler", "manual")),
        ("randomization: {parameters: {action_delay: {range: [0, 9]}}}\nextremes: {action_dely: [0, 20]}",
         ("extremes.action_dely", "action_delay")),
        ("randomization: {parameters: {action_delay: {range: [0, 9]}}}\nextremes: {action_delay: [3, 20]}",
         ("extremes.action_delay", "around its range [0, 9]")),
        ("randomization: {parameters: {geom_solimp_dmax: {range: [0, 0.5]}}}", ("geom_solimp_dmax",)),
        ("one_at_a_time: true", ("one_at_a_time", "extremes")),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_in_one_line_that_names_them(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path = write(tmp_path / "w.yaml", text)
    with pytest.raises(UserError) as error:
        find_world(path, reaching())
    message = str(error.value)
    assert "\n" not in message
    for part in ("w.yaml", *parts):
        assert part in message


def test_wrong_names_are_refused_with_the_nearest() -> None:
    for find in (lambda name: find_world(name, reaching()), lambda name: check_names([name])):
        for name, close in (("nominall", "nominal"), ("unmodeled", "unmodelled"), ("latncy", "latency")):
            with pytest.raises(UserError, match=f"did you mean '{close}'.*unmodelled.*fetch_box"):
                find(name)


def test_a_group_is_no_single_world() -> None:
    with pytest.raises(UserError, match="held_out: is a group of worlds"):
        find_world("held_out", reaching())
    for name in ("nominal:x", "extremes:"):
        with pytest.raises(UserError, match="no such world"):
            check_names([name])


def test_two_worlds_of_one_name_are_refused_and_one_world_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "w.yaml", "name: latency")
    with pytest.raises(UserError, match="another world is called 'latency'"):
        find_worlds(["latency", path], reaching())
    worlds, _ = find_worlds(["latency", "held_out", "latency"], reaching())
    assert [world.name for world in worlds].count("latency") == 1


def test_points_are_played_in_turn_at_any_number_of_environments() -> None:
    policy: LoadedPolicy = reaching({"action_delay": {"range": [10, 30]}, "action_noise": {"range": [0, 0.1]}})
    nan = float("nan")
    points = torch.tensor([[12.0, nan], [nan, 0.05], [25.0, 0.02]], dtype=torch.float64)
    seen: list[dict[int, list[float]]] = []
    for n in (1, 4):
        sampler = Points(policy.parameters, torch.tensor([[10.0, 30.0], [0.0, 0.1]]), points)
        environment = policy.make_environment(n, sampler, seed=3)
        sampler.follow(environment.rng)
        played: dict[int, list[float]] = {}
        for _ in range(8 // n):
            environment.reset()
            layer: Any = environment.layer
            played |= dict(zip(environment.rng.episode.tolist(), layer.lam.tolist(), strict=True))
        seen.append(played)
    assert seen[0] == seen[1]
    for episode, lam in seen[0].items():
        for value, point, (low, high) in zip(lam, points[episode % 3].tolist(), ((10, 30), (0, 0.1)), strict=True):
            assert low < value < high if point != point else value == point


def test_worlds_with_the_same_episodes_have_the_same_signature() -> None:
    a, b = reaching({"action_delay": {"range": [10, 30]}}), reaching({"action_delay": {"range": [10, 40]}})
    signature = lambda name, policy: find_world(name, policy).signature()  # noqa: E731
    for name in ("nominal", "latency", "fine_timestep"):
        assert signature(name, a) == signature(name, b)
    for name in ("trained", "range", "extremes"):
        assert signature(name, a) != signature(name, b)
    assert len({signature(name, a) for name in ("nominal", "latency", "fine_timestep", "cg_solver", "range")}) == 5
    assert isinstance(find_world("nominal", a).sampler, Manual)
