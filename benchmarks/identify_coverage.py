"""How often do identified intervals hold the truth?

    python benchmarks/identify_coverage.py FOLDER cart_pole|xarm7|go1_air|go1_stand|allegro [--worlds 50] [--seconds 20]

Hidden worlds: every unknown drawn from the inner 60 % of its prior range (of factors by the logarithm) by a seed that
the fit never sees; simulated with RK4 and short steps (1 ms for the cart-pole, 0.125 ms for others: the servos of the
arm need them, an implicit step of 0.5 ms moves as if each rotor had an eighth more), with noise, uneven samples, a
delay of up to 40 ms. The hand's fingers are all damping and no inertia: with RK4 they would need steps of 0.02 ms, and
get Euler's of 0.03125 ms, which take damping implicitly. FOLDER/NAME.jsonl gets a line for each world as it comes, and
what is there is not made again; the table at the end has, for each unknown, in how many worlds it was told, in how many
of these the 95 % interval held the truth, and the median error.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from simreal.identify.commands import suggested
from simreal.identify.excite.rehearsal import multisine, rehearse
from simreal.identify.identify import Identified, identify
from simreal.identify.measured.coordinates import Coordinates
from simreal.identify.measured.recording import Recording
from simreal.identify.rig import Rig, held
from simreal.identify.simulation import Player
from simreal.identify.unknowns import Scales, Unknown, unknown_of

_ROTORS = (0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.05)  # kg m2: without them the servos of Menagerie's arm flip every step
_DELAY = {"action_delay": {"range": [0, 40]}}
_FEET = ("FR", "FL", "RR", "RL")


class Arm(arm_reach.ArmReach):
    """The arm of docs/arm.md, with rotors."""

    def __init__(self) -> None:
        super().__init__()
        spec = simreal.load_robot("ufactory_xarm7", scene=True)
        for joint, rotor in enumerate(_ROTORS, start=1):
            spec.joint(f"joint{joint}").armature = rotor
        self.model = simreal.compile_spec(spec)


@dataclass(frozen=True)
class Robot:
    """A robot, what is looked for, and how a log of it is made.

    Attributes:
        task: with its model.
        entries: of the unknowns.
        start: [nq].
        joints: that are measured.
        move: commands [K, C] for times [K] and a generator.
        noise: of positions and velocities.
        feedback: of the controller that keeps it up, where one does.
        drops: what of a log's beginning is left out, s.
        touches: whether it touches anything.
        hides: integrator and steps, s, of hidden worlds.
    """

    task: Task
    entries: dict[str, Any]
    start: np.ndarray
    joints: tuple[str, ...]
    move: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    noise: tuple[float, float]
    feedback: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    drops: float = 0.0
    touches: bool = False
    hides: tuple[mujoco.mjtIntegrator, float] = (mujoco.mjtIntegrator.mjINT_RK4, 1.25e-4)


def cart_pole() -> Robot:
    """A pole that a controller keeps up in every world, also late, while a sum of sines pushes."""
    entries = {
        "pole mass": {"quantity": "body_mass", "of": "pole", "range": [0.3, 3]},
        "cart mass": {"quantity": "body_mass", "of": "cart", "range": [0.3, 3]},
        "cart damping": {"quantity": "joint_damping", "of": "slider", "range": [0.2, 5]},
        "hinge damping": {"quantity": "joint_damping", "of": "hinge", "range": [0.2, 5]},
        **_DELAY,
    }
    gains = np.array([0.22, 5.2, 0.26, 0.445])

    def balance(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        return np.array([gains @ np.concatenate((qpos, qvel))])

    def move(times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return multisine(times, np.zeros(1), np.full(1, 0.1), (0.2, 5.0), 8, generator)

    task = make_task("InvertedPendulum-v5")
    hides = (mujoco.mjtIntegrator.mjINT_RK4, 1e-3)
    return Robot(task, entries, np.zeros(2), ("slider", "hinge"), move, (5e-4, 5e-3), balance, hides=hides)


def xarm7() -> Robot:
    """An arm of seven stiff servos."""
    return arm(Arm())


def arm(task: Task) -> Robot:
    """The same, of another task."""
    entries: dict[str, Any] = {}
    for i in range(1, 8):
        entries |= {
            f"damping {i}": {"quantity": "joint_damping", "of": f"joint{i}", "range": [0.3, 3]},
            f"friction {i}": {"quantity": "joint_frictionloss", "of": f"joint{i}", "range": [0.3, 3]},
            f"rotor {i}": {"quantity": "joint_armature", "of": f"joint{i}", "range": [0.3, 3]},
            f"kp {i}": {"quantity": "actuator_kp", "of": f"act{i}", "range": [0.5, 2]},
            f"kd {i}": {"quantity": "actuator_kd", "of": f"act{i}", "range": [0.5, 2]},
        }
    joints = tuple(f"joint{i}" for i in range(1, 8))
    start = task.model.qpos0.copy()
    start[[task.model.joint(joint).qposadr[0] for joint in joints]] = arm_reach.HOME

    def move(times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return multisine(times, np.array(arm_reach.HOME), np.full(7, 0.4), (0.1, 2.5), 8, generator)

    return Robot(task, entries | _DELAY, start, joints, move, (3e-4, 3e-3))


def _hung(name: str, rig: Rig, amplitude: float) -> Robot:
    """A robot that touches nothing, with what `simreal identify` looks for where nobody says."""
    task, subject = held(name, rig)
    start = subject().starts[0].qpos.copy()
    drives = subject().drives()
    joints = tuple(task.model.joint(d.joint).name for d in drives if d.joint is not None)
    middle = np.zeros(task.model.nu)
    for drive in drives:
        middle[drive.column] = start[task.model.jnt_qposadr[drive.joint]]

    def move(times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return multisine(times, middle, np.full(len(middle), amplitude), (0.1, 4.0), 8, generator)

    return Robot(task, suggested(task) | _DELAY, start, joints, move, (3e-4, 5e-3))


def go1_air() -> Robot:
    """A Go1 that hangs by its trunk."""
    return _hung("Go1Velocity-v0", Rig(hang=True), 0.35)


def allegro() -> Robot:
    """An Allegro hand without a cube."""
    robot = _hung("AllegroCube-v0", Rig(without=("cube",)), 0.25)
    return replace(robot, hides=(mujoco.mjtIntegrator.mjINT_EULER, 3.125e-5))


def go1_stand() -> Robot:
    """A Go1 that stands, rises, sways and leans; a motion capture shows its trunk."""
    task, subject = held("Go1Velocity-v0", Rig(), floats=True)
    entries: dict[str, Any] = {
        "payload": {"quantity": "body_mass", "of": "trunk", "range": [0.7, 1.8]},
        "com x": {"quantity": "body_com_x", "of": "trunk", "range": [-0.06, 0.06]},
        "com y": {"quantity": "body_com_y", "of": "trunk", "range": [-0.04, 0.04]},
    }
    for leg in _FEET:
        for part in ("hip", "thigh", "calf"):
            entries[f"kp {leg} {part}"] = {"quantity": "actuator_kp", "of": f"{leg}_{part}", "range": [0.7, 1.4]}
    start = subject().starts[0].qpos.copy()
    stance = start[7:]
    left, front = np.array([-1.0, 1.0, -1.0, 1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    one = np.ones(4)
    modes = np.array([  # rise, pitch, roll, sway, surge: hip, thigh and calf of each leg
        np.column_stack((0 * one, 0.25 * one, -0.5 * one)).ravel(),
        np.column_stack((0 * one, 0.12 * front, -0.24 * front)).ravel(),
        np.column_stack((0 * one, 0.1 * left, -0.2 * left)).ravel(),
        np.column_stack((0.12 * one, 0 * one, 0 * one)).ravel(),
        np.column_stack((0 * one, 0.12 * one, 0 * one)).ravel(),
    ])  # fmt: skip

    def move(times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        waves = multisine(times, np.zeros(len(modes)), np.ones(len(modes)), (0.2, 2.0), 6, generator)
        return stance + waves @ modes

    joints = tuple(Coordinates(task.model).names)
    return Robot(task, entries | _DELAY, start, joints, move, (3e-4, 5e-3), drops=1.0, touches=True)


ROBOTS = {"cart_pole": cart_pole, "xarm7": xarm7, "go1_air": go1_air, "go1_stand": go1_stand, "allegro": allegro}


def hidden(robot: Robot, seed: int) -> tuple[dict[str, float], mujoco.MjModel]:
    """A world, and the model that it is simulated with."""
    parameters = build_parameters(robot.task, robot.entries)
    unknowns = [unknown_of(p) for p in parameters]
    z = np.random.default_rng(1000 + seed).uniform(-0.6, 0.6, len(unknowns))
    values = {u.name: drawn(u, float(at)) for u, at in zip(unknowns, z, strict=True)}
    model = Player(robot.task, unknowns, 2).model_of(np.array([values[u.name] for u in unknowns]))
    model.opt.integrator, model.opt.timestep = robot.hides
    if not robot.touches:
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    steps = np.ceil(values["action_delay"] * 1e-3 / model.opt.timestep)  # it has no other delays
    return values | {"action_delay": float(1e3 * steps * model.opt.timestep)}, model


def drawn(unknown: Unknown, at: float) -> float:
    """A value at a place between -1 and 1 of its prior range; of a factor's by the logarithm."""
    low, high = unknown.limits
    if unknown.factor:
        return float(np.sqrt(low * high) * (high / low) ** (at / 2.0))
    return (low + high) / 2.0 + at * (high - low) / 2.0


