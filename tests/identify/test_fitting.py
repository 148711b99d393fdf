"""What makes a stiff robot's fit quick and honest: trajectories led on to physics steps of no length, unknowns that are
moved together; and robots whose base floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from benchmarks.identify_coverage import cart_pole, log_of
from benchmarks.identify_coverage import hidden as hidden_pole
from conftest import TinyTask
from randomization.parameters import build_parameters
from simreal.common.errors import UserError
from simreal.common.logs import Log, Signal
from simreal.identify.excite.rehearsal import multisine, rehearse
from simreal.identify.fitting.fit import Fitter
from simreal.identify.fitting.groups import groups_of
from simreal.identify.fitting.steps import Limit
from simreal.identify.identify import identify
from simreal.identify.knowledge import combinations
from simreal.identify.measured.coordinates import Coordinates
from simreal.identify.measured.pieces import cut
from simreal.identify.measured.reading import recording_of
from simreal.identify.measured.recording import Recording
from simreal.identify.rig import check_shown
from simreal.identify.simulation import Player
from simreal.identify.unknowns import Scales, unknown_of

# A servo of an arm: its rotor turns at 1 / 300 of a second beside its damping, the physics step is 1 / 500.
_JOINT = """<body name="{0}" pos="{1} 0 0"><joint name="{0}" axis="0 0 1" damping="5" frictionloss="1" armature="0.4"/>
<geom size="0.05" pos="0.2 0 0" mass="1" contype="0" conaffinity="0"/></body>"""
_SERVO = """<general name="m_{0}" joint="{0}" gainprm="1500" biastype="affine" biasprm="0 -1500 -150"
forcerange="-50 50"/>"""


def servos(*names: str) -> str:
    bodies = "".join(_JOINT.format(name, k) for k, name in enumerate(names))
    actuators = "".join(_SERVO.format(name) for name in names)
    return f"""<mujoco><option integrator="implicitfast"/><worldbody>{bodies}</worldbody>
    <actuator>{actuators}</actuator></mujoco>"""


def wanted(*names: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name in names:
        entries |= {
            f"{name} rotor": {"quantity": "joint_armature", "of": name, "range": [0.3, 3]},
            f"{name} kp": {"quantity": "actuator_kp", "of": f"m_{name}", "range": [0.5, 2]},
            f"{name} kd": {"quantity": "actuator_kd", "of": f"m_{name}", "range": [0.5, 2]},
        }
    return entries


def hidden(task: TinyTask, entries: dict[str, Any], z: float) -> tuple[dict[str, float], mujoco.MjModel]:
    """A world, simulated by another integrator at an eighth of the step."""
    unknowns = [unknown_of(p) for p in build_parameters(task, entries)]
    values = Scales(unknowns).outward(np.where(np.arange(len(unknowns)) % 2, -z, z))
    model = Player(task, unknowns, 2, 1).model_of(values)
    model.opt.timestep, model.opt.integrator = 2.5e-4, mujoco.mjtIntegrator.mjINT_RK4
    return dict(zip([u.name for u in unknowns], values.tolist(), strict=True)), model


def moved(model: mujoco.MjModel, joints: tuple[str, ...], seconds: float = 5.0, **options: Any) -> Recording:
    time = np.arange(0.0, seconds, 0.02)
    shape = np.zeros(model.nu), np.full(model.nu, 0.6)
    commands = multisine(time, *shape, (0.3, 4.0), 6, np.random.default_rng(0))
    noise: dict[str, Any] = {"noise": (1e-4, 1e-3)}
    return rehearse(model, model.qpos0, time, commands, joints, **noise | options)


def test_a_stiff_servo_is_found_though_physics_steps_are_longer_than_its_rotor_takes() -> None:
    """At the model's own steps its rotor moves as if it had h kd / 2 = 0.15 kg m2 more, a third."""
    task, entries = TinyTask(servos("hinge")), wanted("hinge")
    true, model = hidden(task, entries, 0.4)
    found = identify(task, [moved(model, ("hinge",))], build_parameters(task, entries), threads=1)
    for known in found.knowledge.of:
        assert known.told
        assert known.low <= true[known.unknown.name] <= known.high, known
        assert abs(known.value / true[known.unknown.name] - 1.0) < 0.05, known


def test_a_search_shortens_its_steps_until_they_lead_down() -> None:
    """From where this search begins the full step, and a hundredth of it, lead up: it ended there, a pole of half again
    the mass told with an interval of 14 %."""
    robot = cart_pole()
    values, model = hidden_pole(robot, 9)
    recording = log_of(robot, values, model, 9, 20.0)
    found = identify(robot.task, [recording], build_parameters(robot.task, robot.entries), seed=9)
    for known in found.knowledge.of:
        assert known.low <= values[known.unknown.name] <= known.high, known
    mass = found.knowledge.of[0]
    assert mass.value == pytest.approx(values["pole mass"], rel=0.05)


def test_trajectories_are_led_on_to_steps_of_no_length() -> None:
    task = TinyTask(servos("hinge"))
    recording = moved(task.model, ("hinge",), 2.0)
    make = lambda finer: Player(task, [], 100, 1, finer)  # noqa: E731
    pieces = cut([recording], task.model, 0.2, 0.0)
    starts = np.zeros((len(pieces), 2))
    play = lambda player: np.concatenate([t[0] for t in player.play(pieces, np.zeros((len(pieces), 0)), starts)])  # noqa: E731
    exact = play(make(128))
    off = [np.abs(play(player) - exact).max() for player in (make(4), make(8), Limit(make, 4))]
    assert off[0] > 1e-4
    assert off[1] == pytest.approx(off[0] / 2.0, rel=0.2)  # the method is of first order
    assert off[2] < 0.2 * off[1]


