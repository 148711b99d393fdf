"""Logs of robots with one fault each, and of sound ones, for `simreal audit`: a bundle plays in its simulation.

    python benchmarks/audit_faults.py BUNDLE FOLDER [--seconds 20] [--seed 0] [--clean 4] [--hang]

A fault sits where the robot's driver would have it, so that the policy acts on it, and the robot falls if it must. Each
log is an .npz as `simreal.common.logs` describes it; `faults.json` in the folder says what is wrong with each of them.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.common.spatial import quat_rotate, rotate_inverse
from simreal.deploy import Policy
from simreal.evaluation.worlds import find_world
from simreal.training.run_directory import load_policy

Numbers = NDArray[np.float64]
KINDS = (
    "permuted", "sign", "degrees", "quaternion_order", "frame", "scale", "offset", "lag", "loss", "frozen", "gains",
    "rate",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What is wrong with one robot: `kind` of KINDS or "" for nothing; `components` of the observation that it spoils,
    `elements` of these, `value` (factor, shift, steps late, share lost, s until it freezes)."""

    kind: str = ""
    components: tuple[str, ...] = ()
    elements: tuple[int, ...] = ()
    value: float = 0.0


@dataclass
class Robot:
    """One simulated robot as its controller sees it."""

    fault: Fault
    policy: Policy
    rng: np.random.Generator
    stamps_measured: bool
    past: list[dict[str, Numbers]] = field(default_factory=list)
    shown: dict[str, Numbers] = field(default_factory=dict)
    stamp: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    action: Numbers | None = None
    over: bool = False

    def read(self, now: float, true: dict[str, Numbers], quat: Numbers | None) -> dict[str, Numbers]:
        """What the driver gives at time `now` for what the sensors show [size] each."""
        fault, seen = self.fault, {name: value.copy() for name, value in true.items()}
        for name in fault.components:
            seen[name] = _spoilt(fault, seen[name], quat)
        self.past.append(seen)
        stamps = dict.fromkeys(seen, now)
        given = dict(seen)
        for name in fault.components:
            if fault.kind == "lag":
                given[name] = self._late(name, fault.value)
            lost = fault.kind == "loss" and self.rng.random() < fault.value
            frozen = fault.kind == "frozen" and now >= fault.value
            if name in self.shown and (lost or frozen):
                stamps[name] = self.stamp[name]
                chosen = list(fault.elements) or slice(None)
                given[name] = given[name].copy()
                given[name][chosen] = self.shown[name][chosen]
        self.shown, self.stamp = given, stamps
        return given

    def _late(self, name: str, steps: float) -> Numbers:
        whole, part = divmod(steps, 1.0)
        at = lambda back: self.past[max(len(self.past) - 1 - int(back), 0)][name]  # noqa: E731
        return (1.0 - part) * at(whole) + part * at(whole + 1)


def _spoilt(fault: Fault, value: Numbers, quat: Numbers | None) -> Numbers:
    """What a driver with a fault of values makes of a measurement."""
    chosen = list(fault.elements) or list(range(len(value)))
    out = value.copy()
    if fault.kind == "permuted":
        out[chosen] = value[chosen[::-1]]
    elif fault.kind == "sign":
        out[chosen] *= -1.0
    elif fault.kind == "degrees":
        out[chosen] *= 180.0 / math.pi
    elif fault.kind == "scale":
        out[chosen] *= fault.value
    elif fault.kind == "offset":
        out[chosen] += fault.value
    elif fault.kind in ("frame", "quaternion_order"):
        assert quat is not None
        down = np.array([0.0, 0.0, -1.0])
        if fault.kind == "quaternion_order":
            out += _turned(quat[[1, 2, 3, 0]], down, back=True) - _turned(quat, down, back=True)  # keeps the noise
        else:
            out = _turned(quat, value, back=False)
    return out


def _turned(quat: Numbers, vector: Numbers, back: bool) -> Numbers:
    turn = rotate_inverse if back else quat_rotate
    return turn(torch.from_numpy(quat[None].copy()), torch.from_numpy(vector[None].copy()))[0].numpy()


def play(
    bundle: Path, faults: list[Fault], seconds: float, seed: int, world: str = "trained", hang: bool = False
) -> list[dict[str, Any]]:
    """Arrays of one log for each fault."""
    loaded, first = load_policy(bundle), Policy.load(bundle)
    environment = find_world(world if loaded.parameters else "nominal", loaded).make_environment(
        loaded, len(faults), seed
    )
    environment.autoreset = False
    contract, period = first.contract, first.control_period_s
    robots = [
        Robot(fault, Policy(contract, first._layout, first._session), np.random.default_rng([seed, i]), i % 2 == 1)
        for i, fault in enumerate(faults)
    ]
    observed = environment.reset().policy
    for i, fault in enumerate(faults):
        if fault.kind == "gains":
            for name in ("actuator_gainprm", "actuator_biasprm"):
                environment.engine.field(name)[i] = fault.value * environment.engine.nominal(name)
    qpos = environment.engine.data("qpos")
    floating = environment.task.model.jnt_type[0] == 0
    start = 1.7e9 + 100.0 * seed
    for k in range(round(seconds / period)):
        sent = torch.zeros(len(faults), first.action_size, dtype=torch.float64)
        for i, robot in enumerate(robots):
            late = abs(float(robot.rng.normal(0.0, 2e-4)))
            quat = qpos[i, 3:7].numpy().copy() if floating else None
            row = observed[i].double().numpy()
            true = {p["name"]: row[p["index"][0] : p["index"][1]].copy() for p in contract["observation"]}
            if (robot.fault.kind != "rate" or k % 2 == 0 or robot.action is None) and not robot.over:
                _decide(robot, start + k * period + late, true, quat, hang, k * period)
            assert robot.action is not None
            sent[i] = torch.from_numpy(robot.action)
        if hang:
            environment.engine.data("qpos")[:, 2] = 1.0
            environment.engine.data("qvel")[:, :6] = 0.0
        result = environment.step(sent)
        observed = result.observed.policy
        for i, robot in enumerate(robots):  # a sound robot that fell or arrived is switched off
            robot.over |= bool(result.terminated[i]) and not robot.fault.kind and not hang
    return [_arrays(robot, contract) for robot in robots]


