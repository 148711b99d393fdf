"""Other simulators as engines: what they do is what MuJoCo, or a formula, says they should."""

from __future__ import annotations

import importlib.util
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from envs.common.errors import EngineError
from envs.engines.bridge import simulator
from envs.engines.bridge.engine import BridgeEngine
from envs.engines.bridge.forces import parts_for_contacts, steps_needed
from envs.engines.bridge.mechanism import mechanism
from envs.engines.bridge.simulator import KINDS
from envs.engines.bridge.statement import coefficients, combined
from envs.engines.cpu import CpuEngine

G = 9.81
SINGLE = {"newton"}  # of single precision
LATE = {"newton"}  # dry friction begins a step late
KIND = [
    pytest.param(
        kind, marks=pytest.mark.skipif(importlib.util.find_spec(of.package) is None, reason=f"{kind} is not installed")
    )
    for kind, of in KINDS.items()
]
every_kind = pytest.mark.parametrize("kind", KIND)

# Frames that are turned, anchors off their bodies, a slide and a hinge on one body, a centre of mass off a free base, a
# body that is welded to another, and a chain that hangs on the world.
LIMBS = """
<mujoco>
  <option timestep="1e-5" gravity="0.3 -0.2 -9.81"/>
  <worldbody>
    <body name="base" pos="0 0 2" quat="0.9 0.1 0.3 0.2"><freejoint/>
      <inertial pos="0.05 -0.02 0.03" quat="0.8 0.2 0.1 0.3" mass="2" diaginertia="0.03 0.02 0.04"/>
      <body name="thigh" pos="0.2 0.1 -0.1" quat="0.7 0 0.7 0.1">
        <joint name="hip" axis="0 1 0.2" pos="0.03 0 0.02"/>
        <inertial pos="0.02 0 -0.1" mass="1" diaginertia="0.01 0.012 0.004"/>
        <body name="shin" pos="0 0 -0.3">
          <joint name="slip" type="slide" axis="0 0 1" pos="0.1 0 0"/>
          <joint name="knee" axis="1 0 0" pos="0 0.05 0" ref="0.3"/>
          <inertial pos="0 0.01 -0.1" mass="0.5" diaginertia="0.004 0.005 0.002"/>
          <body name="foot" pos="0 0 -0.2" quat="0.9 0.3 0 0">
            <inertial pos="0.03 0 0" mass="0.2" diaginertia="1e-3 2e-3 1e-3"/></body>
        </body>
      </body>
    </body>
    <body pos="1 0 0"><body name="arm" pos="0 0.5 1" quat="0.6 0.2 0.5 0.1">
      <joint name="shoulder" axis="0 0 1" damping="0.2" stiffness="3" springref="0.5"/>
      <inertial pos="0.1 0.2 0" mass="1" diaginertia="0.01 0.02 0.03"/></body></body>
  </worldbody>
  <actuator><motor joint="hip" gear="2"/><position joint="knee" kp="30" kv="1" forcerange="-4 4"/></actuator>
</mujoco>
"""


def engine_of(kind: str, xml: str, n: int = 1) -> Any:
    model = mujoco.MjModel.from_xml_string(xml)
    return CpuEngine(model, n, 1) if kind == "mujoco" else BridgeEngine(kind, model, n, 1)


def after(engine: Any, steps: int) -> np.ndarray:
    engine.step(steps)
    return engine.data("qvel")[0].numpy().copy()


def hinge(inside: str = "", rest: str = "", option: str = 'timestep="0.002" gravity="0 0 0"', joint: str = "") -> str:
    return (
        f'<mujoco><option {option}/><worldbody><body><joint name="j" axis="0 0 1" {joint}/>{inside}'
        f'<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body></worldbody>{rest}</mujoco>'
    )