def test_unknowns_that_different_joints_show_are_moved_together_and_derivatives_stay() -> None:
    task, entries = TinyTask(servos("left", "right")), wanted("left", "right")
    unknowns = [unknown_of(p) for p in build_parameters(task, entries)]
    scales, player = Scales(unknowns), Player(task, unknowns, 100, 1)
    fitter = Fitter(player, cut([moved(task.model, ("left", "right"), 2.0)], task.model, 0.2, 0.0), scales)
    single = fitter.look(scales.nominal)
    fitter.differentiate(scales.nominal + 0.1, fitter.begun)
    assert sorted(map(sorted, fitter.groups)) == [[0, 3], [1, 4], [2, 5], [6, 7], [8, 9]]
    fitter.differentiate_groups(scales.nominal, fitter.begun)
    together = fitter.finished(scales.nominal, fitter.begun, single.residuals, 0)
    for a, b in zip(single.parts, together.parts, strict=True):
        np.testing.assert_allclose(a.world, b.world, rtol=1e-3, atol=1e-3 * np.abs(a.world).max())
        np.testing.assert_allclose(a.state, b.state, rtol=1e-3, atol=1e-3 * np.abs(a.state).max())


def test_unknowns_of_one_joint_or_of_another_kind_are_not_moved_together() -> None:
    reach = np.array([[9.0, 0.0], [0.1, 7.0], [3.0, 3.0], [0.0, 5.0]])
    assert groups_of(reach, [0, 0, 0, 1]) == [[0, 1], [2], [3]]


def test_what_can_be_told_of_a_light_joint_is_said() -> None:
    entries = wanted("hinge")
    unknowns = [unknown_of(p) for p in build_parameters(TinyTask(servos("hinge")), entries)]
    shares = np.array([1.0, 0.5, 2.0])
    direction = 1.0 / shares  # the same factor for all
    nothing = np.zeros(3, dtype=bool)
    [line] = combinations((direction / np.linalg.norm(direction))[None], unknowns, shares, nothing)
    assert line.endswith("only their ratios")
    assert {"hinge rotor", "hinge kp", "hinge kd"} == {n for n in entries if n in line}
    direction[0] *= -1.0
    [line] = combinations((direction / np.linalg.norm(direction))[None], unknowns, shares, nothing)
    assert line.endswith("only together")


FLOATING = """<mujoco><option gravity="0 0 0"/><worldbody><body name="hull"><freejoint/>
<geom type="box" size="0.2 0.1 0.05" mass="2"/><body name="arm" pos="0.2 0 0"><joint name="elbow" axis="0 1 1"
damping="0.05" armature="0.01"/><geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.5"/></body></body>
</worldbody><actuator><position name="m" joint="elbow" kp="20" kv="0.6"/></actuator></mujoco>"""
_BASE = tuple(f"hull.{part}" for part in ("x", "y", "z", "rx", "ry", "rz"))


def test_a_floating_base_is_fitted_by_what_a_motion_capture_shows() -> None:
    task = TinyTask(FLOATING)
    entries = {"hull": {"quantity": "body_mass", "of": "hull", "range": [0.5, 2]}}
    true, model = hidden(task, entries, 0.6)
    recording = moved(model, (*_BASE, "elbow"), noise=(3e-4, 3e-3))
    assert np.ptp(recording.tracks[0].values[:, 3:6]) > 0.1  # it turns
    found = identify(task, [recording], build_parameters(task, entries), threads=1)
    (known,) = found.knowledge.of
    assert known.told
    assert known.low <= true["hull"] <= known.high
    assert known.value == pytest.approx(true["hull"], rel=0.02)


def test_rotations_are_read_as_quaternions_too_and_a_base_must_be_shown() -> None:
    model = mujoco.MjModel.from_xml_string(FLOATING)
    coordinates = Coordinates(model)
    qpos = np.array([[1.0, 2.0, 3.0, 0.5, -0.5, 0.5, 0.5, 0.7]])
    np.testing.assert_allclose(coordinates.outward(coordinates.inward(qpos)), qpos, atol=1e-12)
    time = np.arange(0.0, 3.0, 0.02)
    names = ("elbow", *_BASE[:3], *(f"hull.{part}" for part in ("qw", "qx", "qy", "qz")))
    shown = np.tile([0.7, 1.0, 2.0, 3.0, 0.5, -0.5, 0.5, 0.5], (len(time), 1))
    signals = [
        Signal("command", time, np.sin(time)[:, None], ("m",)), Signal("position", time, shown, names),
        Signal("velocity", time, np.zeros((len(time), 1)), ("elbow",)),
    ]  # fmt: skip
    recording = recording_of(Log({s.name: s for s in signals}, None, Path("log")), model, {})
    assert recording.tracks[0].joints == ("elbow", *_BASE)
    turn = np.array([-1.0, 1.0, 1.0]) / np.sqrt(3.0) * (2.0 * np.pi / 3.0)  # a third of a turn
    np.testing.assert_allclose(recording.tracks[0].values[0], [0.7, 1.0, 2.0, 3.0, *turn], atol=1e-12)
    with pytest.raises(
        UserError, match=r"its base \(hull\) floats.*or log velocities of hull\.x.*hull\.x is not there"
    ):
        check_shown("Tiny", model, recording)
