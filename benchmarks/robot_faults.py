"""What a walking Go1 does when something goes wrong: time until it is safe, its height, the speed of its joints.

    python -m benchmarks.robot_faults BUNDLE [--repeats 3] [--port ros2] [--port unitree] [--fifo] [--json FILE]

The robot and the controller are processes of their own. Faults, 2 s after the policy took over, at 0.5 m/s:
messages stop; one value is NaN; the controller loses 100 ms; it is stopped by SIGSTOP for 300 ms; it is killed. In
the first three the time is from the fault to the controller's first safe command. In the others the robot is on its
own: the time is until its motors damp (100 ms after the last command), and for SIGSTOP also from SIGCONT to the safe
command.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robot_process import connect, robot_process
from simreal.deploy import Controller, Policy, Reading

FAULTS = ("messages stop", "NaN", "stall 100 ms", "SIGSTOP 300 ms", "killed")
WALK_S, AFTER_S = 2.0, 2.0


class Faulty:
    """A robot whose messages, or whose controller, go wrong at a time; notes when it is made safe.

    Args:
        robot: the true one.
        fault: one of `FAULTS`.
    """

    def __init__(self, robot: Any, fault: str) -> None:
        self.robot, self.fault, self.due = robot, fault, float("inf")
        self.began: float | None = None
        self.safe_at: list[float] = []
        self.kept: Reading | None = None

    def read(self) -> Reading:
        """The newest messages, or what the fault leaves of them."""
        reading = self.robot.read()
        if time.monotonic() < self.due:
            self.kept = reading
            return reading
        first = self.began is None
        if first:
            self.began = time.time()
            print(json.dumps({"began": self.began}), flush=True)
        if self.fault == "messages stop":
            assert self.kept is not None
            return self.kept
        if self.fault == "stall 100 ms" and first:
            time.sleep(0.1)
        if self.fault == "NaN" and first:
            spoilt = np.array(reading.values["joint_vel"])
            spoilt[4] = np.nan
            return Reading(
                {**reading.values, "joint_vel": spoilt}, reading.stamps, reading.positions, reading.velocities
            )
        return reading

    def write(self, targets: Any) -> None:
        """Pass on."""
        self.robot.write(targets)

    def safe(self, action: Any) -> None:
        """Pass on, and note when."""
        self.robot.safe(action)
        if self.began is not None:
            self.safe_at.append(time.time())


def work(options: argparse.Namespace) -> None:
    """The controller's process."""
    policy = Policy.load(options.bundle)
    robot = Faulty(connect(options.worker, policy.contract, options.domain), options.fault)
    safe = "damp" if options.worker == "unitree" else "hold"

    def command(_: Any) -> np.ndarray:
        if controller.state == "running" and robot.due == float("inf"):
            robot.due = time.monotonic() + WALK_S
        return np.array([0.5, 0.0, 0.0])

    controller = Controller(policy, robot, inputs={"command": command}, safe=safe)
    controller.run(WALK_S + AFTER_S)
    events = [f"{e.kind} {e.component} {e.text}" for e in controller.events]
    print(json.dumps({"began": robot.began, "safe": robot.safe_at[:1], "events": events}), flush=True)


def once(options: argparse.Namespace, port: str, fault: str) -> dict[str, Any]:
    """One run with a fault."""
    log = Path(tempfile.mkdtemp()) / "truth.npz"
    more = ["--worker", port, "--fault", fault, "--domain", str(options.domain)]
    arguments = [sys.executable, "-m", "benchmarks.robot_faults", str(options.bundle), *more]
    continued = 0.0
    piped = subprocess.PIPE
    with robot_process(port, log, options.domain), subprocess.Popen(arguments, stdout=piped, text=True) as worker:
        assert worker.stdout is not None
        began = json.loads(worker.stdout.readline())["began"]
        if fault.startswith("SIGSTOP"):
            worker.send_signal(signal.SIGSTOP)
            time.sleep(0.3)
            worker.send_signal(signal.SIGCONT)
            continued = time.time()
        if fault == "killed":
            worker.kill()
            time.sleep(AFTER_S)
        said, _ = worker.communicate(timeout=60)
    truth = np.load(log)
    after = (truth["wall"] >= began) & (truth["wall"] < began + AFTER_S)
    damped = truth["wall"][after & (truth["mode"] == 2)]
    found: dict[str, Any] = {
        "robot_damped_ms": float(damped[0] - began) * 1e3 if len(damped) else None,
        "height_min_m": float(truth["height"][after].min()), "fell": bool(truth["fell"][after].any()),
        "fastest_joint_rad_s": float(truth["fastest_joint"][after].max()),
        "before_rad_s": float(truth["fastest_joint"][(truth["wall"] < began) & (truth["wall"] > began - 1.0)].max()),
    }  # fmt: skip
    if fault != "killed":
        about = json.loads(said.splitlines()[-1])
        start = continued or began
        found |= {"safe_ms": (about["safe"][0] - start) * 1e3 if about["safe"] else None, "events": about["events"]}
    return found


def spread(values: list[float | None], digits: int = 0) -> str:
    """Median and the ends of what was seen."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{np.median(known):.{digits}f} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def main() -> None:
    """Run all faults and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--port", action="append", choices=("ros2", "unitree"))
    parser.add_argument("--domain", type=int, default=93)
    parser.add_argument("--fifo", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--fault", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    if options.fifo:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))
    found: dict[str, Any] = {}
    for port in options.port or ("ros2", "unitree"):
        for fault in FAULTS:
            found[f"{port}, {fault}"] = [once(options, port, fault) for _ in range(options.repeats)]
    print("| | controller's safe command after, ms | robot's own damping after, ms | lowest trunk, m | "
          "fastest joint, rad/s (in the second before) | falls |\n|---|---|---|---|---|---|")  # fmt: skip
    for name, runs in found.items():
        before = max(run["before_rad_s"] for run in runs)
        cells = [
            spread([run.get("safe_ms") for run in runs], 1),
            spread([run["robot_damped_ms"] for run in runs]),
            spread([run["height_min_m"] for run in runs], 2),
            f"{spread([run['fastest_joint_rad_s'] for run in runs], 1)} ({before:.1f})",
            f"{sum(run['fell'] for run in runs)}/{len(runs)}",
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