@every_kind
def test_limbs_get_the_accelerations_that_mujoco_gives_them(kind: str) -> None:
    found = {}
    for name in ("mujoco", kind):
        engine = engine_of(name, LIMBS)
        random = np.random.default_rng(3)
        qpos = engine.data("qpos")
        qpos[0, :3] += torch.tensor([0.3, 0.2, 0.1])
        qpos[0, 7:] += torch.from_numpy(random.uniform(-0.5, 0.5, qpos.shape[1] - 7))
        engine.data("qvel")[:] = torch.from_numpy(random.uniform(-2.0, 2.0, (1, engine.model.nv)))
        engine.data("ctrl")[:] = torch.tensor([0.7, 2.0])
        engine.data("xfrc_applied")[0, 1] = torch.tensor([1.0, 2.0, -1.0, 0.2, -0.1, 0.3])  # on the base
        engine.data("xfrc_applied")[0, 3] = torch.tensor([0.5, 0.0, 0.4, 0.0, 0.1, 0.0])  # on the shin
        before = engine.data("qvel")[0].numpy().copy()
        found[name] = (after(engine, 2) - before) / 2e-5, engine.data("qpos")[0].numpy().copy()
    wanted, got = found["mujoco"], found[kind]
    np.testing.assert_allclose(got[0], wanted[0], rtol=2e-3, atol=2e-3 * np.abs(wanted[0]).max())
    np.testing.assert_allclose(got[1], wanted[1], atol=5e-7 if kind in SINGLE else 1e-8)


@every_kind
def test_derived_fields_are_those_of_the_beginning_of_the_last_step_as_mujoco_leaves_them(kind: str) -> None:
    for name in ("mujoco", kind):
        engine = engine_of(name, hinge('<geom size="0.01" pos="1 0 0" mass="0"/>'))
        engine.data("qvel")[:] = 1.0
        place = engine.data("geom_xpos")
        engine.step(5)
        assert float(engine.data("qpos")[0, 0]) == pytest.approx(0.010, abs=1e-6)
        assert float(place[0, 0, 1]) == pytest.approx(np.sin(0.008), abs=1e-6)
        engine.refresh_written()  # nothing was written: they stay so
        assert float(place[0, 0, 1]) == pytest.approx(np.sin(0.008), abs=1e-6)


@every_kind
def test_servos_stop_at_their_limits_and_dry_friction_takes_its_share(kind: str) -> None:
    servo = '<actuator><position joint="j" kp="100" kv="10" forcerange="-5 5"/></actuator>'
    for friction in (0.0, 2.0):
        engine = engine_of(kind, hinge(rest=servo, joint=f'frictionloss="{friction}"'))
        engine.data("ctrl")[:] = 100.0
        late = 0.002 * friction if kind in LATE else 0.0
        assert after(engine, 100)[0] == pytest.approx(0.2 * (5.0 - friction) + late, rel=1e-3)  # (F - f) t / I
    engine = engine_of(kind, hinge(rest='<actuator><motor joint="j"/></actuator>', joint='frictionloss="2"'))
    engine.data("ctrl")[:] = 1.9
    assert abs(after(engine, 100)[0]) < 1e-3  # held


@every_kind
def test_damping_and_rotors_slow_a_joint(kind: str) -> None:
    engine = engine_of(kind, hinge(joint='damping="2" armature="1"'))
    engine.data("qvel")[:] = 1.0
    assert after(engine, 500)[0] == pytest.approx(np.exp(-1.0), rel=3e-3)  # d t / (I + rotor)


@every_kind
def test_limits_of_joints_stop_them(kind: str) -> None:
    engine = engine_of(
        kind,
        hinge(joint='limited="true" range="-0.2 0.3" ref="0.1"').replace(
            "<mujoco>", '<mujoco><compiler angle="radian"/>'
        ),
    )
    engine.data("qvel")[:] = 2.0
    engine.step(400)
    assert float(engine.data("qpos").max()) < 0.32
    engine.data("qvel")[:] = -2.0
    engine.step(400)
    assert float(engine.data("qpos").min()) > -0.22


BALL = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>
    <body name="ball" pos="0 0 0.1"><freejoint/><geom name="ball" size="0.1" mass="2"/><site name="here"/></body>
  </worldbody>
  <sensor>
    <accelerometer site="here"/><contact geom1="ball" data="found force" reduce="netforce"/><gyro site="here"/>
  </sensor>
