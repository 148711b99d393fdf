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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.faulty_robots import Case, FaultyPort, around, cases_of
from benchmarks.robot_process import LIMITS, connect
from simreal.audit.findings import Finding
from simreal.deploy import Controller, Limits, Policy
from simreal.robot.process.ports import make_port
from simreal.robot.process.simulation import Simulation

Numbers = NDArray[np.float64]
SECONDS, CHANGE_S = 20.0, 4.0


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
            case = Case.of(entry["case"])
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
            said = "; ".join(f.text for f in found.findings) or "nothing is wrong"
            what = f"{case.kind or 'sound'} {', '.join(case.signals)} {list(case.elements) or ''} {case.value or ''}"
            around = f"{case.port}, {'noisy' if case.world else 'nominal'}, {case.commands}"
            print(f"| {what} | {around} | {said} | {'yes' if rows[-1]['right'] else 'no'} |", flush=True)
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
        be_robot(Case.of(options.case), options.domain)
        return
    works = {"everything": everything, "record": record_all, "simulate": simulate_all, "audit": audit_all}
    works[options.work](options)


if __name__ == "__main__":
    main()
