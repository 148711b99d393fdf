"""Every physical quantity: the values it writes, that nothing else changes, and that constants follow as compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from conftest import TinyTask, build, fixed_worlds, manual_layer
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from randomization.catalogue.physics import PHYSICS
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import RandomizationError, build_parameters
from randomization.targets.names import object_places

# One of everything. "arm" and "tip" have inertias of their own, "stone" and "ball" those of their shapes.
MODEL = """
<mujoco>
  <option timestep="0.002" density="1.2" viscosity="2e-5"/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1" condim="6"/>
    <site name="hook" pos="0 0 1.5"/>
    <body name="arm" pos="0 0 1">
      <inertial pos="0.1 0 0" mass="2" diaginertia="0.02 0.03 0.04"/>
      <joint name="elbow" axis="0 1 0" range="-60 70" damping="0.5" frictionloss="0.1" armature="0.01" stiffness="3"/>
      <geom name="rod" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02"/>
      <body name="tip" pos="0.3 0 0">
        <inertial pos="0 0 0" mass="0.5" diaginertia="0.001 0.001 0.001"/>
        <joint name="reach" type="slide" axis="1 0 0" range="-0.1 0.2" armature="0.02"/>
        <geom name="pad" type="box" size="0.02 0.03 0.04" pos="0.01 0 0" solref="-900 -60" margin="0.001"/>
        <site name="end"/>
      </body>
    </body>
    <body name="stone" pos="1 0 0.2">
      <freejoint name="loose"/>
      <geom name="half" type="box" size="0.1 0.15 0.2" pos="0.02 0 0" mass="1.5"/>
      <geom name="other" type="ellipsoid" size="0.1 0.1 0.2" pos="0 0 0.1" mass="0.5"/>
    </body>
    <body name="drum" pos="3 0 1">
      <inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>
      <joint name="gear" axis="0 1 0"/>
      <joint name="slack" axis="0 1 0" armature="0.001" range="-57.29577951308232 57.29577951308232"/>
    </body>
    <body name="ball" pos="2 0 0.1"><freejoint name="rolls"/><geom name="sphere" type="sphere" size="0.1" mass="1"/></body>
    <body name="leaf" pos="4 0 1">
      <joint name="curved" axis="0 1 0" stiffness="1 2 3" damping="0.5 0.2 0.1" actuatorfrcrange="-9 9"/>
      <geom name="blade" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <contact>
    <pair geom1="floor" geom2="blade" condim="6" friction="1 0.8 0.01 0.001 0.002" solref="0.02 1" margin="0.001"
      solreffriction="-800 -30" adhesion="0.1"/>
  </contact>
  <tendon>
    <spatial name="rope" stiffness="20" springlength="0.3 0.4" range="0.1 0.9"><site site="hook"/><site site="end"/></spatial>
    <fixed name="band" stiffness="4 5 6" springlength="0" actuatorfrcrange="-7 7"><joint joint="curved" coef="1"/></fixed>
  </tendon>
  <actuator>
    <position name="servo" joint="elbow" kp="20" kv="2" forcerange="-30 40"/>
    <pid name="pid" joint="reach" kp="100" ki="30" kv="5" imax="1"/>
    <velocity name="wheel" joint="elbow" kv="3"/>
    <motor name="motor" joint="reach"/>
    <motor name="turn" joint="gear"/>
    <motor name="rich" joint="curved" damping="0.4 0.3 0.2" armature="0.05"/>
    <motor name="pull" tendon="band"/>
  </actuator>