</mujoco>
"""


@every_kind
def test_sensors_show_the_other_simulators_contacts_and_accelerations(kind: str) -> None:
    shown = {}
    for name in ("mujoco", kind):
        engine = engine_of(name, BALL)
        sensors, forces = engine.data("sensordata"), engine.data("cfrc_ext")
        engine.step(1000)
        shown[name] = sensors[0].clone(), forces[0, 1].clone()
        engine.data("qpos")[0, 2] = 1.0
        engine.data("qvel")[:] = 0.0
        engine.forward()
        engine.step(20)
        np.testing.assert_allclose(sensors[0, :3], 0.0, atol=1e-4 if kind in SINGLE else 1e-6)  # it falls
        assert float(sensors[0, 3]) == 0.0
    resting, wrench = shown[kind]
    np.testing.assert_allclose(resting[:3], [0.0, 0.0, G], atol=0.02)
    np.testing.assert_allclose(resting[3:7], shown["mujoco"][0][3:7], atol=0.05)
    np.testing.assert_allclose(wrench, shown["mujoco"][1], atol=0.05)


PILE = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>
    <body name="low" pos="0 0 0.1"><joint type="slide" axis="0 0 1"/><geom name="low" size="0.1" mass="2"/></body>
    <body name="high" pos="0 0 0.3"><joint type="slide" axis="0 0 1"/><geom name="high" size="0.1" mass="1"/></body>
  </worldbody>
  <sensor>
    <contact geom1="high" geom2="low" data="found force" reduce="netforce"/>
    <contact geom1="low" geom2="floor" data="found force" reduce="netforce"/>
  </sensor>
</mujoco>
"""


@every_kind
def test_bodies_press_on_each_other_with_what_they_carry(kind: str) -> None:
    engine = engine_of(kind, PILE)
    sensors = engine.data("sensordata")
    engine.step(1500)
    shown = [float(value) for value in sensors[0]]
    assert (shown[0], shown[4]) == (1.0, 1.0)
    assert shown[3] == pytest.approx(-G, abs=0.05)  # on the second, the lower one
    assert shown[7] == pytest.approx(-3.0 * G, abs=0.1)
    assert engine.data("qpos").abs().max() < 0.02


FILTERED = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1" friction="0.7"/>
    <body name="a" pos="0 0 1"><freejoint/><geom name="a" size="0.1" friction="0.4"/>
      <body name="b" pos="0 0 0.1"><joint/><geom name="b" size="0.1" friction="0.9" priority="1"/>
        <body name="c" pos="0 0 0.1"><joint/><geom name="c" size="0.1" contype="2" conaffinity="2"/>
          <body name="d" pos="0 0 0.1"><joint/><geom name="d" size="0.1" condim="1"/></body></body></body></body>
    <body name="e" pos="0 0 1"><freejoint/><geom name="e" size="0.1" contype="0" conaffinity="0"/></body>
  </worldbody>
  <contact><exclude body1="a" body2="d"/></contact>
