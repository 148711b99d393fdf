"""Logs of a Go1 that is another process, with one fault each and without any, and what `simreal audit` says of them.

    python -m benchmarks.audit_process everything BUNDLE FOLDER [--also BUNDLE ...] [--inside BUNDLE ...] [--json FILE]
    python -m benchmarks.audit_process record BUNDLE FOLDER [--seed S] [--faults] [--clean N] [--fifo]
    python -m benchmarks.audit_process simulate BUNDLE FOLDER [--seed S] [--clean N]
    python -m benchmarks.audit_process audit FOLDER ... [--json FILE]

`everything` does the other three: twelve faults and four sound logs of a Go1's bundle, four sound ones of each further
one (`--also`), and of policies of other robots in their simulation (`--inside`), by a seed that nobody has seen.

`record` starts a robot process for each log and a `simreal.deploy.Controller` in this one; they know each other through
messages only, in real time, over ROS 2 or Unitree's. Every fault is in the robot or in its driver, before the messages
are made (half the rate of the policy in the controller), so that the policy acts on it and the robot falls if it must.
Kinds are the twelve of `audit_faults`; components, joints, sizes, protocol, world and kind of log are drawn by the
seed. The controller's limits are open: with its usual ones it refuses or stops half of these robots. `audit` gives each
log to `simreal audit` as it is, and compares what is said first with what is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.robot_process import LIMITS, WORLD, connect
from simreal.audit.findings import Finding
from simreal.deploy import Controller, Limits, Policy
from simreal.robot.process.ports import Port, make_port
from simreal.robot.process.simulation import Drive, Simulation, State
from simreal.robot.sources import matrix

Numbers = NDArray[np.float64]
SECONDS, CHANGE_S = 20.0, 4.0
DEGREES = 180.0 / np.pi


@dataclass(frozen=True)
class Case:
    """One log.

    Attributes:
        kind: of fault, "" for none.
        signals: what it spoils: of "position", "velocity", "gyro", "orientation", "commands".
        elements: joints (or axes of the gyroscope) that it spoils; () for all.
        value: factor, shift, seconds, share, or Hz.
        port, world, log: protocol, world file or "", ending of the log ("" for a rosbag2 directory).
        commands: "constant" or "changing".
        seed: of the robot and of the commands.
    """

    kind: str
    signals: tuple[str, ...] = ()
    elements: tuple[int, ...] = ()
    value: float = 0.0
    port: str = "ros2"
    world: str = ""
    log: str = ".npz"
    commands: str = "changing"
    seed: int = 0


class FaultyPort:
    """The driver of a robot with a fault.

    Args:
        port: the right one.
        robot: behind it.
        case: the fault; joints in the order of `robot.driven`.
    """

    def __init__(self, port: Port, robot: Simulation, case: Case) -> None:
        self.topics, self._port, self._robot, self._case = port.topics, port, robot, case
        self._joints = [robot.joints.index(name) for name in robot.driven]
        self._chance = np.random.default_rng(case.seed + 1)
        self._past: deque[State] = deque(
            maxlen=1 + round(max(case.value, 0.0) / robot.timestep_s) if case.kind == "lag" else 1
        )
        self._kept: State | None = None
        self._count = 0

    def commands(self) -> list[Drive | str]:
        """Commands as the motors understand them."""
        found, case = self._port.commands(), self._case
        if case.kind == "loss" and "commands" in case.signals:
            found = [command for command in found if self._chance.random() >= case.value]
        if case.kind == "gains":
            return [c if isinstance(c, str) else self._stiffer(c) for c in found]
        return found

    def _stiffer(self, drive: Drive) -> Drive:
        kp = self._robot.stiffness if drive.stiffness is None else drive.stiffness
        kd = self._robot.damping if drive.damping is None else drive.damping
        return replace(drive, stiffness=self._case.value * kp, damping=self._case.value * kd)

    def publish(self, state: State, wall_s: float, time_s: float) -> None:
        """Tell what the sensors show, as this driver does."""
        case = self._case
        self._past.append(state)
        self._count += 1
        if (
            case.kind == "rate"
            and "states" in case.signals
            and self._count % round(1.0 / case.value / self._robot.timestep_s)
        ):
            return
        if case.kind == "loss" and "states" in case.signals:
            every = round(0.02 / self._robot.timestep_s)
            if self._count % every or self._chance.random() < case.value:
                return
        self._port.publish(self._spoilt(state, time_s), wall_s, time_s)

    def _spoilt(self, state: State, time_s: float) -> State:
        case, changed = self._case, dict[str, Any]()
        if case.kind in ("", "gains", "rate", "loss"):
            return state
        if case.kind == "frozen" and (time_s < case.value or self._kept is None):
            self._kept = state
            return state
        for name in case.signals:
            value = np.array(getattr(state, name))
            other = getattr(self._past[0] if case.kind == "lag" else self._kept, name, value)
            changed[name] = self._value(name, value, np.array(other), state)
        return replace(state, **changed)

    def _value(self, name: str, value: Numbers, other: Numbers, state: State) -> Numbers:
        case, out = self._case, value.copy()
        at = [self._joints[i] for i in case.elements] if name in ("position", "velocity") else list(case.elements)
        at = at or list(range(len(value)))
        if case.kind == "permuted":
            out[at] = value[at[::-1]]
        elif case.kind == "sign":
            out[at] *= -1.0
        elif case.kind in ("scale", "degrees"):
            out[at] *= case.value
        elif case.kind == "offset":
            out[at] += case.value
        elif case.kind in ("lag", "frozen"):
            out[at] = other[at]
        elif case.kind == "quaternion_order":
            out = value[[1, 2, 3, 0]]  # w, x, y, z that are taken for x, y, z, w and put into w, x, y, z
        elif case.kind == "frame":
            assert state.orientation is not None
            out = matrix(state.orientation) @ value
        return out


def cases_of(seed: int) -> list[Case]:
    """The twelve faults, drawn by a seed."""
    rng = np.random.default_rng(seed)
    pick = lambda *options: options[int(rng.integers(len(options)))]  # noqa: E731
    joint = lambda: (int(rng.integers(12)),)  # noqa: E731
    both, one, imu = ("position", "velocity"), pick(("position",), ("velocity",)), ("gyro", "orientation")
    faults: list[Case] = [
        Case("permuted", pick(both, one), tuple(int(j) for j in rng.choice(12, 2, replace=False))),
        pick(Case("sign", both, joint()), Case("sign", ("gyro",), (int(rng.integers(3)),))),
        Case("degrees", pick(both, ("gyro",), ("position",)), (), DEGREES),
        Case("quaternion_order", ("orientation",)),
        Case("frame", ("gyro",)),
        Case("scale", (pick("velocity", "gyro", "position"),), (), 0.5),
        Case("offset", ("position",), joint(), float(pick(-1, 1) * rng.uniform(0.15, 0.35))),
        Case("lag", pick(both, ("gyro",), ("position",), ("velocity",), (*both, *imu)), (), 0.04),
        Case("loss", (pick("commands", "states"),), (), 0.1),
        pick(
            Case("frozen", (pick("gyro", "position", "orientation"),), (), float(rng.uniform(3.0, 8.0))),
            Case("frozen", ("position",), joint(), float(rng.uniform(3.0, 8.0))),
        ),
        Case("gains", (), (), 2.0),
        Case("rate", (pick("policy", "states"),), (), 25.0),
    ]
    return [around(case, rng) for case in faults]


def around(case: Case, rng: np.random.Generator) -> Case:
    """The protocol, the world, the kind of log and the commands of a log."""
    pick = lambda *options: options[int(rng.integers(len(options)))]  # noqa: E731
    return replace(
        case, port=pick("ros2", "unitree"), world=pick("", str(WORLD)), log=pick(".npz", ".mcap", ""),
        commands=pick("constant", "changing"), seed=int(rng.integers(10**6)),
    )  # fmt: skip


def be_robot(case: Case, domain: int) -> None:
    """The robot's process, until SIGINT."""
    import torch

    from simreal.robot.dds import Bus
    from simreal.robot.process.loop import Loop

    torch.set_num_threads(1)
    robot = Simulation("go1", case.world or None, case.seed)
    port = FaultyPort(make_port(case.port, robot, Bus(domain, "lo")), robot, case)
    loop = Loop(robot, port, 0.1, case.seed, lambda text: None)
    report = loop.run()
    print(json.dumps(asdict(report)), flush=True)