</mujoco>
"""  # noqa: E501
ARM, TIP, STONE, DRUM, BALL = 1, 2, 3, 4, 5  # bodies
FLOOR, ROD, PAD, HALF, OTHER, SPHERE, BLADE = range(7)  # geoms
ELBOW, REACH, SLACK, CURVED = 0, 1, 4, 6  # joints; of the first two, their dofs too
CURVED_DOF = 16
SERVO, PID, WHEEL, MOTOR, _, RICH, PULL = range(7)
PRM = mujoco.MjModel.from_xml_string(MODEL).actuator_gainprm.shape[1]

# quantity, of, lambda, {field: {row, or (row, column): value}}; rows and columns of the whole field.
Written = dict[str, dict[Any, Any]]
CASES: list[tuple[str, str | None, float, Written]] = [
    ("body_mass", "tip", 2.0, {"body_mass": {TIP: 1.0}, "body_inertia": {TIP: [0.002] * 3}}),
    ("body_inertia", "arm", 0.5, {"body_inertia": {ARM: [0.01, 0.015, 0.02]}}),
    ("body_com_x", "arm", 0.01, {"body_ipos": {ARM: [0.11, 0, 0]}}),
    ("body_com_y", "ball", 0.02, {"body_ipos": {BALL: [0, 0.02, 0]}}),
    ("body_com_z", "arm", -0.01, {"body_ipos": {ARM: [0.1, 0, -0.01]}}),
    (
        "body_size", "ball", 2.0,  # 2/5 m r^2: 0.4 * 8 * 0.2^2 = 0.128 from 0.4 * 1 * 0.1^2 = 0.004, 32 times as much
        {"geom_size": {SPHERE: [0.2, 0, 0]}, "body_mass": {BALL: 8.0}, "body_inertia": {BALL: [0.128] * 3}},
    ),
    ("body_pos_x", "arm", 0.01, {"body_pos": {ARM: [0.01, 0, 1]}}),
    ("body_pos_y", "tip", 0.02, {"body_pos": {TIP: [0.3, 0.02, 0]}}),
    ("body_pos_z", "arm", -0.1, {"body_pos": {ARM: [0, 0, 0.9]}}),
    ("geom_size", "pad", 1.5, {"geom_size": {PAD: [0.03, 0.045, 0.06]}}),
    ("geom_pos_x", "pad", 0.01, {"geom_pos": {PAD: [0.02, 0, 0]}}),
    ("geom_pos_y", "pad", 0.01, {"geom_pos": {PAD: [0.01, 0.01, 0]}}),
    ("geom_pos_z", "sphere", 0.01, {"geom_pos": {SPHERE: [0, 0, 0.01]}}),
    ("geom_friction", "rod", 2.0, {"geom_friction": {ROD: [2, 0.01, 0.0002]}}),
    ("geom_friction_slide", "rod", 2.0, {"geom_friction": {ROD: [2, 0.005, 0.0001]}}),
    ("geom_friction_spin", "rod", 2.0, {"geom_friction": {ROD: [1, 0.01, 0.0001]}}),
    ("geom_friction_roll", "rod", 2.0, {"geom_friction": {ROD: [1, 0.005, 0.0002]}}),
    ("geom_friction", "blade", 2.0, {"pair_friction": {0: [2.0, 1.6, 0.02, 0.002, 0.004]}}),
    (
        "geom_friction", "*", 2.0,  # the pair's friction once, though both its geoms are named
        {"geom_friction": {g: [2, 0.01, 0.0002] for g in range(6)}, "pair_friction": {0: [2, 1.6, 0.02, 0.002, 0.004]}},
    ),
    ("geom_friction_slide", "blade", 0.5, {"pair_friction": {0: [0.5, 0.4, 0.01, 0.001, 0.002]}}),
    ("geom_friction_spin", "blade", 0.5, {"pair_friction": {0: [1.0, 0.8, 0.005, 0.001, 0.002]}}),
    ("geom_friction_roll", "blade", 0.5, {"pair_friction": {0: [1.0, 0.8, 0.01, 0.0005, 0.001]}}),
    (
        "contact_stiffness", "blade", 4.0,
        {
            "pair_solref": {0: [0.01, 1]}, "pair_solreffriction": {0: [-3200, -60]},
            "pair_solimp": {0: [0.9, 0.95, 0.00025, 0.5, 2]},
        },
    ),
    ("contact_damping", "blade", 2.0, {"pair_solref": {0: [0.01, 2]}, "pair_solreffriction": {0: [-800, -60]}}),
    ("geom_solref", "blade", 2.0, {"pair_solref": {0: [0.04, 1]}, "pair_solreffriction": {0: [-200, -15]}}),
    ("geom_solimp_dmin", "blade", -0.1, {"pair_solimp": {0: [0.8, 0.95, 0.001, 0.5, 2]}}),
    ("geom_solimp_width", "blade", 2.0, {"pair_solimp": {0: [0.9, 0.95, 0.002, 0.5, 2]}}),
    ("geom_margin", "blade", 0.002, {"pair_margin": {0: 0.003}}),
    (
        "geom_margin", "*", 0.002,  # a contact has the sum of its geoms' margins
        {"geom_margin": {g: 0.003 if g == PAD else 0.002 for g in range(6)}, "pair_margin": {0: 0.005}},
    ),
    ("geom_gap", "blade", 0.002, {"pair_gap": {0: 0.002}}),
    (
        "contact_stiffness", "rod", 4.0,
        {"geom_solref": {ROD: [0.01, 1]}, "geom_solimp": {ROD: [0.9, 0.95, 0.00025, 0.5, 2]}},
    ),
    (
        "contact_stiffness", "pad", 4.0,
        {"geom_solref": {PAD: [-3600, -120]}, "geom_solimp": {PAD: [0.9, 0.95, 0.00025, 0.5, 2]}},
    ),
    ("contact_damping", "rod", 2.0, {"geom_solref": {ROD: [0.01, 2]}}),
    ("contact_damping", "pad", 2.0, {"geom_solref": {PAD: [-900, -120]}}),
    ("geom_solref", "rod", 1.5, {"geom_solref": {ROD: [0.03, 1]}}),
    ("geom_solref", "pad", 2.0, {"geom_solref": {PAD: [-225, -30]}}),  # stiffness / 2^2, damping / 2
    ("geom_solimp_dmin", "rod", -0.1, {"geom_solimp": {ROD: [0.8, 0.95, 0.001, 0.5, 2]}}),
    ("geom_solimp_dmax", "rod", 0.04, {"geom_solimp": {ROD: [0.9, 0.99, 0.001, 0.5, 2]}}),
    ("geom_solimp_width", "rod", 3.0, {"geom_solimp": {ROD: [0.9, 0.95, 0.003, 0.5, 2]}}),
    ("geom_margin", "pad", 0.002, {"geom_margin": {PAD: 0.003}}),
    ("geom_gap", "rod", 0.002, {"geom_gap": {ROD: 0.002}}),
    ("joint_damping", "elbow", 3.0, {"dof_damping": {ELBOW: 1.5}}),
    (
        "joint_damping", "curved", 2.0,
        {
            "dof_damping": {CURVED_DOF: 1.0}, "dof_dampingpoly": {CURVED_DOF: [0.4, 0.2]},
            "actuator_damping": {RICH: 0.8}, "actuator_dampingpoly": {RICH: [0.6, 0.4]},
        },
    ),
    ("joint_frictionloss", "elbow", 3.0, {"dof_frictionloss": {ELBOW: 0.3}}),
    ("joint_frictionloss_added", "reach", 0.2, {"dof_frictionloss": {REACH: 0.2}}),
    ("joint_stiffness", "elbow", 2.0, {"jnt_stiffness": {ELBOW: 6.0}}),
    ("joint_stiffness", "curved", 2.0, {"jnt_stiffness": {CURVED: 2.0}, "jnt_stiffnesspoly": {CURVED: [4.0, 6.0]}}),
    ("joint_stiffness_added", "reach", 0.5, {"jnt_stiffness": {REACH: 0.5}}),
    ("joint_armature", "elbow", 2.0, {"dof_armature": {ELBOW: 0.02}}),
    ("joint_armature", "curved", 2.0, {"actuator_armature": {RICH: 0.1}}),
    ("joint_range_lower", "reach", -0.05, {"jnt_range": {REACH: [-0.15, 0.2]}}),
    ("joint_range_upper", "reach", 0.05, {"jnt_range": {REACH: [-0.1, 0.25]}}),
    ("tendon_stiffness", "rope", 2.0, {"tendon_stiffness": {0: 40.0}}),
    ("tendon_stiffness", "band", 2.0, {"tendon_stiffness": {1: 8.0}, "tendon_stiffnesspoly": {1: [10.0, 12.0]}}),
    ("tendon_length_spring", "rope", 2.0, {"tendon_lengthspring": {0: [0.6, 0.8]}}),
    ("tendon_range_lower", "rope", 0.1, {"tendon_range": {0: [0.2, 0.9]}}),
    ("tendon_range_upper", "rope", 0.1, {"tendon_range": {0: [0.1, 1.0]}}),
    (
        "actuator_gain", "servo", 2.0,
        {"actuator_gainprm": {(SERVO, 0): 40}, "actuator_biasprm": {(SERVO, 1): -40, (SERVO, 2): -4}},
    ),
    ("actuator_kp", "servo", 2.0, {"actuator_gainprm": {(SERVO, 0): 40}, "actuator_biasprm": {(SERVO, 1): -40}}),
    ("actuator_kp", "pid", 2.0, {"actuator_biasprm": {(PID, 1): -200}}),
    ("actuator_kd", "servo", 2.0, {"actuator_biasprm": {(SERVO, 2): -4}}),
    ("actuator_kd", "pid", 2.0, {"actuator_biasprm": {(PID, 2): -10}}),
    ("actuator_kd", "wheel", 2.0, {"actuator_gainprm": {(WHEEL, 0): 6}, "actuator_biasprm": {(WHEEL, 2): -6}}),
    ("actuator_ki", "pid", 2.0, {"actuator_gainprm": {(PID, 0): 60}}),
    (
        "actuator_strength", "servo", 0.5,
        {
            "actuator_gainprm": {(SERVO, 0): 10}, "actuator_biasprm": {(SERVO, 1): -10, (SERVO, 2): -1},
            "actuator_forcerange": {SERVO: [-15, 20]},
        },
    ),
    (
        "actuator_strength", "rich", 0.5,
        {"actuator_gainprm": {(RICH, 0): 0.5}, "jnt_actfrcrange": {CURVED: [-4.5, 4.5]}},
    ),
    ("actuator_force_range", "pull", 0.5, {"tendon_actfrcrange": {1: [-3.5, 3.5]}}),
    ("backlash_range", "slack", 0.5, {"jnt_range": {SLACK: [-0.5, 0.5]}}),
    ("actuator_force_range", "servo", 0.5, {"actuator_forcerange": {SERVO: [-15, 20]}}),
    ("gravity", "y", 0.5, {"opt.gravity": {1: 0.5}}),
    ("timestep", None, 1.5, {"opt.timestep": {(): 0.003}}),
    ("wind", "x", 3.0, {"opt.wind": {0: 3.0}}),
    ("air_density", None, 0.8, {"opt.density": {(): 2.0}}),
    ("air_viscosity", None, 3e-5, {"opt.viscosity": {(): 5e-5}}),
]  # fmt: skip
IDS = [f"{name}-{of}" for name, of, _, _ in CASES]
OPTIONS = ("timestep", "density", "viscosity", "wind", "gravity")


def entry(name: str, of: str | None, value: float) -> dict[str, Any]:
    """A configuration entry whose range holds the nominal value and `value`."""
    nominal = QUANTITIES[name].nominal
    return {name: {"range": sorted((nominal, value))} | ({} if of is None else {"of": of})}


def fields(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Every array of a model and the options that may differ between simulations."""
    arrays = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    found = {name: np.array(value) for name, value in arrays.items() if isinstance(value, np.ndarray)}
    return found | {f"opt.{name}": np.array(getattr(model.opt, name)) for name in OPTIONS}


