"""How often do identified intervals hold the truth?

    python benchmarks/identify_coverage.py FOLDER cart_pole|xarm7 [--worlds 50] [--seconds 20]

Hidden worlds: every unknown drawn from the inner 60 % of its prior range by a seed that the fit never sees; simulated
with RK4 and short steps (1 ms; 0.25 ms for the arm, whose servos need them: an implicit step of 0.5 ms moves as if each
rotor had an eighth more), with noise, uneven samples, a delay of up to 40 ms. FOLDER/NAME.jsonl gets a line for each
world as it comes, and what is there is not made again; the table at the end has, for each unknown, in how many worlds
it was told, in how many of these the 95 % interval held the truth, and the median error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import arm_reach  # pyright: ignore[reportMissingImports]

import simreal
from envs.registry import make_task
from envs.task import Task
from randomization.parameters import build_parameters
from simreal.identify.excite.rehearsal import multisine, rehearse
from simreal.identify.identify import identify
from simreal.identify.measured.recording import Recording
from simreal.identify.simulation import Player
from simreal.identify.unknowns import Scales, unknown_of

_ROTORS = (0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.05)  # kg m2: without them the servos of Menagerie's arm flip every step


class Arm(arm_reach.ArmReach):
    """The arm of docs/arm.md, with rotors."""

    def __init__(self) -> None:
        super().__init__()
        spec = simreal.load_robot("ufactory_xarm7", scene=True)
        for joint, rotor in enumerate(_ROTORS, start=1):
            spec.joint(f"joint{joint}").armature = rotor
        self.model = simreal.compile_spec(spec)


def cart_pole() -> tuple[Task, dict[str, Any]]:
    entries = {
        "pole mass": {"quantity": "body_mass", "of": "pole", "range": [0.3, 3]},
        "cart mass": {"quantity": "body_mass", "of": "cart", "range": [0.3, 3]},
        "cart damping": {"quantity": "joint_damping", "of": "slider", "range": [0.2, 5]},
        "hinge damping": {"quantity": "joint_damping", "of": "hinge", "range": [0.2, 5]},
        "action_delay": {"range": [0, 40]},
    }
    return make_task("InvertedPendulum-v5"), entries


def xarm7() -> tuple[Task, dict[str, Any]]:
    entries: dict[str, Any] = {}
    for i in range(1, 8):
        entries |= {
            f"damping {i}": {"quantity": "joint_damping", "of": f"joint{i}", "range": [0.3, 3]},
            f"friction {i}": {"quantity": "joint_frictionloss", "of": f"joint{i}", "range": [0.3, 3]},
            f"rotor {i}": {"quantity": "joint_armature", "of": f"joint{i}", "range": [0.3, 3]},
            f"kp {i}": {"quantity": "actuator_kp", "of": f"act{i}", "range": [0.5, 2]},
            f"kd {i}": {"quantity": "actuator_kd", "of": f"act{i}", "range": [0.5, 2]},
        }
    return Arm(), entries | {"action_delay": {"range": [0, 40]}}


def hidden(task: Task, entries: dict[str, Any], seed: int) -> tuple[dict[str, float], mujoco.MjModel]:
    """A world, and the model that it is simulated with."""
    parameters = build_parameters(task, entries)
    unknowns = [unknown_of(p) for p in parameters]
    z = np.random.default_rng(1000 + seed).uniform(-0.6, 0.6, len(unknowns))
    values = dict(zip([u.name for u in unknowns], Scales(unknowns).outward(z).tolist(), strict=True))
    model = Player(task, unknowns, 2).model_of(np.array([values[u.name] for u in unknowns]))
    model.opt.timestep = 1e-3 if model.nv < 3 else 2.5e-4
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    steps = np.ceil(values["action_delay"] * 1e-3 / model.opt.timestep)  # it has no other delays
    return values | {"action_delay": float(1e3 * steps * model.opt.timestep)}, model


def log_of(name: str, values: dict[str, float], model: mujoco.MjModel, seed: int, length_s: float) -> Recording:
    """A log of a hidden world."""
    generator = np.random.default_rng(2000 + seed)
    times = np.arange(0.0, length_s, 0.02)
    late: dict[str, Any] = {"delay_s": values["action_delay"] * 1e-3, "jitter_s": 1e-3, "seed": seed}
    if name == "cart_pole":
        pushes = multisine(times, np.zeros(1), np.full(1, 0.1), (0.2, 5.0), 8, generator)
        gains = np.array([0.22, 5.2, 0.26, 0.445])  # keep the pole up in every world, also late

        def balance(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
            return np.array([gains @ np.concatenate((qpos, qvel))])

        return rehearse(
            model, np.zeros(2), times, pushes, ("slider", "hinge"), noise=(5e-4, 5e-3), feedback=balance, **late
        )
    commands = multisine(times, np.array(arm_reach.HOME), np.full(7, 0.4), (0.1, 2.5), 8, generator)
    joints = [f"joint{i}" for i in range(1, 8)]
    start = model.qpos0.copy()
    start[[model.joint(joint).qposadr[0] for joint in joints]] = arm_reach.HOME
    return rehearse(model, start, times, commands, joints, noise=(3e-4, 3e-3), **late)


def table(rows: list[dict[str, Any]]) -> str:
    """Per unknown: told, held, median error."""
    lines = ["| unknown | told | interval holds the truth | median error |", "|---|---|---|---|"]
    told_all = held_all = 0
    for k, name in enumerate([p["name"] for p in rows[0]["parameters"]]):
        told = [row["parameters"][k] for row in rows if row["parameters"][k]["told"]]
        held = sum(p["low"] <= p["true"] <= p["high"] for p in told)
        told_all, held_all = told_all + len(told), held_all + held
        if told:
            unit = [1.0 if name == "action_delay" else p["true"] for p in told]
            error = float(np.median([abs(p["value"] - p["true"]) / u for p, u in zip(told, unit, strict=True)]))
            shown = f"{error:.2f} ms" if name == "action_delay" else f"{100 * error:.1f} %"
            lines.append(f"| {name} | {len(told)} / {len(rows)} | {held / len(told):.2f} | {shown} |")
        else:
            lines.append(f"| {name} | 0 / {len(rows)} | - | - |")
    count = len(rows) * len(rows[0]["parameters"])
    lines.append(f"| all | {told_all} / {count} | {held_all / max(told_all, 1):.3f} | |")
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, print the table."""
    parser = argparse.ArgumentParser(description="How often identified intervals hold the truth.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("robot", choices=["cart_pole", "xarm7"])
    parser.add_argument("--worlds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each log")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path: Path = options.folder / f"{options.robot}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    task, entries = {"cart_pole": cart_pole, "xarm7": xarm7}[options.robot]()
    for seed in range(len(rows), options.worlds):
        values, model = hidden(task, entries, seed)
        recording = log_of(options.robot, values, model, seed, options.seconds)
        begun = time.process_time()
        found = identify(task, [recording], build_parameters(task, entries), seed=seed)
        parameters = [
            {"name": k.unknown.name, "true": values[k.unknown.name], "value": k.value, "low": k.low, "high": k.high,
             "told": k.told} for k in found.knowledge.of
        ]  # fmt: skip
        rows.append({
            "seed": seed, "parameters": parameters, "not_told_apart": found.knowledge.combinations,
            "processor_s": time.process_time() - begun,
        })  # fmt: skip
        with path.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        inside = [p["low"] <= p["true"] <= p["high"] for p in parameters if p["told"]]
        print(f"world {seed}: {sum(inside)} of {len(inside)} held, {rows[-1]['processor_s']:.0f} s", flush=True)
    print(table(rows))
    print(f"median processor time {np.median([row['processor_s'] for row in rows]):.0f} s")


if __name__ == "__main__":
    main()
