"""The process robot: its physics beside MuJoCo's, its motors beside the formula, its own safety, its clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from robots import GO1, needs
from simreal.common.errors import UserError
from simreal.robot.process.loop import Loop
from simreal.robot.process.simulation import Drive, Simulation, State, _tilted
from simreal.robot.sources import matrix

POLE = "InvertedPendulum-v5"  # a motor on a slide, a pole on a hinge; steps of 20 ms, two to a control step


class FakePort:
    """Commands of a list, one entry a step; keeps what is published."""

    topics = "nothing"

    def __init__(self, commands: dict[int, list[Drive | str]] | None = None) -> None:
        self.published: list[tuple[State, float, float]] = []
        self.given, self.step = commands or {}, -1

    def commands(self) -> list[Drive | str]:
        self.step += 1
        return self.given.get(self.step, [])

    def publish(self, state: State, wall_s: float, time_s: float) -> None:
        self.published.append((state, wall_s, time_s))


class FakeTime:
    """A clock on which nothing takes time but sleep, and `stalls` at a number of calls."""

    def __init__(self, stalls: dict[int, float] | None = None) -> None:
        self.now, self.calls, self.stalls = 10.0, 0, stalls or {}

    def clock(self) -> float:
        self.calls += 1
        self.now += self.stalls.get(self.calls, 0.0)
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def force(value: float) -> Drive:
    """A command of the cart's motor."""
    return Drive(np.array([value]), np.zeros(1), np.zeros(1))


def loop(robot: Simulation, port: FakePort, time: FakeTime, **more: Any) -> tuple[Loop, list[str]]:
    """A loop in fake time, and what it says."""
    said: list[str] = []
    return Loop(robot, port, tell=said.append, clock=time.clock, wall=time.clock, sleep=time.sleep, **more), said


@pytest.fixture(scope="module")
def pole() -> Simulation:
    """The cart with its pole."""
    return Simulation(POLE)


def test_physics_are_those_of_mujoco_with_the_same_commands() -> None:
    robot = Simulation(POLE, seed=4)
    assert robot.timestep_s == 0.002
    model = mujoco.MjModel.from_xml_path(str(_pole_file()))
    model.opt.timestep = 0.002
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = robot.state().position, robot.state().velocity
    robot.drive(force(0.3))
    data.ctrl[0] = 0.3
    for _ in range(50):
        robot.step()
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(robot.state().position, data.qpos, rtol=1e-12)
    np.testing.assert_allclose(robot.state().velocity, data.qvel, rtol=1e-12)
    assert robot.time_s == pytest.approx(0.1)


def _pole_file() -> Path:
    import gymnasium

    return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "inverted_pendulum.xml"


def test_it_waits_until_it_is_told_something_and_makes_itself_safe_when_commands_stay_out(pole: Simulation) -> None:
    pole.reset()
    commands: dict[int, list[Drive | str]] = {10: [force(0.5)], 20: [force(0.5)], 120: [force(0.1)]}
    run, said = loop(pole, FakePort(commands), FakeTime(), timeout_s=0.1)
    report = run.run(0.3)
    said = [line for line in said if "fell" not in line]
    assert [line.split("s  ")[1] for line in said] == ["driven", "damped: no command for 100 ms", "driven"]
    at = [float(line.split()[0]) for line in said[:2]]  # ten steps after the warm-up; 100 ms after the second command
    assert at == pytest.approx([0.03, 0.15], abs=2.1e-3)
    assert (report.commands, report.damped, report.refused) == (3, 1, 0)
    assert float(pole._control[0, 0]) == 0.1


def test_a_damped_motor_exerts_no_force(pole: Simulation) -> None:
    pole.reset()
    pole.drive(force(1.0))
    pole.step()
    assert pole.state().torque[0] == 100.0  # its gear
    pole.damp()
    pole.step()
    assert pole.state().torque[0] == 0.0


def test_a_refused_command_is_told_once_counted_and_does_nothing(pole: Simulation) -> None:
    pole.reset()
    run, said = loop(pole, FakePort({1: ["the checksum is wrong"], 2: ["again"], 3: [force(0.2)]}), FakeTime())
    report = run.run(0.02)
    assert said[0].endswith("refuses a command: the checksum is wrong")
    assert len(said) == 2
    assert (report.commands, report.refused, report.why_refused) == (3, 2, "the checksum is wrong")