def model_of(env: Environment, index: int) -> mujoco.MjModel:
    assert isinstance(env.engine, CpuEngine)
    return env.engine.export_to_mujoco(index)[0]


def world(name: str, of: str | None, value: float) -> Environment:
    """Two environments: one in the world `value`, one in the nominal world."""
    task = TinyTask(MODEL)
    return build(task, 2, fixed_worlds(task, entry(name, of, value), [[value], [QUANTITIES[name].nominal]]))


@pytest.mark.parametrize(("name", "of", "value", "written"), CASES, ids=IDS)
def test_a_quantity_writes_its_values_and_changes_nothing_else(
    name: str, of: str | None, value: float, written: Written
) -> None:
    env = world(name, of, value)
    nominal, ours = fields(env.engine.model), fields(model_of(env, 0))
    for field, values in written.items():
        expected = nominal[field].copy()
        for where, number in values.items():
            expected[where] = number
        assert not np.array_equal(expected, nominal[field]), f"{field} would not change: this shows nothing"
        np.testing.assert_allclose(ours[field], expected, rtol=1e-12, atol=1e-15, err_msg=field)
    changed = {field for field in nominal if not np.array_equal(nominal[field], ours[field])}
    follows = set(mujoco.MjModel._setconst_outputs)
    assert set(written) <= set(QUANTITIES[name].writes)
    assert changed <= set(written) | follows
    if not changed <= set(written):  # constants follow only where set_const runs
        assert set(written) & set(mujoco.MjModel._setconst_inputs)
    neighbour = fields(model_of(env, 1))
    assert [f for f in nominal if not np.array_equal(nominal[f], neighbour[f])] == []  # nominal, bit for bit


