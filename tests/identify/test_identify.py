"""Identification, on an arm whose world is known: right values, honest intervals, and what cannot be told is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from conftest import TinyTask
from randomization.parameters import RandomizationError, build_parameters
from simreal.common.errors import UserError
from simreal.common.logs import Log, Signal
from simreal.identify.answer.files import lines
from simreal.identify.excite.rehearsal import multisine, rehearse
from simreal.identify.identify import identify
from simreal.identify.measured.pieces import noise_of
from simreal.identify.measured.reading import recording_of
from simreal.identify.measured.recording import Recording, check_recording, notes, tracks_of
from simreal.identify.simulation import Player
from simreal.identify.unknowns import unknown_of

ARM = """
<mujoco><option timestep="0.004"/><worldbody>
  <body name="upper" pos="0 0 1">
    <joint name="shoulder" axis="0 1 0" damping="0.4" frictionloss="0.1" armature="0.02"/>
    <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="1" contype="0" conaffinity="0"/>
    <body name="lower" pos="0.3 0 0">
      <joint name="elbow" axis="0 1 0" damping="0.2" frictionloss="0.05" armature="0.01"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.025" mass="0.6" contype="0" conaffinity="0"/></body></body>
</worldbody><actuator>
  <position name="a" joint="shoulder" kp="60" kv="3"/><position name="b" joint="elbow" kp="30" kv="1"/>
