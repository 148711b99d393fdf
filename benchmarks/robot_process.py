"""A Go1 walks through messages: velocity errors and falls in the process robot, beside evaluation in the same world.

    python -m benchmarks.robot_process BUNDLE [--seconds 60] [--port ros2] [--port unitree] [--json FILE]

The robot is a process of its own (`simreal robot go1`) and is judged by what it says really happened; the controller is
`simreal.deploy.Controller` in this process. Commands are those of one list, one each 5 s; the evaluation plays the same
list in several environments of the same world. With `--fifo` robot and controller have real-time scheduling
(SCHED_FIFO, needs the right to it), so that a busy machine does not take their time. Intervals are 95 %, bootstrapped
over stretches of 5 s (Wilson's for falls).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simreal.deploy import Controller, Policy
from simreal.evaluation.intervals import bootstrap_ci, wilson
from simreal.evaluation.worlds import find_world
from simreal.robot.dds import Bus
from simreal.robot.ros2 import Ros2Robot
from simreal.robot.unitree import UnitreeRobot
from simreal.training.run_directory import load_policy

HERE = Path(__file__).resolve().parent
WORLD = HERE / "robot_world.yaml"
STRETCH_S, ENVIRONMENTS = 5.0, 8
LIMITS = np.array([1.0, 0.5, 1.0])  # of commands: forward, left (m/s), turning left (rad/s)


def commands(count: int, seed: int = 3) -> np.ndarray:
    """Commands [count, 3] as the task draws them: uniform, one in ten to stand."""
    generator = np.random.default_rng(seed)
    drawn = (2.0 * generator.random((count, 3)) - 1.0) * LIMITS
    return drawn * (generator.random((count, 1)) > 0.1)


@contextmanager
def robot_process(port: str, log: Path, domain: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A process robot that is ready; ended by SIGINT, after which `log` is there."""
    arguments = ["robot", "go1", "--port", port, "--domain", str(domain), "--interface", "lo", "--log", str(log), *more]
    with subprocess.Popen([sys.executable, "-m", "simreal", *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(2)
            said, _ = process.communicate(timeout=60)
            print("\n".join(f"    robot: {line}" for line in said.splitlines()[1:]))


def connect(port: str, contract: dict[str, Any], domain: int) -> Ros2Robot | UnitreeRobot:
    """The robot behind messages, as `simreal run` makes it."""
    bus = Bus(domain, "lo")
    if port == "unitree":
        return UnitreeRobot(contract, bus, shared_clock=True, wait_s=60.0)
    topics = {"joint_states": "/joint_states", "commands": "/commands", "imu": "/imu"}
    return Ros2Robot(contract, topics, bus, shared_clock=True, wait_s=60.0)


def through_messages(bundle: Path, port: str, wanted: np.ndarray, domain: int) -> dict[str, Any]:
    """Errors of each stretch of 5 s, falls and times of a walk through messages."""
    policy, log = Policy.load(bundle), Path(tempfile.mkdtemp()) / "truth.npz"
    began: list[float] = []

    def command(_: Any) -> np.ndarray:
        if controller.state != "running":
            return np.zeros(3)
        if not began:
            began.append(time.time())
        return wanted[min(int((time.time() - began[0]) / STRETCH_S), len(wanted) - 1)]

    with robot_process(port, log, domain, "--world", str(WORLD)):
        robot = connect(port, policy.contract, domain)
        safe = "damp" if port == "unitree" else "hold"
        controller = Controller(policy, robot, inputs={"command": command}, safe=safe)
        report = controller.run(STRETCH_S * len(wanted))
    print("\n".join(f"    controller: {event}" for event in controller.events))
    truth = np.load(log)
    stretch = np.floor((truth["wall"] - began[0]) / STRETCH_S).astype(int)
    linear, turning, fell = [], [], []
    for number, command_ in enumerate(wanted):
        rows = (stretch == number) & (truth["mode"] == 1)
        seen = {key: truth[key][rows] for key in ("forward", "left", "turn_left", "fell")}
        linear.append(np.hypot(seen["forward"] - command_[0], seen["left"] - command_[1]).mean())
        turning.append(np.abs(seen["turn_left"] - command_[2]).mean())
        fell.append(bool(seen["fell"].any()))
    about = dict(item.split("=", 1) for item in truth["report"].tolist())
    return {"linear": linear, "turning": turning, "fell": fell, "times_s": report["times_s"],
            "cycles": report["cycles"], "overruns": report["overruns"], "skipped": report["skipped"],
            "real_time": float(about["simulated_s"]) / float(about["wall_s"]), "lost_s": float(about["lost_s"]),
            "events": [f"{e['t']:.2f} {e['kind']} {e['component']} {e['text']}" for e in report["events"]]}  # fmt: skip


def in_process(bundle: Path, wanted: np.ndarray) -> dict[str, Any]:
    """The same for environments of the same world, which play the same commands."""
    policy = load_policy(bundle)
    environment = find_world(str(WORLD), policy).make_environment(policy, ENVIRONMENTS, seed=0)
    task: Any = environment.task
    steps = round(STRETCH_S / task.control_period_s)
    environment.max_episode_steps = 10**9
    task._draw_command = lambda mask, u: None
    observed = environment.reset()
    policy.reset(torch.ones(ENVIRONMENTS, dtype=torch.bool))
    linear, turning, fell = [], [], []
    for command in [np.zeros(3), *wanted]:  # the first stretch gets it walking, as the soft start does
        task.command_velocity.copy_(torch.as_tensor(command))
        sums: dict[str, Any] = {"linear_error": 0.0, "turning_error": 0.0, "fell": 0.0}
        for _ in range(steps):
            result = environment.step(policy.act(observed.policy))
            observed = result.observed
            policy.reset(result.done)
            sums = {key: total + result.terms[key] for key, total in sums.items()}
        linear.append((sums["linear_error"] / steps).tolist())
        turning.append((sums["turning_error"] / steps).tolist())
        fell.append((sums["fell"] > 0).tolist())
    flat = lambda rows: [value for row in rows[1:] for value in row]  # noqa: E731
    return {"linear": flat(linear), "turning": flat(turning), "fell": flat(fell)}


def line(name: str, found: dict[str, Any]) -> str:
    """One row of the table."""
    cells = []
    for key in ("linear", "turning"):
        low, high = bootstrap_ci(found[key])
        cells.append(f"{np.mean(found[key]):.3f} [{low:.3f}, {high:.3f}]")
    falls, count = sum(found["fell"]), len(found["fell"])
    low, high = wilson(falls, count)
    cells.append(f"{falls}/{count} [{low:.2f}, {high:.2f}]")
    times = found.get("times_s")
    if times:
        t = times["read_decide_write"]
        cells.append(f"{t['p50'] * 1e3:.2f} / {t['p99'] * 1e3:.2f}")
        cells.append(f"{found['overruns']} + {found['skipped']} of {found['cycles']}")
        cells.append(f"{found['real_time']:.1%}")
    return f"| {name} | {' | '.join(cells + ['-'] * (6 - len(cells)))} |"


def main() -> None:
    """Run all of it and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--port", action="append", choices=("ros2", "unitree"))
    parser.add_argument("--domain", type=int, default=90)
    parser.add_argument("--fifo", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = commands(round(options.seconds / STRETCH_S))
    found: dict[str, Any] = {"in process": in_process(options.bundle, wanted)}
    if options.fifo:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))
    for port in options.port or ("ros2", "unitree"):
        print(f"{port}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        found[port] = through_messages(options.bundle, port, wanted, options.domain) | {"load": os.getloadavg()}
    print("| | velocity error, m/s | turning error, rad/s | stretches with a fall | read-decide-write p50 / p99, ms | "
          "overruns + skipped | real time kept |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name, result in found.items():
        print(line(name, result))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