def test_the_table_above_has_every_quantity_and_each_writes_what_it_declares() -> None:
    spreads = {q.name for q in PHYSICS if q.mode == "spread"}
    assert {name for name, *_ in CASES} | spreads == {q.name for q in PHYSICS}
    task = TinyTask(MODEL)
    for quantity in PHYSICS:
        names = list(object_places(task, quantity.target)) or [""]
        first = 1 if quantity.target == "body" else 0
        edits = [e for i in range(len(names)) for e in quantity.edits(task.model, i + first)]
        assert {e.field for e in edits} == set(quantity.writes), quantity.name


Change = Callable[[mujoco.MjSpec], Any]


def _sized(spec: mujoco.MjSpec) -> None:
    for geom in spec.body("stone").geoms:
        geom.size, geom.pos, geom.mass = geom.size * 1.3, geom.pos * 1.3, geom.mass * 1.3**3


def _set(kind: str, of: str, **values: Any) -> Change:
    def change(spec: mujoco.MjSpec) -> None:
        thing = getattr(spec, kind)(of)
        for key, value in values.items():
            setattr(thing, key, value)

    return change


COMPILED: list[tuple[str, str, float, Change]] = [
    ("body_mass", "arm", 2.5, _set("body", "arm", mass=5.0, inertia=[0.05, 0.075, 0.1])),
    ("body_inertia", "arm", 0.5, _set("body", "arm", inertia=[0.01, 0.015, 0.02])),
    ("body_com_z", "arm", 0.02, _set("body", "arm", ipos=[0.1, 0, 0.02])),
    ("body_size", "stone", 1.3, _sized),
    ("body_pos_z", "tip", 0.05, _set("body", "tip", pos=[0.3, 0, 0.05])),
    ("geom_size", "pad", 1.5, _set("geom", "pad", size=[0.03, 0.045, 0.06])),
    ("geom_pos_y", "pad", 0.05, _set("geom", "pad", pos=[0.01, 0.05, 0])),
    ("geom_margin", "pad", 0.004, _set("geom", "pad", margin=0.005)),
    ("joint_armature", "elbow", 3.0, _set("joint", "elbow", armature=0.03)),
    ("joint_stiffness", "elbow", 3.0, _set("joint", "elbow", stiffness=[9.0, 0, 0])),
    ("tendon_stiffness", "rope", 0.5, _set("tendon", "rope", stiffness=[10.0, 0, 0])),
    ("tendon_length_spring", "rope", 1.5, _set("tendon", "rope", springlength=[0.45, 0.6])),
]


