"""A controller keeps time, ends in the safe action, and says what is unlike training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simreal.deploy import Limits, Policy, Reading
from toy_arm import PERIOD, arm_bundles, control, kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return arm_bundles(tmp_path_factory)


@pytest.fixture
def smooth(folder: Path) -> Policy:
    return Policy.load(folder / "smooth")


def outside_of_training(contract: dict[str, Any]) -> dict[str, Any]:
    """A contract in which training saw positions within +-1."""
    part = contract["observation"][0]
    return contract | {"observation": [part | {"training_range": {"lower": [-1.0] * 3, "upper": [1.0] * 3}},
                                       *contract["observation"][1:]]}  # fmt: skip


# Time


def test_overruns_are_counted_and_the_rate_is_kept(smooth: Policy) -> None:
    controller, robot, clock = control(smooth, limits=Limits(start_s=0.0))
    count = 0

    def slow(reading: Reading) -> Reading:
        nonlocal count
        count += 1
        clock.now += 0.030 if 20 <= count < 30 else 0.001
        return replace(reading, stamps=dict.fromkeys(reading.values, clock.now))

    robot.change = slow
    report = controller.run(2.0)
    # Ten cycles of 30 ms: every other slot of 20 ms passes without one.
    assert report["overruns"] == 10
    assert report["skipped"] == 5
    assert report["cycles"] + report["skipped"] == pytest.approx(101, abs=1)
    begins = np.array([t for t, _ in robot.written[40:]]) - 50.001
    np.testing.assert_allclose(begins / PERIOD, np.round(begins / PERIOD), atol=1e-6)
    assert kinds(controller).count("overrun") == 1
    assert report["times_s"]["read"]["max"] == pytest.approx(0.03)


def test_a_step_that_comes_too_soon_is_none(smooth: Policy) -> None:
    controller, robot, clock = control(smooth, limits=Limits(start_s=0.0))
    controller.arm()
    for _ in range(100):
        controller.step()
        clock.now += 0.005
    assert len(robot.written) == pytest.approx(25, abs=9)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interrupt_ends_in_the_safe_action(number: int, error: type[BaseException], smooth: Policy) -> None:
    controller, robot, _clock = control(smooth)
    before = signal.getsignal(number)

    def interrupt(reading: Reading) -> Reading:
        if len(robot.written) == 7:
            os.kill(os.getpid(), number)
        return reading

    robot.change = interrupt
    with pytest.raises(error):
        controller.run()
    assert signal.getsignal(number) is before
    assert len(robot.written) == 8
    assert len(robot.made_safe) == 5
    assert robot.made_safe[0][0] - robot.written[-1][0] <= PERIOD
    assert kinds(controller)[-2:] == ["interrupted", "stopped"]


def test_an_interrupt_in_a_loop_of_ones_own_makes_the_robot_safe_too(smooth: Policy) -> None:
    controller, robot, clock = control(smooth)
    controller.arm()
    controller.step()

    def interrupt() -> Any:
        raise KeyboardInterrupt

    robot.read, clock.now = interrupt, clock.now + PERIOD
    with pytest.raises(KeyboardInterrupt):
        controller.step()
    assert (controller.state, len(robot.made_safe)) == ("stopped", 1)


def test_a_second_interrupt_ends_a_read_that_hangs(smooth: Policy) -> None:
    controller, robot, _ = control(smooth)

    def hang(reading: Reading) -> Reading:
        if len(robot.written) == 7:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("hangs")
        return reading

    robot.change = hang
    with pytest.raises(KeyboardInterrupt):
        controller.run()
    assert (len(robot.written), len(robot.made_safe)) == (7, 6)
    assert controller.state == "stopped"


def test_run_keeps_a_stopped_robot_safe_until_its_time_is_over(smooth: Policy) -> None:
    controller, robot, _clock = control(smooth, safe="hold")
    robot.change = lambda reading: reading if len(robot.written) < 3 else 1 / 0
    controller.run(1.0)
    assert len(robot.written) == 3
    assert {action for _, action in robot.made_safe} == {"hold"}
    assert len(robot.made_safe) == pytest.approx(55, abs=2)
    assert kinds(controller)[2:] == ["read_failed", "stopped"]
    assert controller.state == "stopped"
    assert "ZeroDivisionError" in controller.events[2].text


def test_a_robot_that_cannot_be_made_safe_is_asked_again_and_again(smooth: Policy) -> None:
    controller, robot, _clock = control(smooth)
    robot.change = lambda reading: reading if len(robot.written) < 3 else 1 / 0
    asked = 0

    def safe(action: str) -> None:
        nonlocal asked
        asked += action == "damp"
        raise OSError("bus")

    robot.safe = safe  # type: ignore[method-assign]
    controller.run(1.0)
    assert asked > 50
    assert kinds(controller).count("safe_failed") == 1


# What is unlike training


def test_latency_is_compared_with_that_of_training(smooth: Policy) -> None:
    controller, robot, clock = control(smooth)

    def old(reading: Reading) -> Reading:
        return replace(reading, stamps=dict.fromkeys(reading.values, clock.now - 0.034))

    robot.change = old
    report = controller.run(2.0)
    told = [(event.component, event.text) for event in controller.events if event.kind == "latency"]
    assert told == [("joint_pos", "34 ms measured, trained 0 to 20")]  # those of joint_vel were up to 40 + 20 late
    assert report["trained_latency_s"] == {"joint_pos": [0.0, 0.02], "joint_vel": [0.0, 0.06]}
    assert report["times_s"]["latency"]["p50"] == pytest.approx(0.034)


def test_the_envelope_counts_where_it_was_measured(smooth: Policy) -> None:
    smooth.contract = smooth.contract | {"envelope": {"box": {"ranges": {"lag": [0.0, 10.0], "slow": [0.0, 20.0]}}}}
    controller, robot, clock = control(smooth)
    robot.change = lambda reading: replace(reading, stamps=dict.fromkeys(reading.values, clock.now - 0.018))
    controller.run(2.0)
    told = [(event.component, event.text) for event in controller.events if event.kind == "latency"]
    assert told == [("joint_pos", "18 ms measured, trained 0 to 20, works with 0 to 10 (envelope)")]


def test_what_is_out_of_training_is_told_once_until_it_is_back(smooth: Policy) -> None:
    smooth.contract = outside_of_training(smooth.contract)
    shown = [0.0]
    controller, robot, clock = control(smooth, limits=Limits(start_s=0.0))
    robot.change = lambda reading: replace(reading, values={**reading.values, "joint_pos": [0.0, shown[0], 0.0]})
    controller.arm()
    for i in range(400):
        shown[0] = 0.9 + (0.2 * (i % 10 == 0)) if i < 100 else 1.2 if i < 200 else 0.5
        controller.step()
        clock.now += PERIOD
    told = [event for event in controller.events if "training" in event.kind]
    assert [event.kind for event in told] == ["out_of_training", "back_in_training"]  # a tenth of the time is no reason
    assert told[0].component == "joint_pos"
    assert told[0].text == "element 'pitch' is 1.2, trained -1 to 1"
    assert 2.2 < told[0].t < 2.6
    assert 4.5 < told[1].t < 5.5


def test_out_of_training_stops_the_robot_where_that_is_wanted(smooth: Policy) -> None:
    smooth.contract = outside_of_training(smooth.contract)
    controller, robot, _ = control(smooth, limits=Limits(start_s=0.0, stop_out_of_training=True))
    robot.change = lambda reading: replace(reading, values={**reading.values, "joint_pos": [0.0, 2.5, 0.0]})
    controller.run(0.2)
    assert kinds(controller)[3:5] == ["out_of_training", "stopped"]
    assert len(robot.written) == 6  # 2.5 half-widths away: 2.5 / 25, and so on, until the mean exceeds 0.5


_CHILD = """
import sys, time
from simreal.deploy import Controller, Limits, Policy
from toy_robot import ToyRobot
policy = Policy.load(sys.argv[1])
robot = ToyRobot(policy, time.monotonic, {"joint_target": [0.0, 0.0, 0.0]})
write = robot.write
robot.write = lambda targets: (print("write", time.monotonic(), flush=True), write(targets))
robot.safe = lambda action: print("safe", time.monotonic(), flush=True)
Controller(policy, robot, inputs={"wanted": [0.3]}, limits=Limits(start_s=0.1)).run(2.0)
"""


@pytest.mark.slow
def test_a_process_that_was_stopped_sends_nothing_but_the_safe_action_when_it_goes_on(folder: Path) -> None:
    support = Path(__file__).resolve().parents[1] / "support"
    paths = os.pathsep.join([str(support.parents[1]), str(support), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", _CHILD, str(folder / "smooth")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert child.stdout is not None
    begin = end = 0.0
    after: list[tuple[str, float]] = []
    for number, line in enumerate(child.stdout):
        what, at = line.split()
        if number == 40:
            begin = time.monotonic()
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(0.3)
            end = time.monotonic()
            os.kill(child.pid, signal.SIGCONT)
        elif begin and float(at) > begin:
            after.append((what, float(at) - end))
    assert child.wait() == 0
    assert {what for what, _ in after} == {"safe"}
    assert after[0][1] < 0.1  # 0.6 ms where nothing else runs
    assert len(after) > 20