</actuator></mujoco>"""
JOINTS = ("shoulder", "elbow")
WANTED: dict[str, Any] = {
    "kp": {"quantity": "actuator_kp", "of": "a", "range": [0.5, 2.0]},
    "damping": {"quantity": "joint_damping", "of": "elbow", "range": [0.3, 3.0]},
    "payload": {"quantity": "body_mass", "of": "lower", "range": [0.5, 2.0]},
    "action_delay": {"range": [0, 40]},
}
TRUE = {"kp": 0.8, "damping": 1.6, "payload": 1.3, "action_delay": 17.0}


def world(task: TinyTask, entries: dict[str, Any], values: dict[str, float]) -> mujoco.MjModel:
    """The model of a world, simulated by another integrator at an eighth of the timestep."""
    unknowns = [unknown_of(p) for p in build_parameters(task, entries)]
    model = Player(task, unknowns, 2).model_of(np.array([values[u.name] for u in unknowns]))
    model.opt.timestep, model.opt.integrator = model.opt.timestep / 8.0, mujoco.mjtIntegrator.mjINT_RK4
    return model


def log(task: TinyTask, entries: dict[str, Any], values: dict[str, float], **options: Any) -> Recording:
    time = np.arange(0.0, options.pop("length_s", 6.0), 0.02)
    generator = np.random.default_rng(options.pop("excitation", 0))
    commands = multisine(time, np.array([0.3, -0.5]), np.array([0.5, 0.6]), (0.3, 4.0), 6, generator)
    settings: dict[str, Any] = {
        "noise": (2e-4, 4e-3),
        "delay_s": values.get("action_delay", 0.0) * 1e-3,
        "jitter_s": 5e-4,
    }
    model = world(task, entries, values)
    return rehearse(model, np.zeros(2), time, commands, JOINTS, **settings | options)


def test_a_world_is_found_with_intervals_that_hold_it_from_a_simulation_of_another_timestep() -> None:
    task = TinyTask(ARM)
    found = identify(task, [log(task, WANTED, TRUE)], build_parameters(task, WANTED), length_s=0.4, threads=1)
    for known in found.knowledge.of:
        true = TRUE[known.unknown.name]
        assert known.told
        assert known.low <= true <= known.high, known
        assert abs(known.value / true - 1.0) < 0.1, known
    held_back = found.held_back[0]
    assert (held_back.identified < 0.15 * held_back.nominal).all()  # at the model's own steps, which the robot has not
    assert (held_back.nominal > 5.0 * held_back.noise).all()


def test_pieces_in_which_somebody_holds_the_robot_are_left_out() -> None:
    task = TinyTask(ARM)
    recording = log(task, WANTED, TRUE)
    for track in recording.tracks:
        start, stop = np.searchsorted(track.time, (2.0, 3.3))
        track.values[start:stop] = track.values[start] if track.kind == "position" else 0.0
    found = identify(task, [recording], build_parameters(task, WANTED), length_s=0.4, threads=1)
    assert 3 <= found.left_out <= 4  # of 0.4 s, the first and last not all of it
    [line] = [line for line in lines(found) if line.startswith("left out: ")]
    assert f"{found.left_out} of {found.left_out + found.pieces} pieces" in line
    for known in found.knowledge.of:
        true = TRUE[known.unknown.name]
        assert known.low <= true <= known.high, known
        assert abs(known.value / true - 1.0) < 0.1, known


def test_a_value_at_the_end_of_its_range_is_warned_of() -> None:
    task = TinyTask(ARM)
    narrow = WANTED | {"payload": {"quantity": "body_mass", "of": "lower", "range": [0.5, 1.15]}}
    found = identify(task, [log(task, WANTED, TRUE)], build_parameters(task, narrow), length_s=0.4, threads=1)
    [line] = [line for line in lines(found) if "at the end of the range" in line]
    assert line.startswith("warning: payload is found at the end of the range that was asked for (1.15)")


def test_pieces_that_move_are_not_left_out_for_those_that_rest() -> None:
    task = TinyTask(ARM)
    model = world(task, WANTED, TRUE)
    model.dof_frictionloss[:] *= 15.0  # which is not looked for
    time = np.arange(0.0, 8.0, 0.02)
    commands = multisine(time, np.array([0.3, -0.5]), np.array([0.5, 0.6]), (0.3, 4.0), 6, np.random.default_rng(0))
    commands[time < 5.2] = commands[0]
    recording = rehearse(model, np.zeros(2), time, commands, JOINTS, noise=(2e-4, 4e-3), delay_s=0.017)
    found = identify(task, [recording], build_parameters(task, WANTED), length_s=0.4, threads=1)
    assert found.left_out == 0
    assert any("does not explain" in line for line in lines(found))


def test_what_can_be_told_only_together_is_said_in_words_and_keeps_its_range() -> None:
    """A motor's strength and the factor on both of its gains are one and the same to its torque."""
    task = TinyTask(ARM)
    entries = {
        "gain": {"quantity": "actuator_gain", "of": "a", "range": [0.5, 2.0]},
        "strength": {"quantity": "actuator_strength", "of": "a", "range": [0.5, 2.0]},
        "damping": WANTED["damping"],
    }
    recording = log(task, entries, {"gain": 1.2, "strength": 0.9, "damping": 1.5})
    found = identify(task, [recording], build_parameters(task, entries), length_s=0.4, threads=1)
    gain, strength, damping = found.knowledge.of
    assert found.knowledge.combinations == ("strength and gain: only their product",)
    assert not gain.told
    assert (gain.low, gain.high) == (0.5, 2.0)
    assert not strength.told
    assert damping.told
    assert damping.low <= 1.5 <= damping.high


def test_what_does_not_move_the_robot_is_not_told() -> None:
    task = TinyTask(ARM)
    time = np.arange(0.0, 6.0, 0.02)
    commands = multisine(time, np.array([0.3, -0.5]), np.array([0.5, 0.0]), (0.3, 4.0), 6, np.random.default_rng(0))
    task.model.opt.gravity[:] = 0.0
    entries = {
        "kp": WANTED["kp"],
        "elbow offset": {"quantity": "joint_frictionloss", "of": "elbow", "range": [0.9, 1.1]},
    }
    recording = rehearse(task.model, np.zeros(2), time, commands, JOINTS, noise=(5e-3, 5e-2))
    found = identify(task, [recording], build_parameters(task, entries), length_s=0.4, threads=1)
    assert found.knowledge.of[0].told
    assert not found.knowledge.of[1].told
    assert found.knowledge.combinations == ("elbow offset: nothing",)