@pytest.mark.parametrize(("name", "of", "value", "change"), COMPILED, ids=[f"{c[0]}-{c[1]}" for c in COMPILED])
def test_every_constant_is_that_of_a_model_compiled_with_the_change(
    name: str, of: str, value: float, change: Change
) -> None:
    env = world(name, of, value)
    spec = mujoco.MjSpec.from_string(MODEL)
    change(spec)
    compiled, ours, nominal = fields(spec.compile()), fields(model_of(env, 0)), fields(env.engine.model)
    different = [field for field in nominal if not np.allclose(compiled[field], nominal[field], rtol=1e-9, atol=1e-12)]
    assert set(different) >= {QUANTITIES[name].writes[0]}
    for field in nominal:
        np.testing.assert_allclose(ours[field], compiled[field], rtol=1e-9, atol=1e-12, err_msg=field)


def test_the_centre_of_mass_of_a_free_ball_moves_as_in_a_model_compiled_with_it() -> None:
    env = world("body_com_y", "ball", 0.02)
    spec = mujoco.MjSpec.from_string(MODEL)
    ball = spec.body("ball")
    ball.explicitinertial, ball.mass, ball.inertia, ball.ipos = True, 1.0, [0.004] * 3, [0, 0.02, 0]
    compiled = spec.compile()
    data = mujoco.MjData(compiled)
    address, dof = compiled.joint("rolls").qposadr[0], compiled.joint("rolls").dofadr[0]
    data.qvel[dof + 3 : dof + 6] = (1, 2, 3)
    env.engine.data("qvel")[:, dof + 3 : dof + 6] = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    mujoco.mj_step(compiled, data, 50)
    env.engine.step(50)
    ours = env.engine.data("qpos")[:, address : address + 7].numpy()
    np.testing.assert_allclose(ours[0], data.qpos[address : address + 7], rtol=1e-9)
    assert np.abs(ours[1] - ours[0]).max() > 1e-3