@contextmanager
def robot_process(case: Case, domain: int, found: dict[str, Any]) -> Iterator[None]:
    """A robot of its own; `found` gets what it says at its end."""
    text = json.dumps(asdict(case))
    arguments = [sys.executable, "-m", "benchmarks.audit_process", "robot", text, "--domain", str(domain)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            if process.poll() is None:
                process.send_signal(2)
            said, _ = process.communicate(timeout=60)
            if said.strip():
                found.update(json.loads(said.splitlines()[-1]))


def record(bundle: Path, case: Case, target: Path, domain: int, seconds: float = SECONDS) -> dict[str, Any]:
    """Let a bundle walk through messages, and record it. Returns how time went."""
    policy, about = Policy.load(bundle), dict[str, Any]()
    if case.kind == "rate" and "policy" in case.signals:
        policy.control_period_s = 1.0 / case.value
    rng, began = np.random.default_rng(case.seed), list[float]()
    wanted = LIMITS * rng.uniform(-1.0, 1.0, (1 + int(seconds / CHANGE_S), 3))

    def command(_: Any) -> Numbers:
        if controller.state != "running":
            return np.zeros(3)
        if not began:
            began.append(time.monotonic())
        at = 0 if case.commands == "constant" else int((time.monotonic() - began[0]) / CHANGE_S)
        return wanted[min(at, len(wanted) - 1)]

    with robot_process(case, domain, about):
        robot = connect(case.port, policy.contract, domain)
        far = {part["name"]: (-1e4, 1e4) for part in policy.contract["observation"]}
        starts = {part["name"]: (-1e4, 1e4) for part in policy.contract["action"]}
        quick = {part["name"]: 1e6 for part in policy.contract["action"]}
        limits = Limits(sensors=far, start=starts, start_s=0.0, start_speed=quick, deadline_s=1.0)
        controller = Controller(
            policy, robot, inputs={"command": command}, record=target, limits=limits,
            safe="damp" if case.port == "unitree" else "hold",
        )  # fmt: skip
        report = controller.run(seconds)
    times = report["times_s"]["read_decide_write"]
    return {
        "cycles": report["cycles"], "overruns": report["overruns"], "skipped": report["skipped"],
        "p50_ms": 1e3 * times["p50"], "p99_ms": 1e3 * times["p99"], "falls": about.get("falls"),
        "real_time": about.get("simulated_s", 0.0) / max(about.get("wall_s", 0.0), 1e-9),
        "events": [f"{e['kind']} {e['component']} {e['text']}" for e in report["events"]], "load": os.getloadavg()[0],
    }  # fmt: skip


def record_all(options: argparse.Namespace) -> None:
    """Record all logs of a seed; `cases.json` in the folder says what is wrong with each."""
    rng = np.random.default_rng([options.seed, 1])
    cases = [around(Case(""), rng) for _ in range(options.clean)] + (cases_of(options.seed) if options.faults else [])
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.fifo:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))
    index = options.folder / "cases.json"
    done: dict[str, Any] = json.loads(index.read_text()) if index.exists() else {}
    if options.constant:  # the hardest: a gait that repeats itself
        cases = [replace(case, commands="constant", world="") for case in cases]
    clean = 0
    for case in cases:
        name = case.kind or f"clean{clean}"
        clean += not case.kind
        if name in done or (options.only and name not in options.only):
            continue
        target = options.folder / f"{name}{case.log}"
        timing = record(options.bundle, case, target, options.domain, options.seconds)
        done[name] = {"file": target.name, "bundle": str(options.bundle), "case": asdict(case), "timing": timing}
        index.write_text(json.dumps(done, indent=1))
        print(
            f"{name}: {timing['cycles']} cycles, {timing['overruns']} overruns, real time {timing['real_time']:.1%}",
            flush=True,
        )