def test_time_that_the_machine_takes_is_caught_up_if_short_and_lost_if_long(pole: Simulation) -> None:
    pole.reset()
    port = FakePort()
    run, _ = loop(pole, port, FakeTime({100: 0.05, 400: 0.7}))
    report = run.run(1.0)
    assert report.simulated_s == pytest.approx(1.0)
    assert report.lost_s == pytest.approx(0.7, abs=0.01)
    assert report.wall_s == pytest.approx(1.7, abs=0.01)
    assert report.latest_s == pytest.approx(0.7, abs=0.01)
    assert len(port.published) == 500
    assert "(59.0%), 0.70 s lost" in report.lines()[0]


def test_messages_are_lost_as_often_as_the_world_says(tmp_path: Path) -> None:
    (tmp_path / "lossy.yaml").write_text(
        "tasks: '*'\nrandomization:\n  parameters:\n    action_dropout: {range: [0.5, 0.5]}\n"
        "    observation_dropout: {range: [0.2, 0.2]}\n"
    )
    robot = Simulation(POLE, str(tmp_path / "lossy.yaml"))
    port = FakePort({i: [force(0.0)] for i in range(500)})
    report = loop(robot, port, FakeTime())[0].run(1.0)
    assert report.lost_commands == pytest.approx(250, abs=45)  # four standard deviations
    assert report.lost_states == pytest.approx(100, abs=36)
    assert len(port.published) == 500 - report.lost_states


@pytest.mark.parametrize(
    ("task", "world", "said"),
    [
        ("FetchReach-v4", None, "moved by mocap_pos, mocap_quat"),
        ("Pole-v5", None, "unknown task"),
        (POLE, "late", "no such world"),
        (POLE, "action_noise", "is of a policy's actions, which a robot does not see"),
    ],
)
def test_what_cannot_be_played_is_refused(task: str, world: str | None, said: str, tmp_path: Path) -> None:
    if world == "action_noise":
        path = tmp_path / "noisy.yaml"
        path.write_text("randomization:\n  parameters:\n    action_noise: {range: [0.1, 0.1]}\n")
        world = str(path)
    with pytest.raises(Exception, match=said) as caught:
        Simulation(task, world)
    assert "\n" not in str(caught.value)


def test_what_really_happened_is_written(pole: Simulation, tmp_path: Path) -> None:
    pole.reset()
    run, _ = loop(pole, FakePort(), FakeTime(), record=True)
    run.run(0.1)
    run.save(tmp_path / "truth.npz")
    with np.load(tmp_path / "truth.npz") as truth:
        assert truth["wall"].shape == truth["fastest_joint"].shape == (50,)
        assert set(truth["mode"]) == {0.0}
    with pytest.raises(UserError, match="cannot be written"):
        run.save(tmp_path / "no" / "truth.npz")


def test_an_attitude_shows_the_gravity_that_its_sensor_measured_and_keeps_its_heading() -> None:
    turn = matrix(np.array([0.8, 0.1, -0.2, 0.55]) / np.linalg.norm([0.8, 0.1, -0.2, 0.55]))
    down = np.array([0.3, -0.2, -0.9])
    seen = _tilted(turn, down)
    np.testing.assert_allclose(seen @ seen.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(-seen[2], down / np.linalg.norm(down), atol=1e-12)
    np.testing.assert_allclose(_tilted(turn, -turn[2]), turn, atol=1e-12)


@needs(GO1)
def test_servos_do_what_gains_targets_and_torques_of_a_command_say() -> None:
    robot = Simulation("go1", seed=1)
    generator = np.random.default_rng(0)
    now = robot.state()
    drive = Drive(now.position + generator.uniform(-0.1, 0.1, 12), generator.uniform(-1, 1, 12),
                  generator.uniform(-2, 2, 12), generator.uniform(10, 40, 12),
                  generator.uniform(0.1, 1, 12))  # fmt: skip
    assert drive.stiffness is not None
    assert drive.damping is not None
    drive.stiffness[3:6] = 0.0  # and torques alone, without any target
    for _ in range(3):
        q, qd = robot._pos[7:19].copy(), robot._vel[6:18].copy()
        robot.drive(drive)
        robot.step()
        wanted = drive.stiffness * (drive.position - q) + drive.damping * (drive.velocity - qd) + drive.torque
        np.testing.assert_allclose(robot.state().torque, wanted, atol=1e-9)


@needs(GO1)
def test_a_go1_stands_alone_falls_when_damped_and_shows_its_attitude() -> None:
    robot = Simulation("go1", "motor_fade", seed=1)
    for _ in range(250):
        robot.step()
    assert robot.truth()["height"] > 0.15
    assert not robot.fell
    state = robot.state()
    assert state.orientation is not None
    np.testing.assert_allclose(matrix(state.orientation) @ state.acceleration, [0.0, 0.0, 9.81], atol=0.5)
    robot.damp()
    for _ in range(500):
        robot.step()
    assert robot.fell
    assert robot.truth()["height"] < 0.15