def test_offsets_of_sensors_are_found_where_gravity_shows_them() -> None:
    task = TinyTask(ARM)
    recording = log(task, {"kp": WANTED["kp"]}, {"kp": 1.0}, offsets=np.array([0.02, -0.03]))
    offsets = [("shoulder", 0.1), ("elbow", 0.1)]
    found = identify(task, [recording], [], offsets=offsets, length_s=0.4, threads=1)
    for known, true in zip(found.knowledge.of, (0.02, -0.03), strict=True):
        assert known.low <= true <= known.high
        assert known.value == pytest.approx(true, abs=2e-3)


def test_commands_are_held_and_arrive_between_steps() -> None:
    track = tracks_of(mujoco.MjModel.from_xml_string(ARM), "position", JOINTS, np.arange(3.0), np.zeros((3, 2)), "log")
    recording = Recording("log", np.array([0.0, 1.0, 2.0]), np.array([[0.0], [4.0], [8.0]]), (track,))
    means = recording.held(np.array([-1.0, 0.0, 0.75, 1.0, 1.9, 5.0]), 0.5)[:, 0]
    np.testing.assert_allclose(means, [0.0, 0.0, 2.0, 4.0, 7.2, 8.0], atol=1e-12)


def test_noise_is_told_from_motion_and_from_jumps() -> None:
    time = np.arange(0.0, 5.0, 0.01)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(time))
    values = np.sin(3.0 * time) + noise
    values[100] += 5.0
    model = mujoco.MjModel.from_xml_string(ARM)
    assert noise_of(tracks_of(model, "position", ["elbow"], time, values[:, None], ""))[0] == pytest.approx(
        1e-3, rel=0.15
    )


def test_what_an_owner_may_not_know_of_a_log_is_noted() -> None:
    text = ARM.replace('joint="elbow" kp', 'joint="elbow" ctrlrange="-1 1" kp')
    model = mujoco.MjModel.from_xml_string(text)
    time = np.arange(0.0, 1.0, 0.01)
    commands = np.zeros((100, model.nu))
    column = [model.actuator(i).trnid[0] for i in range(model.nu)].index(model.joint("elbow").id)
    commands[50:, column] = 57.3
    shoulder = tracks_of(model, "position", ["shoulder"], time, np.zeros((100, 1)), "log")
    said = notes(Recording("log", time, commands, (shoulder,)), model, [f"motor {i}" for i in range(model.nu)])
    assert f"log: control {column} (motor {column}) is told 0 to 57.3, and takes -1 to 1" in said
    assert "log: shows no position of elbow; where it moves is guessed from the others" in said
    assert sum("is told 0 all the time, or nothing" in line for line in said) == model.nu - 1