@pytest.mark.parametrize("quantity", [q for q in PHYSICS if q.mode == "spread"], ids=lambda q: q.name)
def test_a_spread_is_the_standard_deviation_of_what_every_value_gets(quantity: Any) -> None:
    task = TinyTask(MODEL)
    layer = fixed_worlds(task, {quantity.name: {"of": "*", "range": [0, 0.004]}}, [[0.004]] * 1000 + [[0.0]])
    env = build(task, 1001, layer)
    field = quantity.writes[0]
    off = (env.engine.field(field) - env.engine.nominal(field)).flatten(1)
    names = layer.parameters[0].targets
    touched = (off[:1000] != 0).any(0)
    per = {"body_com": 3, "body_pos": 3, "geom_pos": 3, "joint_range": 2, "tendon_range": 2}[quantity.name]
    assert int(touched.sum()) == per * len(names)
    assert not off[1000].any()  # the calibrated world
    deviations = off[:1000, touched]
    assert bool(((deviations.std(0) / 0.004 - 1.0).abs() < 0.1).all())  # 4.5 / sqrt(2 * 1000)
    assert bool((deviations.mean(0).abs() < 4.5 * 0.004 / 1000**0.5).all())
    if deviations.shape[1] > 1:
        correlation = torch.corrcoef(deviations.T) - torch.eye(deviations.shape[1], dtype=torch.float64)
        assert float(correlation.abs().max()) < 0.17
    before = off.clone()
    env.reset()
    assert not torch.equal(before, (env.engine.field(field) - env.engine.nominal(field)).flatten(1))  # anew