def log_of(robot: Robot, values: dict[str, float], model: mujoco.MjModel, seed: int, length_s: float) -> Recording:
    """A log of a hidden world."""
    generator = np.random.default_rng(2000 + seed)
    times = np.arange(0.0, length_s + robot.drops, 0.02)
    commands = robot.move(times, generator)
    if robot.touches:
        commands = calm(robot, model, times, commands, values["action_delay"] * 1e-3)
    recording = rehearse(
        model, robot.start, times, commands, robot.joints, noise=robot.noise,
        feedback=robot.feedback, delay_s=values["action_delay"] * 1e-3, jitter_s=1e-3, seed=seed,
    )  # fmt: skip
    return recording if not robot.drops else recording.after(robot.drops)


def calm(robot: Robot, model: mujoco.MjModel, times: np.ndarray, commands: np.ndarray, delay_s: float) -> np.ndarray:
    """A motion by which all four feet stay down, as somebody beside a robot would turn it down: halved while one lifts
    for more than a fiftieth of the time."""
    quick = copy.deepcopy(model)
    quick.opt.timestep, quick.opt.integrator = 2e-3, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    for _ in range(5):
        data, down = mujoco.MjData(quick), []
        data.qpos[:] = robot.start
        while data.time < times[-1]:
            data.ctrl[:] = commands[
                np.searchsorted(times, data.time - delay_s, side="right") - 1 if data.time > delay_s else 0
            ]
            mujoco.mj_step(quick, data)
            if data.time > robot.drops:
                down.append(len({int(quick.geom_bodyid[g]) for g in data.contact.geom.ravel()} - {0}) == len(_FEET))
        if np.mean(down) > 0.98:
            break
        commands = robot.start[7:] + (commands - robot.start[7:]) / 2.0
    return commands