def test_logs_from_which_nothing_can_be_told_are_refused() -> None:
    task = TinyTask(ARM)
    good = log(task, {"kp": WANTED["kp"]}, {"kp": 1.0}, length_s=2.0)
    position = good.tracks[0]

    def refused(match: str, **changes: Any) -> None:
        values = {"name": "log", "command_time": good.command_time, "commands": good.commands, "tracks": good.tracks}
        with pytest.raises(UserError, match=match):
            check_recording(Recording(**values | changes), task.model)

    refused("its commands are constant", commands=np.ones_like(good.commands))
    back = good.command_time.copy()
    back[5] = back[3]
    refused("commands: time goes back or stands still at sample 5", command_time=back)
    refused("5 samples, expected at least 20", command_time=good.command_time[:5], commands=good.commands[:5])
    nan = position.values.copy()
    nan[3] = np.nan
    refused(
        r"position of joints: \S+ is nan at \S+ s; leave out such rows$",
        tracks=(tracks_of(task.model, "position", JOINTS, position.time, nan, "log"),),
    )
    slow = tracks_of(task.model, "position", JOINTS, 1000.0 * position.time, position.values, "log")
    refused(r"samples are \S+ s apart, expected less than 0\.5 s; times have to be in s$", tracks=(slow,))
    limited = mujoco.MjModel.from_xml_string(ARM.replace('<joint name="elbow"', '<joint name="elbow" range="-90 90"'))
    assert limited.jnt_limited.any()
    turned = tracks_of(limited, "position", JOINTS, position.time, np.full_like(position.values, 30.0), "log")
    with pytest.raises(UserError, match=r"^log: elbow is at 30 rad, and its range ends at 1\.57; expected rad$"):
        check_recording(Recording("log", good.command_time, good.commands, (turned,)), limited)
    with pytest.raises(UserError, match=r"no hinge or slide 'elbo' \(did you mean 'elbow'"):
        tracks_of(task.model, "position", ["elbo"], position.time, position.values[:, :1], "log")
    with pytest.raises(UserError, match=r"2 pieces of 0\.5 s, expected at least 6"):
        identify(task, [log(task, WANTED, TRUE, length_s=1.2)], build_parameters(task, WANTED), threads=1)


def signal(name: str, elements: tuple[str, ...], values: float = 0.0) -> Signal:
    time = np.arange(0.0, 3.0, 0.02)
    return Signal(name, time, values + np.sin(time)[:, None] * np.ones((1, len(elements))), elements)


def test_signals_are_found_by_name_and_joints_by_theirs() -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    signals = [
        signal("/simreal/sent/target:position", ("elbow", "shoulder"), 2.0),
        signal("/joint_states:velocity", JOINTS, 3.0),
        signal("/joint_states:position", ("elbow", "shoulder"), 1.0), signal("/imu", ("x", "y")),
    ]  # fmt: skip
    found = recording_of(Log({s.name: s for s in signals}, None, Path("log")), model, {})
    assert [track.kind for track in found.tracks] == ["position", "velocity"]
    assert found.tracks[0].joints == ("elbow", "shoulder")
    assert found.tracks[0].columns.tolist() == [1, 0]
    np.testing.assert_allclose(found.commands[:, 1], signals[0].values[:, 0])
    other = [signal("/joint_states:position", ("hip", "knee"))]
    with pytest.raises(UserError, match="no commands of this robot's joints by name; expected commands of a, b, elbow"):
        recording_of(Log({s.name: s for s in other}, None, Path("log")), model, {})
    with pytest.raises(UserError, match="no signal 'x'; there are: /simreal/sent"):
        recording_of(Log({s.name: s for s in signals}, None, Path("log")), model, {"command": "x"})


def test_a_range_may_have_a_nominal_value_of_its_own() -> None:
    task = TinyTask(ARM)
    entries = {"kp": {"quantity": "actuator_kp", "of": "a", "range": [0.7, 0.9], "nominal": 0.82}}
    assert build_parameters(task, entries)[0].nominal == 0.82
    entries["kp"]["nominal"] = 1.0
    with pytest.raises(
        RandomizationError, match=r"kp.nominal: expected a number within the range \[0.7, 0.9\], got 1.0"
    ):
        build_parameters(task, entries)


def test_logs_that_show_other_joints_than_the_first_are_refused() -> None:
    task = TinyTask(ARM)
    first = log(task, {"kp": WANTED["kp"]}, {"kp": 1.0})
    second = log(task, {"kp": WANTED["kp"]}, {"kp": 1.0}, velocities=False)
    parameters = build_parameters(task, {"kp": WANTED["kp"]})
    with pytest.raises(
        UserError, match="shows position of shoulder, elbow, but rehearsal position of shoulder, elbow and vel"
    ):
        identify(task, [first, second], parameters, threads=1)