def test_a_thousand_resets_in_every_quantity_do_not_drift() -> None:
    task = TinyTask(MODEL)
    layer = manual_layer(task, {q.name: {} for q in PHYSICS})
    env = build(task, 2, layer)
    for _ in range(1000):
        env.reset()
    nominal = fields(env.engine.model)
    now = fields(model_of(env, 0))
    written = {field for q in PHYSICS for field in q.writes}
    assert {field for field in written if not np.array_equal(now[field], nominal[field])} == written
    everyone = torch.ones(2, dtype=torch.bool)
    layer.lam = torch.tensor([[p.nominal for p in layer.parameters]] * 2, dtype=torch.float64)
    layer._physics.write(everyone, layer.lam)
    env.engine.set_const(everyone)
    assert np.array_equal(fields(model_of(env, 1))["body_mass"], nominal["body_mass"])
    for field, value in fields(model_of(env, 0)).items():
        np.testing.assert_allclose(value, nominal[field], rtol=1e-12, atol=1e-14, err_msg=field)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"geom_solimp_dmax": {"of": "rod", "range": [0, 0.1]}}, "geom_solimp_dmax: with this range geom_solimp would"),
        ({"geom_margin": {"of": "rod", "range": [-0.1, 0]}}, r"geom_margin: .* go from -0.1 to 0 \(nominal 0\)"),
        ({"joint_range_lower": {"of": "reach", "range": [0, 0.4]}}, r"joint_range_lower: .*within \[-inf, 0.2\]"),
        ({"air_density": {"range": [-2, 0]}}, r"air_density: .* opt.density would go from -0.8 to 1.2"),
        (
            {"a": {"quantity": "geom_margin", "of": "pad", "range": [-0.001, 0]},
             "b": {"quantity": "geom_margin", "of": "pad", "range": [-0.001, 0]}},
            "a, b: with this range geom_margin would go from -0.001",
        ),
    ],
)  # fmt: skip
def test_ranges_that_lead_to_impossible_values_are_refused(entries: dict[str, Any], message: str) -> None:
    task = TinyTask(MODEL)
    with pytest.raises(RandomizationError, match=message):
        build(task, 1, manual_layer(task, entries))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"actuator_kp": {"of": "motor"}}, "actuator_kp.of: motor is no position servo or PID"),
        ({"actuator_ki": {"of": "servo"}}, "actuator_ki.of: servo is no PID with an integral gain"),
        ({"actuator_force_range": {"of": "pid"}}, "actuator_force_range.of: pid is no actuator with a force range"),
        ({"joint_range": {"of": "loose"}}, "joint_range.of: loose is no joint with a range"),
        ({"geom_size": {"of": "floor"}}, "geom_size.of: floor is no primitive shape"),
        ({"body_pos": {"of": "stone"}}, "body_pos.of: stone is no body placed by the model"),
    ],
)
def test_an_object_that_a_quantity_makes_no_sense_for_is_refused(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(RandomizationError, match=message):
        build_parameters(TinyTask(MODEL), entries)


def test_patterns_leave_out_what_a_quantity_makes_no_sense_for() -> None:
    task = TinyTask(MODEL)
    chosen = build_parameters(task, {n: {} for n in ("actuator_kp", "actuator_kd", "joint_range", "geom_size")})
    assert [p.targets for p in chosen] == [
        ("servo", "pid"),
        ("servo", "pid", "wheel"),
        ("elbow", "reach", "slack"),
        ("rod", "pad", "half", "other", "sphere", "blade"),
    ]