</mujoco>
"""


def test_pairs_that_may_touch_are_mujocos_with_its_friction() -> None:
    model = mujoco.MjModel.from_xml_string(FILTERED)
    found = mechanism(model).pairs
    named = {tuple(model.geom(g).name for g in pair): friction for pair, friction in found.items()}
    # b is a's child, c of another kind, d excluded from a; d, c's child and b's grandchild, may touch b
    assert named == {("floor", "a"): 0.7, ("floor", "b"): 0.9, ("floor", "d"): 1.0, ("b", "d"): 0.9}
    data = mujoco.MjData(model)
    touching = set()
    for height, bend in ((0.05, 0.0), (0.05, 2.5), (-0.25, 0.0)):
        data.qpos[2], data.qpos[7:10] = height, bend
        mujoco.mj_forward(model, data)
        touching |= {tuple(sorted((int(a), int(b)))) for a, b in data.contact.geom}
    assert touching == set(found)


def test_a_step_is_divided_where_servos_or_damping_are_fast() -> None:
    servo = '<actuator><position joint="j" kp="{kp}" kv="{kv}"/></actuator>'
    needed = lambda xml, own=True: steps_needed(mujoco.MjModel.from_xml_string(xml), own)  # noqa: E731
    assert needed(hinge(rest=servo.format(kp=1, kv=1))) == 1
    assert needed(hinge(rest=servo.format(kp=1, kv=500))) == 5  # 500/s * 0.002 s = 1, a fifth at most in each
    assert needed(hinge(rest=servo.format(kp=1e6, kv=1))) == 4  # 1000 rad/s * 0.002 s = 2, half at most
    assert needed(hinge(joint='damping="200"')) == 1
    assert needed(hinge(joint='damping="200"'), own=False) == 2


def test_a_step_is_divided_where_contacts_hold_over_it() -> None:
    def parts(text: str, timestep: float) -> int:
        text = text.replace('timestep="0.002"', f'timestep="{timestep}"')
        return parts_for_contacts(mechanism(mujoco.MjModel.from_xml_string(text)))

    assert parts(hinge(), 0.1) == 1  # it touches nothing
    assert (parts(BALL, 0.001), parts(BALL, 0.004)) == (10, 40)  # of 0.1 ms, the shortest
    # A softer contact: solref 0.11, the mean of both, so that d is 0.95 and b = 2 / (0.95 * 0.11 s) (MuJoCo's manual,
    # Computation, Constraint model). Damping b d / (1 - d) m = 727 N s/m; 1 N accelerates a point on the sphere's rim
    # by 1 / m + r^2 / (0.4 m r^2) = 1.75 m/s^2. So it takes 1273 of a speed in a second, and may take 0.3 in 0.236 ms.
    soft = BALL.replace('mass="2"', 'mass="2" solref="0.2 1"')
    assert (parts(soft, 0.001), parts(soft, 0.004)) == (5, 17)


REFUSED = {
    "ball joint": '<mujoco><worldbody><body><joint name="j" type="ball"/><geom size="1"/></body></worldbody></mujoco>',
    "equality": '<mujoco><worldbody><body name="b"><freejoint/><geom size="1"/></body></worldbody>'
    '<equality><weld name="w" body1="b"/></equality></mujoco>',
    "activation state": hinge(rest='<actuator><general name="m" joint="j" dyntype="filter" dynprm="1"/></actuator>'),
    "height field": '<mujoco><asset><hfield name="h" nrow="2" ncol="2" size="1 1 1 1"/></asset><worldbody>'
    '<geom name="hills" type="hfield" hfield="h"/><body><freejoint/><geom size="1"/></body></worldbody></mujoco>',
    "touch sensor": hinge('<site name="s"/>', rest='<sensor><touch name="t" site="s"/></sensor>'),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_is_not_translated_is_refused_by_name(what: str) -> None:
    with pytest.raises(EngineError, match=f"^engine: [^\n]*{what}[^\n]*$"):
        mechanism(mujoco.MjModel.from_xml_string(REFUSED[what]))


def test_a_simulator_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator.importlib.util, "find_spec", lambda name: None)
    for kind in KINDS:
        with pytest.raises(EngineError, match=rf"^{kind} is not installed: pip install 'simreal\[{kind}\]'$"):
            BridgeEngine(kind, mujoco.MjModel.from_xml_string(hinge()), 1)


@every_kind
def test_fields_of_each_simulation_count_and_those_without_a_counterpart_are_said(kind: str) -> None:
    engine = engine_of(
        kind,
        BALL.replace('size="5 5 1"', 'size="5 5 1" friction="0.1"').replace('mass="2"', 'mass="2" friction="0.1"'),
        2,
    )
    engine.field("opt.gravity")[1] = torch.tensor([0.0, 0.0, -1.0])
    engine.field("geom_margin")
    engine.data("qpos")[:, 2] = 1.0
    engine.step(50)
    np.testing.assert_allclose(engine.data("qvel")[:, 2], [-0.981, -0.1], rtol=1e-3)
    lines = engine.statement()
    assert any(line.startswith("contacts: ") for line in lines)
    assert any("geom_margin" in line and "without effect" in line for line in lines)
    assert not any("frictionloss" in line or "armature" in line for line in lines)  # the model has none


FRICTIONS = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1" friction="0.2"/>
    <body pos="0 0 1"><freejoint/><geom name="hard" size="0.1" friction="1"/></body>
    <body pos="0 1 1"><freejoint/><geom name="soft" size="0.1" friction="0.3"/></body>
  </worldbody>
</mujoco>
"""


def test_friction_against_the_world_is_mujocos_however_simulators_combine_it() -> None:
    assert combined("pybullet", 1.0, 0.7) == pytest.approx(0.7)
    assert combined("drake", 0.7, 0.7) == pytest.approx(0.7)
    model = mujoco.MjModel.from_xml_string(FRICTIONS)
    found = mechanism(model)
    wanted = {("floor", "hard"): 1.0, ("floor", "soft"): 0.3, ("hard", "soft"): 1.0}
    assert {tuple(model.geom(g).name for g in pair): mu for pair, mu in found.pairs.items()} == wanted
    for kind in KINDS:
        own = coefficients(kind, found)
        assert min(own.values()) >= 0.0
        for pair in ((0, 1), (0, 2)):
            assert combined(kind, own[pair[0]], own[pair[1]]) == pytest.approx(found.pairs[pair])
