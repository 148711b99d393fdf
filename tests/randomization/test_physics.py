"""Physical parameters: what is written, that nothing else is, and that the world behaves accordingly."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import HINGE, SLIDER, TinyTask, build, fixed_worlds, manual_layer, only
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.manipulation.fetch import FetchTask
from randomization.parameters import Parameter, RandomizationError, build_parameters
from randomization.physics.writer import PhysicsWriter

BOX, BYSTANDER = 1, 2  # bodies
FLOOR_GEOM, BOX_GEOM, BOB_GEOM = 0, 1, 2
DERIVED_FROM_MASS = {"body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0", "actuator_acc0"}


def world(entries: dict[str, Any], worlds: list[list[float]], xml: str = SLIDER) -> Environment:
    """One environment per row of `worlds`, begun."""
    task = TinyTask(xml)
    return build(task, len(worlds), fixed_worlds(task, entries, worlds))


def changed_fields(env: Environment, index: int) -> dict[str, np.ndarray]:
    """Every mjModel and mjOption array of an environment that is not as in the nominal model."""
    assert isinstance(env.engine, CpuEngine)
    model, nominal = env.engine.export_to_mujoco(index)[0], env.engine.model
    changed = {}
    for prefix, ours, theirs in (("", model, nominal), ("opt.", model.opt, nominal.opt)):
        for name in dir(theirs):
            value = getattr(theirs, name)
            if isinstance(value, np.ndarray) and not np.array_equal(getattr(ours, name), value):
                changed[prefix + name] = np.asarray(getattr(ours, name)).copy()
    return changed


CASES: list[tuple[dict[str, Any], float, dict[str, Any], set[str]]] = [
    # entry, lambda, {field: expected value of the whole field}, derived fields that may follow
    (
        {"body_mass": {"of": "box"}}, 1.5,
        # inertia of a cube of 2 kg and side 0.2 m: 2 * 0.2^2 / 6 = 0.0133; of the bob: 0.4 * 0.1^2 = 0.004
        {"body_mass": [0, 3, 1], "body_inertia": [[0] * 3, [0.02] * 3, [0.004] * 3]}, DERIVED_FROM_MASS,
    ),
    (
        {"body_inertia": {"of": "bystander"}}, 0.5,
        {"body_inertia": [[0] * 3, [0.04 / 3] * 3, [0.002] * 3]}, DERIVED_FROM_MASS,
    ),
    (
        {"geom_friction": {"of": "box"}}, 2.0,
        {"geom_friction": [[0.05, 0.005, 0.0001], [0.8, 0.01, 0.0002], [0.7, 0.005, 0.0001]]}, set(),
    ),
    ({"joint_damping": {"of": "swing"}}, 3.0, {"dof_damping": [0, 0, 0.6]}, set()),
    (
        {"actuator_gain": {"of": "servo", "range": [0.5, 4]}}, 4.0,
        {
            # force = kp (u - q) - kv dq: gain kp = 5, bias (0, -kp, -kv) = (0, -5, -0.1), both times 4
            "actuator_gainprm": [[1] + [0] * 9, [20] + [0] * 9],
            "actuator_biasprm": [[0] * 10, [0, -20, -0.4] + [0] * 7],
        },
        set(),
    ),
    ({"gravity": {"of": "z", "range": [-1, 1]}}, 0.81, {"opt.gravity": [0, 0, -9.0]}, set()),
    ({"gravity": {"of": "x", "range": [-1, 1]}}, -0.5, {"opt.gravity": [-0.5, 0, -9.81]}, set()),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "value", "expected", "derived"), CASES, ids=[next(iter(c[0])) for c in CASES])
def test_a_quantity_writes_its_value_and_changes_nothing_else(
    entries: dict[str, Any], value: float, expected: dict[str, Any], derived: set[str]
) -> None:
    quantity = next(iter(entries))
    entries = {quantity: {"range": [-10 if quantity == "gravity" else 0.1, 10], **entries[quantity]}}
    nominal = 0.0 if quantity == "gravity" else 1.0
    env = world(entries, [[value], [nominal]])
    changed = changed_fields(env, 0)
    for field, whole in expected.items():
        whole = np.asarray(whole, float)
        np.testing.assert_allclose(changed[field][..., : whole.shape[-1]], whole, rtol=1e-12, err_msg=field)
        assert not changed[field][..., whole.shape[-1] :].any()
    assert set(expected) <= set(changed) <= set(expected) | derived
    assert changed_fields(env, 1) == {}  # the neighbour at the nominal value is nominal, bit for bit


def test_a_thousand_resets_do_not_drift() -> None:
    entries = {"body_mass": {"of": "*"}, "geom_friction": {"of": "box"}, "joint_damping": {}, "actuator_gain": {}}
    task = TinyTask(SLIDER)
    layer = manual_layer(task, entries | {"gravity": {"of": "z"}})
    env = build(task, 2, layer)
    everyone = torch.ones(2, dtype=torch.bool)
    for _ in range(1000):
        env.reset(everyone)
    nominal = torch.tensor([p.nominal for p in layer.parameters], dtype=torch.float64)
    assert (layer.lam != nominal).all()
    lam = layer.lam[1]
    np.testing.assert_allclose(changed_fields(env, 1)["body_mass"], np.array([0, 2, 1]) * float(lam[0]), rtol=1e-12)
    layer.lam = nominal.expand(2, -1).clone()
    layer._physics.write(everyone, layer.lam)
    env.engine.set_const(everyone)
    assert changed_fields(env, 0) == changed_fields(env, 1) == {}


def test_only_environments_that_begin_an_episode_get_a_new_world() -> None:
    task = TinyTask(SLIDER)
    env = build(task, 3, manual_layer(task, {"body_mass": {"of": "box"}, "geom_friction": {"of": "box"}}))
    before = [changed_fields(env, i) for i in range(3)]
    env.reset(only(3, 1))
    for i in (0, 2):
        after = changed_fields(env, i)
        assert after.keys() == before[i].keys()
        assert all(np.array_equal(after[k], before[i][k]) for k in after)
    assert changed_fields(env, 1)["body_mass"][BOX] != before[1]["body_mass"][BOX]
    assert changed_fields(env, 1)["body_subtreemass"][BOX] != before[1]["body_subtreemass"][BOX]


def test_factors_on_the_same_body_multiply_and_offsets_add() -> None:
    entries = {
        "all": {"quantity": "body_mass", "of": "*", "range": [0.1, 10]},
        "one": {"quantity": "body_mass", "of": "bystander", "range": [0.1, 10]},
        "shape": {"quantity": "body_inertia", "of": "bystander", "range": [0.1, 10]},
        "down": {"quantity": "gravity", "of": "z", "range": [-5, 5]},
        "everywhere": {"quantity": "gravity", "of": ["x", "z"], "range": [-5, 5]},
    }
    changed = changed_fields(world(entries, [[2.0, 3.0, 0.5, 1.0, 0.25]]), 0)
    # box: 2 kg * 2, bystander: 1 kg * 2 * 3; the bystander's inertia 0.004 * 2 * 3 * 0.5 = 0.012
    np.testing.assert_allclose(changed["body_mass"], [0.0, 4.0, 6.0])
    np.testing.assert_allclose(changed["body_inertia"][BOX], [0.08 / 3] * 3)
    np.testing.assert_allclose(changed["body_inertia"][BYSTANDER], [0.012] * 3)
    np.testing.assert_allclose(changed["opt.gravity"], [0.25, 0.0, -9.81 + 1.0 + 0.25])


def test_a_gain_leaves_a_constant_force_of_an_actuator_alone() -> None:
    xml = HINGE.replace(
        '<position name="servo" joint="hinge" kp="20" kv="1"/>',
        '<general name="servo" joint="hinge" gainprm="20" biastype="affine" biasprm="3 -20 -1"/>',
    )
    changed = changed_fields(world({"actuator_gain": {"range": [0.1, 9]}}, [[2.0]], xml), 0)
    assert changed["actuator_gainprm"][0, 0] == 40.0
    assert changed["actuator_biasprm"][0, :4].tolist() == [3.0, -40.0, -2.0, 0.0]  # force = 40 u + 3 - 40 q - 2 dq


def test_a_write_reaches_only_the_environments_of_its_mask() -> None:
    task = TinyTask(SLIDER)
    env = build(task, 3)
    writer = PhysicsWriter(task, env.engine, build_parameters(task, {"body_mass": {"of": "box", "range": [0.1, 9]}}))
    writer.write(only(3, 1), torch.full((3, 1), 4.0, dtype=torch.float64))
    assert env.engine.field("body_mass")[:, BOX].tolist() == [2.0, 8.0, 2.0]


def test_a_factor_on_what_is_zero_is_refused_and_named() -> None:
    task = TinyTask(SLIDER)
    zero = Parameter(  # as another program may build it, without `build_parameters`
        "slippery", 1.0, (0.5, 2.0), quantity="joint_damping", mode="scale", targets=("x", "swing")
    )
    env = build(task, 1)
    with pytest.raises(RandomizationError, match="slippery: dof_damping of x is zero"):
        PhysicsWriter(task, env.engine, [zero])
    # a pattern leaves out what a factor does nothing to
    (chosen,) = build_parameters(task, {"joint_damping": {"of": "*"}})
    assert chosen.targets == ("swing",)
    with pytest.raises(RandomizationError, match=r"stiff.*dof_damping of every joint.*'x.*is zero"):
        build_parameters(task, {"stiff": {"quantity": "joint_damping", "of": "x*"}})


def test_the_calibrated_world_is_the_plain_task_bit_for_bit() -> None:
    def run(layer: bool) -> Tensor:
        task = FetchTask("FetchPush")
        ones = {"body_mass": {}, "geom_friction": {}, "joint_damping": {}, "observation_noise": {}, "action_delay": {}}
        entries = ones | {"gravity": {"of": "z"}}
        env = build(task, 2, fixed_worlds(task, entries, [[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]] * 2) if layer else None)
        shown = []
        for step in range(60):
            action = torch.rand(2, 4, generator=torch.Generator().manual_seed(step)) * 2 - 1
            shown.append(env.step(action).observed.policy)
        return torch.stack(shown)

    assert torch.equal(run(True), run(False))


def slide(env: Environment, force: float = 15.0, push_s: float = 0.4, coast_s: float = 2.5) -> np.ndarray:
    """How far the box of each environment slides when pushed for a while, m."""
    env.engine.data("ctrl")[:, 0] = force
    env.engine.step(round(push_s / 0.002))
    env.engine.data("ctrl")[:, 0] = 0.0
    env.engine.step(round(coast_s / 0.002))
    assert float(env.engine.data("qvel")[:, 0].abs().max()) < 0.01
    return env.engine.data("qpos")[:, 0].numpy().copy()


def distance(mass: float, friction: float) -> float:
    """Of a box pushed with 15 N for 0.4 s: a = F/m - mu g;  d = a T^2 / 2 + (a T)^2 / (2 mu g)."""
    drag = friction * 9.81
    a = 15.0 / mass - drag
    return a * 0.4**2 / 2 + (a * 0.4) ** 2 / (2 * drag)


def test_a_heavier_box_slides_less_far_and_a_more_slippery_one_farther() -> None:
    entries = {
        "body_mass": {"of": "box", "range": [0.5, 2]},
        "geom_friction": {"of": "box", "range": [0.5, 2]},
    }
    got = slide(world(entries, [[1.0, 1.0], [1.5, 1.0], [1.0, 0.5]]))
    # 0.547 m; 3 kg: 0.110 m; friction 0.2: 1.693 m. The first contacts settle, so a few per cent differ.
    np.testing.assert_allclose(got, [distance(2, 0.4), distance(3, 0.4), distance(2, 0.2)], rtol=0.06)


def test_more_inertia_turns_slower() -> None:
    # Without gravity and damping, a torque tau turns an angle tau t^2 / (2 I). Nominal I about the joint, found here:
    xml = HINGE.replace('damping="0.5"', "").replace(
        '<position name="servo" joint="hinge" kp="20" kv="1"/>', '<motor name="servo" joint="hinge"/>'
    )
    env = world({"body_inertia": {"of": "arm", "range": [0.5, 3]}}, [[1.0], [3.0]], xml)
    env.engine.data("ctrl")[:] = 0.01
    env.engine.step(100)
    angle = env.engine.data("qpos")[:, 0]
    model = env.engine.model
    about_centre = float(model.body_inertia[1].max())
    offset = 1.0 * 0.15**2  # m d^2, which a factor on inertia leaves alone
    assert float(angle[0] / angle[1]) == pytest.approx((3 * about_centre + offset) / (about_centre + offset), rel=1e-4)


def test_a_weaker_servo_moves_slower_and_more_damping_slows_it_too() -> None:
    entries = {"actuator_gain": {"range": [0.1, 2]}, "joint_damping": {"of": "hinge", "range": [0.1, 20]}}
    env = world(entries, [[1.0, 1.0], [0.3, 1.0], [1.0, 10.0]], HINGE)
    env.engine.data("ctrl")[:] = 0.5
    env.engine.step(60)
    angle = env.engine.data("qpos")[:, 0].tolist()
    assert 0.0 < angle[1] < 0.7 * angle[0]
    assert 0.0 < angle[2] < 0.7 * angle[0]
    env.engine.step(10_000)  # but all of them arrive: gain and bias are scaled together
    np.testing.assert_allclose(env.engine.data("qpos")[:, 0].numpy(), 0.5, atol=1e-3)


def test_gravity_sets_the_time_of_a_fall() -> None:
    xml = '<mujoco><worldbody><body><freejoint/><geom size="0.1"/></body></worldbody></mujoco>'
    env = world({"gravity": {"of": "z", "range": [-5, 5]}}, [[0.0], [4.81], [-5.0]], xml)
    env.engine.step(250)
    # after 0.5 s: (9.81 - lambda) t^2 / 2 = 1.226, 0.625, 1.851 m; semi-implicit Euler adds one step in 250
    height = env.engine.data("qpos")[:, 2].numpy()
    np.testing.assert_allclose(height, -np.array([9.81, 5.0, 14.81]) * 0.125 * (1 + 1 / 250), rtol=1e-9)


def test_constants_that_depend_on_mass_are_those_of_a_model_compiled_with_it() -> None:
    xml = """
    <mujoco>
      <worldbody>
        <body name="upper"><joint name="j0" axis="0 1 0"/>
          <geom name="g0" type="capsule" fromto="0 0 0 0.4 0 0" size="0.05" mass="1"/>
          <body name="lower" pos="0.4 0 0"><joint name="j1" axis="0 1 0"/>
            <geom name="g1" type="capsule" fromto="0 0 0 0.3 0 0.1" size="0.04" mass="0.5"/></body></body>
        <body name="free" pos="0 2 0"><freejoint/><geom name="g2" type="box" size="0.1 0.2 0.3" mass="3"/></body>
      </worldbody>
      <tendon><fixed name="t"><joint joint="j0" coef="1"/><joint joint="j1" coef="-2"/></fixed></tendon>
      <actuator><motor joint="j1"/><motor tendon="t"/></actuator>
    </mujoco>"""
    entries = {
        "lower mass": {"quantity": "body_mass", "of": "lower", "range": [0.1, 5]},
        "free mass": {"quantity": "body_mass", "of": "free", "range": [0.1, 5]},
    }
    env = world(entries, [[1.0, 1.0], [2.5, 0.4]], xml)
    spec = mujoco.MjSpec.from_string(xml)
    spec.geom("g1").mass, spec.geom("g2").mass = 0.5 * 2.5, 3 * 0.4
    compiled, nominal = spec.compile(), env.engine.model
    assert isinstance(env.engine, CpuEngine)
    ours = env.engine.export_to_mujoco(1)[0]
    for name in ("body_mass", "body_inertia", *sorted(DERIVED_FROM_MASS), "tendon_invweight0"):
        value = getattr(compiled, name)
        np.testing.assert_allclose(getattr(ours, name), value, rtol=1e-10, atol=1e-14, err_msg=name)
        assert not np.allclose(value, getattr(nominal, name)), name  # or this would show nothing