def simulate_all(options: argparse.Namespace) -> None:
    """Sound logs of a policy whose robot no joint commands drive, or that falls while it waits: played in here."""
    from benchmarks.audit_faults import Fault, play, write

    index = options.folder / "cases.json"
    done: dict[str, Any] = {}
    logs = play(options.bundle, [Fault()] * options.clean, options.seconds, options.seed)
    for number, arrays in enumerate(logs):
        name = f"clean{number}"
        write(options.folder, name, arrays)
        case = asdict(Case("", port="in process", world="trained", seed=options.seed))
        done[name] = {"file": f"{name}.npz", "bundle": str(options.bundle), "case": case, "timing": {}}
    index.write_text(json.dumps(done, indent=1))


COMPONENTS = {
    "position": "joint_pos", "velocity": "joint_vel", "gyro": "gyro", "orientation": "projected_gravity",
    "commands": "joint_target",
}  # fmt: skip


def right(case: Case, finding: Finding) -> bool:
    """Whether a finding names a fault: its kind, what it spoils, and how much of it."""
    if finding.kind != case.kind:
        return False
    named, figures = set(finding.components), finding.figures
    spoilt = {COMPONENTS[name] for name in case.signals if name in COMPONENTS}
    if case.kind == "gains":
        return 1.4 < figures["factor"] < 2.8
    if case.kind == "rate":
        return abs(figures["rate_hz"] - case.value) < 1.0 and bool(named) == ("states" in case.signals)
    if case.kind == "loss":
        there = named == spoilt if spoilt else len(named) == 4
        return there and abs(figures["share"] - case.value) < 0.05
    if case.kind == "lag":
        # of joints and IMU together it may be what is sent; both are then said
        return (
            abs(figures["lag_ms"] - 1e3 * case.value) < 15.0
            and spoilt <= named
            and (len(spoilt) > 1 or named == spoilt)
        )
    if named != spoilt or (case.elements and set(finding.elements) != set(case.elements)):
        return False
    if case.kind == "scale":
        return abs(figures["factor"] - case.value) < 0.1
    return case.kind != "offset" or abs(figures["offset"] - case.value) < 0.12


