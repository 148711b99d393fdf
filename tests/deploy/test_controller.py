"""A controller sends what its policy asks for where nothing is wrong, starts softly, refuses robots that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from envs.registry import make_task
from robots import GO1, needs
from simreal.deploy import PD, BundleError, Controller, Limits, Policy, Reading
from simreal.export.bundle import export_bundle
from simreal.learners.base import LearnerSpec
from simreal.learners.options import PPOConfig
from simreal.learners.registry import learner_class
from small_arm import ARM
from toy_arm import NAME, PERIOD, arm_bundles, control, kinds
from toy_robot import Clock, ToyRobot


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return arm_bundles(tmp_path_factory)


@pytest.fixture
def smooth(folder: Path) -> Policy:
    return Policy.load(folder / "smooth")


@pytest.fixture
def steps(folder: Path) -> Policy:
    return Policy.load(folder / "steps")


# What is sent


def lstm(observations: int, actions: int) -> Any:
    """A policy with memory and random weights."""
    spec = LearnerSpec(1, observations, actions, 3, 0, None, torch.device("cpu"))
    options = PPOConfig.model_validate({"algorithm": "ppo", "memory": "lstm", "actor_hidden": (8,), "memory_size": 8})
    policy: Any = learner_class("ppo")(spec, options, 0).policy
    torch.manual_seed(1)
    for values in policy.parameters():
        values.data += 0.2 * torch.randn_like(values)
    return policy


@pytest.mark.parametrize("task", ["FetchReach-v4", pytest.param("Go1Velocity-v0", marks=needs(GO1))])
def test_what_is_sent_equals_the_policys_targets_bit_for_bit_where_nothing_is_wrong(task: str, tmp_path: Path) -> None:
    made = make_task(task)
    size, actions = sum(part.size for part in made.components("policy")), made.action_size
    bundle = export_bundle(lstm(size, actions), made, tmp_path / "bundle")
    clock, policy, reference = Clock(), Policy.load(bundle), Policy.load(bundle)
    robot = ToyRobot(policy, clock, {"joint_target": policy.contract["action"][0]["offset"]} if "Go1" in task else {})
    inputs = {"desired_goal": [1.3, 0.7, 0.5]} if "Fetch" in task else {"command": [0.5, 0.1, -0.2]}
    readings: list[Reading] = []
    robot.change = lambda reading: readings.append(reading) or reading
    controller = Controller(policy, robot, inputs=inputs, **clock.times())
    controller.run(1.0)
    assert controller.report()["clamped"] == 0
    action, begin = np.zeros(actions, np.float32), next(e.t for e in controller.events if e.kind == "running")
    running = [(r, sent) for r, (t, sent) in zip(readings, robot.written, strict=False) if t - 50.0 >= begin - 1e-9]
    assert len(running) > 20
    for reading, (sent) in running:
        own = {"last_action": action} if "Go1" in task else {}
        action = reference({**reading.values, **inputs, **own})
        expected = reference.targets(action)
        assert sent.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(sent[name], values)


@pytest.mark.parametrize("kind", ["smooth", "steps"])
def test_what_the_controller_knows_itself_is_supplied(kind: str, folder: Path) -> None:
    policy, reference = Policy.load(folder / kind), Policy.load(folder / kind)
    controller, robot, _ = control(policy, (0.2, -0.1, 0.3))
    readings: list[Reading] = []
    robot.change = lambda reading: readings.append(reading) or reading
    controller.run(0.3)
    begin = next(e.t for e in controller.events if e.kind == "running")
    running = [(r, sent) for r, (t, sent) in zip(readings, robot.written, strict=False) if t - 50.0 >= begin - 1e-9]
    before = [sent for t, sent in robot.written if t - 50.0 < begin - 1e-9][-1][NAME]
    action, last = np.zeros(3, np.float32), before
    for reading, sent in running:
        action = reference({**reading.values, "last_action": action, "last_target": last, "wanted": [0.3]})
        np.testing.assert_array_equal(sent[NAME], reference.targets(action)[NAME])
        last = sent[NAME]


def test_a_limit_does_not_wind_up_what_targets_are_added_to(steps: Policy) -> None:
    # Actions of +1 add 0.3 in every step; after the limit of 0.5 the first one back leaves it at once.
    high = np.full(3, 0.5)
    controller, robot, clock = control(steps, limits=Limits(position={NAME: (-high, high)}))
    asked = [np.ones(3, np.float32)] * 30 + [-np.ones(3, np.float32)] * 3
    actions = iter(asked)
    fixed: Any = Scripted(steps, lambda: next(actions))
    controller._policy = controller._pilot._policy = fixed
    controller.arm()
    while controller.state != "running":
        controller.step()
        clock.now += PERIOD
    robot.written.clear()
    for _ in range(31):
        controller.step()
        clock.now += PERIOD
    sent = np.array([targets[NAME][0] for _, targets in robot.written])
    np.testing.assert_allclose(sent[-3:], [0.5, 0.2, -0.1], atol=1e-9)
    assert sent.max() == 0.5
    assert kinds(controller).count("clamped") == 1
    assert controller.report()["clamped"] >= 25


class Scripted(Policy):
    """A policy whose actions are given."""

    def __init__(self, like: Policy, actions: Callable[[], np.ndarray]) -> None:
        super().__init__(like.contract, like.layout, like._session)
        self.actions = actions

    def __call__(self, observation: Any) -> Any:
        super().__call__(observation)
        self._given = self.actions()
        return self._given


# The start


def test_the_soft_start_goes_from_the_joints_to_the_stance_within_its_time_and_speed(smooth: Policy) -> None:
    controller, robot, _ = control(smooth, (1.5, -0.5, 0.1), limits=Limits(start_s=1.0, start_speed={NAME: 2.0}))
    controller.run(0.0)
    way = np.array([targets[NAME] for _, targets in robot.written[:-1]])
    # 1.5 rad at 2 rad/s at most, 1.5 times the mean: 1.125 s, 57 steps
    assert len(way) == 57
    np.testing.assert_allclose(way[-1], 0.0, atol=1e-12)
    steps = np.diff(np.concatenate((np.array([[1.5, -0.5, 0.1]]), way)), axis=0)
    assert np.abs(steps).max() <= 2.0 * PERIOD + 1e-12
    assert (steps[:, 0] <= 0.0).all()
    assert kinds(controller) == ["armed", "starting", "running", "finished", "stopped"]


def test_a_start_outside_the_envelope_is_refused_and_nothing_is_sent(smooth: Policy) -> None:
    controller, robot, _ = control(smooth, (0.0, 1.9, 0.0))  # the limits are -1.5 and 1.5, and 5 % of 3 beyond
    with pytest.raises(ValueError, match=r"'joint_target': pitch is at 1\.9 rad, a start needs -1\.65 to 1\.65"):
        controller.run()
    assert controller.state == "idle"
    assert (robot.written, robot.made_safe) == ([], [])
    assert kinds(controller) == ["armed", "refused"]


def test_armed_again_outside_the_envelope_the_robot_is_kept_safe(smooth: Policy) -> None:
    controller, robot, clock = control(smooth)
    controller.arm()
    for _ in range(3):
        controller.step()
        clock.now += PERIOD
    robot.change = lambda reading: {}
    controller.step()
    assert controller.state == "stopped"
    robot.change, robot.q[NAME][0] = lambda reading: reading, 3.0
    controller.arm()
    for _ in range(5):
        clock.now += PERIOD
        controller.step()
    assert kinds(controller)[2:] == ["lost", "stopped", "armed", "refused"]
    assert len(robot.made_safe) == 6
    robot.q[NAME][0] = 0.0
    controller.arm()
    clock.now += PERIOD
    assert controller.step() == "starting"
    with pytest.raises(ValueError, match="arm: the controller is starting"):
        controller.arm()


def test_joints_that_are_not_shown_cannot_be_led_to_the_stance(smooth: Policy) -> None:
    controller, robot, _ = control(smooth)
    robot.change = lambda reading: replace(reading, positions={})
    with pytest.raises(ValueError, match=r"does not say where the joints of 'joint_target' are"):
        controller.run()
    at_once, robot, _ = control(smooth, limits=Limits(start_s=0.0))
    robot.change = lambda reading: replace(reading, positions={})
    at_once.run(0.1)
    assert len(robot.written) > 4


def test_it_waits_for_sensors_and_says_what_did_not_come(smooth: Policy) -> None:
    controller, robot, clock = control(smooth, limits=Limits(wait_s=1.0))

    def late(reading: Reading) -> Any:
        known = {name: values for name, values in reading.values.items() if name != "joint_vel" or clock.now > 50.5}
        return replace(reading, values=known)

    robot.change = late
    controller.run(0.1)
    assert robot.written[0][0] == pytest.approx(50.51, abs=0.011)
    robot.change = lambda reading: None
    controller, robot, clock = control(smooth, limits=Limits(wait_s=1.0))
    robot.change = lambda reading: replace(reading, values={"joint_pos": np.zeros(3)})
    with pytest.raises(ValueError, match=r"'joint_vel' the robot does not give it: expected 3 values in rad/s; waited"):
        controller.run()
    assert clock.now == pytest.approx(51.02, abs=0.021)
    assert robot.written == []


# Inputs, and robots that do not fit


def test_inputs_may_be_functions_and_change(smooth: Policy) -> None:
    seen: list[float] = []
    controller, _robot, clock = control(smooth, limits=Limits(start_s=0.0), inputs={"wanted": lambda measured: [0.7]})
    policy = controller._pilot._policy
    original = type(policy).__call__
    watched: Any = type(
        "Watched", (Policy,), {"__call__": lambda self, x: seen.append(float(x[-1])) or original(self, x)}
    )
    policy.__class__ = watched
    controller.arm()
    for _ in range(3):
        controller.step()
        clock.now += PERIOD
    controller.inputs = lambda measured: {"wanted": measured["joint_pos"][:1] * 0 + 0.25}
    controller.step()
    np.testing.assert_allclose(seen, [0.7, 0.7, 0.7, 0.25], rtol=1e-6)
    clock.now += PERIOD
    controller.inputs = {"wanted": lambda measured: 1 / 0}  # type: ignore[dict-item]
    assert controller.step() == "stopped"
    assert kinds(controller)[-2:] == ["inputs_failed", "stopped"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"inputs": {"wnted": [0.0]}}, r"inputs: unknown observation component 'wnted' \(did you mean 'wanted'\?\)"),
        ({"limits": Limits(rate={"joint": 1.0})}, r"Limits.rate: unknown component 'joint' \(did you mean 'joi"),
        ({"limits": Limits(rate={NAME: [1.0, 2.0]})}, r"Limits.rate of 'joint_target': expected a number or 3"),
        ({"limits": Limits(effort={NAME: -1.0})}, r"Limits.effort of 'joint_target': expected positive numbers, got"),
        ({"limits": Limits(position={NAME: (3.0, 4.0)})}, "nothing is left of what the contract allows"),
        ({"limits": Limits(sensors={NAME: (0.0, 1.0)})}, "Limits.sensors: unknown component 'joint_target'"),
        ({"limits": Limits(deadline_s={"gyro": 1.0})}, "Limits.deadline_s: unknown component 'gyro'"),
        ({"limits": Limits(rate=4.0)}, r"Limits.rate: expected a mapping from components \(joint_target\), got 4.0"),  # type: ignore[arg-type]
        ({"limits": {"rate": 4.0}}, "limits: expected simreal.deploy.Limits, got dict"),
        ({"inputs": [0.3]}, "inputs: expected a mapping or a function, got list"),
        ({"inner_hz": "fast"}, "inner_hz: expected a rate in Hz, got 'fast'"),
        ({"safe": "stop"}, "safe: expected hold or damp or zero_torque, got 'stop'"),
        ({"interpolation": "cubic"}, "interpolation: expected hold or linear, got 'cubic'"),
        ({"inner_hz": 120.0}, r"inner_hz: expected a multiple of the policy's 50 Hz, got 120"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_contract_is_one_line(more: dict[str, Any], said: str, smooth: Policy) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        control(smooth, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("joints", {NAME: ["pitch", "yaw", "elbow"]}, "other joints .*: 'joint_target' 0: expected 'yaw', got 'pitch'"),
        ("joints", {NAME: ["yaw", "pitch"]}, "'joint_target' 2: expected 'elbow', got none"),
        ("joints", {"legs": []}, "robot.joints: unknown action component 'legs'"),
        ("gains", {NAME: ([40.0, 60.0, 60.0], None)}, r"another stiffness of 'joint_target': expected \[40.0, 60.0"),
        ("write", None, "expected methods read, write and safe; ToyRobot has no write"),
    ],
)  # fmt: skip
def test_a_robot_that_says_it_is_another_one_is_refused(attribute: str, value: Any, said: str, smooth: Policy) -> None:
    robot = ToyRobot(smooth, Clock())
    setattr(robot, attribute, value)
    with pytest.raises(ValueError, match=said):
        Controller(smooth, robot)
    setattr(robot, "joints", {NAME: ["yaw", "pitch", "elbow"]})  # noqa: B010


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: replace(r, values={**r.values, "gyro": [0.0]}), "gives an unknown observation component 'gyro'"),
        (lambda r: replace(r, values={**r.values, "joint_pos": np.zeros(12)}), "'joint_pos': expected 3 values, got"),
        (lambda r: replace(r, positions={NAME: np.zeros(12)}), "'joint_target': joints: expected 3 values, got"),
        (lambda r: replace(r, positions={"legs": []}), "gives positions of an unknown action component 'legs'"),
        (lambda r: replace(r, stamps={"imu": 0.0}), "stamps an unknown observation component 'imu'"),
        (lambda r: 7, "expected a Reading or a mapping, got int; waited 1 s"),
    ],
)  # fmt: skip
def test_a_robot_that_shows_another_one_is_refused_and_nothing_is_sent(change: Any, said: str, smooth: Policy) -> None:
    controller, robot, _ = control(smooth, limits=Limits(wait_s=1.0))
    robot.change = change
    with pytest.raises(ValueError, match=said) as caught:
        controller.run()
    assert "\n" not in str(caught.value)
    assert (robot.written, robot.made_safe) == ([], [])


def test_a_bundle_with_altered_gains_is_refused(folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in (folder / "smooth").iterdir():
        (bundle / file.name).write_bytes(file.read_bytes().replace(b"40.0, 60.0, 120.0", b"40.0, 60.0, 240.0"))
    robot: Any = object()
    with pytest.raises(BundleError, match=r"policy\.json: altered after the export"):
        Controller(bundle, robot)


# Between two actions


def test_torques_are_those_of_mujocos_servos(smooth: Policy) -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    data, random, pd = mujoco.MjData(model), np.random.default_rng(0), PD(smooth)
    limited = 0
    for _ in range(50):
        target, data.qpos[:3], data.qvel[:3] = random.uniform(-1, 1, (3, 3))
        data.ctrl[:] = target * [1.0, 1.0, 2.0]  # the gear of the elbow
        mujoco.mj_forward(model, data)
        torques = pd.torques({NAME: target}, {NAME: data.qpos[:3]}, {NAME: data.qvel[:3]})[NAME]
        np.testing.assert_allclose(torques, data.qfrc_actuator[:3], atol=1e-9)
        limited += int((np.abs(torques) == [20.0, 30.0, 20.0]).sum())
    assert 20 < limited < 140


@pytest.mark.parametrize("interpolation", ["hold", "linear"])
def test_targets_between_two_actions(interpolation: str, smooth: Policy) -> None:
    controller, robot, _clock = control(smooth, limits=Limits(start_s=0.0), inner_hz=200.0, interpolation=interpolation)
    assert controller.period_s == pytest.approx(0.005)
    controller.run(0.5)
    sent = np.array([targets[NAME] for _, targets in robot.written])
    goals = sent[3::4]  # the last of each period
    times = np.array([t for t, _ in robot.written])
    np.testing.assert_allclose(np.diff(times), 0.005, atol=1e-9)
    for k in range(1, len(goals)):
        share = [1.0] * 4 if interpolation == "hold" else [0.25, 0.5, 0.75, 1.0]
        expected = [goals[k - 1] + s * (goals[k] - goals[k - 1]) for s in share]
        np.testing.assert_allclose(sent[4 * k : 4 * k + 4], expected, atol=1e-12)
    assert np.abs(np.diff(goals, axis=0)).max() > 1e-3
    assert controller.report()["cycles"] == pytest.approx(26, abs=1)


def test_a_robot_that_takes_torques_gets_them_at_its_own_rate(smooth: Policy) -> None:
    controller, robot, _clock = control(
        smooth, (0.4, 0.0, 0.0), inner_hz=500.0, torques=True, limits=Limits(start_s=0.1)
    )
    given: list[Reading] = []
    robot.change = lambda reading: given.append(reading) or reading
    sent: list[np.ndarray] = []

    def write(torques: Any) -> None:
        sent.append(torques[NAME])
        position, velocity = (np.asarray(x[NAME]) for x in (given[-1].positions, given[-1].velocities))
        target = controller._pilot.last
        expected = np.array([40.0, 60.0, 120.0]) * (target - position) - np.array([4.0, 6.0, 12.0]) * velocity
        np.testing.assert_allclose(torques[NAME], np.clip(expected, [-20, -30, -20], [20, 30, 20]))
        robot.q[NAME] = robot.q[NAME] + 0.1 * (target - robot.q[NAME])

    robot.write = write  # type: ignore[method-assign]
    controller.run(0.2)
    assert "write_failed" not in kinds(controller)
    assert len(sent) > 350
    robot.change = lambda reading: replace(reading, velocities={})
    with pytest.raises(ValueError, match=r"torques of 'joint_target' need Reading.positions and Reading.velocities"):
        controller.run()