def distance2(found: Identified, values: dict[str, float]) -> float:
    """How far the truth is from what was found, in standard deviations of all unknowns together, squared: of P unknowns
    P on average where intervals are right."""
    of = found.knowledge.of
    scales = Scales([k.unknown for k in of])
    off = scales.inward(np.array([values[k.unknown.name] for k in of])) - scales.inward(np.array([k.value for k in of]))
    return float(off @ np.linalg.solve(found.knowledge.covariance, off))


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
    parser.add_argument("robot", choices=list(ROBOTS))
    parser.add_argument("--worlds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each log")
    parser.add_argument("--first", type=int, default=0, help="seed of the first world")
    parser.add_argument("--verbose", action="store_true", help="say how the fits go")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path: Path = options.folder / f"{options.robot}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    robot = ROBOTS[options.robot]()
    told = print if options.verbose else lambda text: None
    for seed in range(options.first + len(rows), options.first + options.worlds):
        values, model = hidden(robot, seed)
        recording = log_of(robot, values, model, seed, options.seconds)
        begun = time.process_time()
        found = identify(robot.task, [recording], build_parameters(robot.task, robot.entries), seed=seed, say=told)
        parameters = [
            {"name": k.unknown.name, "true": values[k.unknown.name], "value": k.value, "low": k.low, "high": k.high,
             "told": k.told} for k in found.knowledge.of
        ]  # fmt: skip
        rows.append({
            "seed": seed, "parameters": parameters, "not_told_apart": found.knowledge.combinations,
            "distance2": distance2(found, values), "processor_s": time.process_time() - begun,
        })  # fmt: skip
        with path.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        inside = [p["low"] <= p["true"] <= p["high"] for p in parameters if p["told"]]
        print(f"world {seed}: {sum(inside)} of {len(inside)} held, {rows[-1]['processor_s']:.0f} s", flush=True)
        told("\n".join(rows[-1]["not_told_apart"]))
    print(table(rows))
    print(f"distance of the truth, squared: {np.mean([row['distance2'] for row in rows]):.1f} on average")
    print(f"median processor time {np.median([row['processor_s'] for row in rows]):.0f} s")


if __name__ == "__main__":
    main()