def audit_all(options: argparse.Namespace) -> None:
    """Audit recorded logs, compare, print a table and write JSON."""
    from simreal.audit import audit

    rows: list[dict[str, Any]] = []
    for folder in options.folders:
        known: dict[str, Any] = json.loads((folder / "cases.json").read_text())
        for name, entry in known.items():
            fields = {key: tuple(value) if isinstance(value, list) else value for key, value in entry["case"].items()}
            case = Case(**fields)
            began = time.process_time()
            found = audit(entry["bundle"], folder / entry["file"])
            named = bool(case.kind and found.findings) and right(case, found.findings[0])
            rows.append(
                {
                    "folder": folder.name, "name": name, "case": asdict(case), "timing": entry["timing"],
                    "findings": [{"kind": f.kind, "text": f.text, "evidence": f.evidence} for f in found.findings],
                    "right": named if case.kind else not found.findings,
                    "further": sum(f.kind != case.kind for f in found.findings), "seconds": time.process_time() - began,
                    "not_judged": found.document()["not_judged"],
                }
            )  # fmt: skip
            row = rows[-1]
            said = "; ".join(f.text for f in found.findings) or "nothing is wrong"
            what = f"{case.kind or 'sound'} {', '.join(case.signals)} {list(case.elements) or ''} {case.value or ''}"
            around = f"{case.port}, {'noisy' if case.world else 'nominal'}, {case.commands}"
            print(f"| {what} | {around} | {said} | {'yes' if row['right'] else 'no'} |", flush=True)
    faulty, sound = ([row for row in rows if bool(row["case"]["kind"]) == some] for some in (True, False))
    print(f"faults named rightly: {sum(r['right'] for r in faulty)} of {len(faulty)}, with something else beside "
          f"{sum(r['right'] and r['further'] > 0 for r in faulty)}; sound logs of which nothing is said: "
          f"{sum(r['right'] for r in sound)} of {len(sound)}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def everything(options: argparse.Namespace) -> None:
    """Record all of it by a new seed, then audit all of it."""
    import secrets

    options.folders, seed = [], secrets.randbelow(10**6)
    steps = [(options.bundle, record_all, True), *((bundle, record_all, False) for bundle in options.also or [])]
    steps += [(bundle, simulate_all, False) for bundle in options.inside or []]
    for number, (bundle, make, faults) in enumerate(steps):
        folder = options.folder / f"{number}-{bundle.parent.name}"
        options.folders.append(folder)
        fields = vars(options) | {"bundle": bundle, "folder": folder, "faults": faults, "seed": seed + number}
        make(argparse.Namespace(**fields))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    print(f"seed {seed}")
    audit_all(options)


def main() -> None:
    """Record, or audit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work = parser.add_subparsers(dest="work", required=True)
    whole = work.add_parser("everything")
    whole.add_argument("--also", type=Path, action="append")
    whole.add_argument("--inside", type=Path, action="append")
    whole.set_defaults(clean=4, only=None, constant=False)
    making, playing = work.add_parser("record"), work.add_parser("simulate")
    for part in (whole, making, playing):
        part.add_argument("bundle", type=Path)
        part.add_argument("folder", type=Path)
        part.add_argument("--seconds", type=float, default=SECONDS)
        if part is not whole:
            part.add_argument("--seed", type=int, default=0)
            part.add_argument("--clean", type=int, default=0 if part is making else 4)
        if part is not playing:
            part.add_argument("--fifo", action="store_true")
            part.add_argument("--domain", type=int, default=97)
    making.add_argument("--constant", action="store_true", help="one command for all, in the nominal world")
    making.add_argument("--faults", action="store_true")
    making.add_argument("--only", action="append")
    being = work.add_parser("robot")
    being.add_argument("case", type=json.loads)
    being.add_argument("--domain", type=int)
    judging = work.add_parser("audit")
    judging.add_argument("folders", type=Path, nargs="+")
    for part in (whole, judging):
        part.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.work == "robot":
        case = {key: tuple(value) if isinstance(value, list) else value for key, value in options.case.items()}
        be_robot(Case(**case), options.domain)
        return
    works = {"everything": everything, "record": record_all, "simulate": simulate_all, "audit": audit_all}
    works[options.work](options)


if __name__ == "__main__":
    main()