def _decide(robot: Robot, now: float, true: dict[str, Numbers], quat: Numbers | None, hang: bool, t: float) -> None:
    """One cycle of a controller: read, decide, send, note down."""
    policy = robot.policy
    if "last_action" in true:
        true["last_action"] = np.zeros(policy.action_size) if robot.action is None else robot.action.copy()
    start = robot.rows[0]["time"] if robot.rows else now
    seen = robot.read(now - start, true, quat)
    action = np.clip(np.asarray(policy(seen), dtype=np.float64), -1.0, 1.0)
    if hang:  # a slow wave in place of the policy
        phases = 2.4 * np.arange(policy.action_size)
        action = 0.3 * np.sin(2.0 * math.pi * (0.2 + 0.02 * np.arange(policy.action_size)) * t + phases) * min(t, 1.0)
    targets = policy.targets(action)
    robot.action = action
    stamps = {name: start + s if robot.stamps_measured else now for name, s in robot.stamp.items()}
    robot.rows.append(
        {"time": now, "seen": seen, "stamps": stamps, "action": action, "targets": targets, "policy": not hang}
    )


def _arrays(robot: Robot, contract: dict[str, Any]) -> dict[str, Any]:
    """The log of a robot: the arrays of its .npz."""
    rows = robot.rows
    arrays: dict[str, Any] = {}

    def put(topic: str, times: list[float], values: list[Any], part: dict[str, Any]) -> None:
        size = len(values[0])
        names = next((n for n in (part["joints"], part["elements"]) if len(n) == size), [str(i) for i in range(size)])
        arrays[f"{topic}/time"], arrays[f"{topic}/values"] = np.array(times), np.array(values, dtype=np.float64)
        arrays[f"{topic}/names"] = np.array(names)

    times = [row["time"] for row in rows]
    for part in contract["observation"]:
        name = part["name"]
        topic = f"/simreal/{'observation' if part['measured'] else 'inputs'}/{name}"
        put(topic, [r["stamps"][name] for r in rows], [r["seen"][name] for r in rows], part)
    if rows[0]["policy"]:
        put("/simreal/action", times, [r["action"] for r in rows], {"joints": [], "elements": []})
    for part in contract["action"]:
        for kind in ("target", "sent"):
            values = [r["targets"][part["name"]] for r in rows]
            put(f"/simreal/{kind}/{part['name']}", times, values, part)
    arrays["meta"] = np.array(json.dumps({"contract": contract, "fault": asdict(robot.fault)}))
    return arrays


def faults_of(contract: dict[str, Any], seed: int) -> list[Fault]:
    """Twelve faults with parameters drawn by a seed, for a robot that has joint_pos, joint_vel, gyro and gravity."""
    rng = np.random.default_rng(seed)
    count = next(p["shape"][0] for p in contract["observation"] if p["name"] == "joint_pos")
    joint = lambda: (int(rng.integers(count)),)  # noqa: E731
    pair = tuple(int(j) for j in rng.choice(count, 2, replace=False))
    joints, pick = ("joint_pos", "joint_vel"), lambda *options: options[int(rng.integers(len(options)))]
    measured = tuple(p["name"] for p in contract["observation"] if p["measured"])
    return [
        Fault("permuted", pick(joints, ("joint_pos",), ("joint_vel",)), pair),
        pick(Fault("sign", joints, joint()), Fault("sign", ("gyro",), (int(rng.integers(3)),))),
        pick(Fault("degrees", joints), Fault("degrees", ("gyro",)), Fault("degrees", ("joint_pos",))),
        Fault("quaternion_order", ("projected_gravity",)),
        Fault("frame", ("gyro",)),
        Fault("scale", (pick("joint_vel", "gyro", "joint_pos"),), (), 0.5),
        Fault("offset", ("joint_pos",), joint(), float(pick(-1, 1) * rng.uniform(0.15, 0.35))),
        Fault("lag", pick(joints, ("gyro",), ("joint_pos",), ("joint_vel",), measured), (), 2.0),
        Fault("loss", pick(measured, joints, ("gyro", "projected_gravity")), (), 0.1),
        pick(
            Fault("frozen", (pick("gyro", "joint_pos", "projected_gravity"),), (), float(rng.uniform(0.0, 5.0))),
            Fault("frozen", ("joint_pos",), joint(), float(rng.uniform(0.0, 5.0))),
        ),
        Fault("gains", (), (), 2.0),
        Fault("rate", (), (), 0.5),
    ]  # fmt: skip


def write(folder: Path, name: str, arrays: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clean", type=int, default=4)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--hang", action="store_true")
    given = parser.parse_args()
    contract = Policy.load(given.bundle).contract
    faults = [Fault()] * given.clean + (faults_of(contract, given.seed) if given.faults else [])
    names = [f"clean{i}" if not fault.kind else fault.kind for i, fault in enumerate(faults)]
    for name, arrays in zip(names, play(given.bundle, faults, given.seconds, given.seed, hang=given.hang), strict=True):
        write(given.folder, name, arrays)
    stated = {name: asdict(fault) for name, fault in zip(names, faults, strict=True)}
    (given.folder / "faults.json").write_text(json.dumps(stated, indent=1))


if __name__ == "__main__":
    main()
