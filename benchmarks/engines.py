"""What differs between engines, one small experiment each, beside what is exact: docs/engines.md.

    python -m benchmarks.engines [--only NAME ...]

Every model is a few lines of MJCF; the other simulators get it as `simreal evaluate --world drake` translates it, but
with one of their steps in each physics step, so that lengths of steps can be compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable, Sequence
from unittest.mock import patch

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from envs.engines.bridge import engine as bridge
from envs.engines.bridge.engine import BridgeEngine
from envs.engines.bridge.simulator import KINDS
from envs.engines.cpu import CpuEngine

Array = NDArray[np.float64]
G = 9.81
HERE = [kind for kind in KINDS if importlib.util.find_spec(KINDS[kind].package) is not None]


def xml(body: str, timestep: float, rest: str = "", option: str = "", gravity: str = f"0 0 {-G}") -> str:
    options = f'<option timestep="{timestep!r}" gravity="{gravity}" {option}/>'
    return f"<mujoco>{options}<worldbody>{body}</worldbody>{rest}</mujoco>"


def made(kind: str, text: str, n: int = 1) -> CpuEngine:
    """An engine by name: one of `KINDS`, or "mujoco"."""
    model = mujoco.MjModel.from_xml_string(text)
    if kind == "mujoco":
        return CpuEngine(model, n, 1)
    with patch.object(bridge, "steps_needed", lambda model, own_damping: 1):
        return BridgeEngine(kind, model, n, 1)


def run(engine: CpuEngine, seconds: float, each: Callable[[], object] | None = None) -> None:
    for _ in range(round(seconds / engine.model.opt.timestep)):
        engine.step(1)
        if each is not None:
            each()


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n### {title}\n")
    print(f"| {' | '.join(head)} |")
    print(f"|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(f'{x:.3g}' if isinstance(x, float) else str(x) for x in row)} |", flush=True)


def free_fall() -> None:
    """A ball falls for 1 s: z = -g t^2 / 2."""
    body = '<body pos="0 0 0"><freejoint/><geom size="0.1" mass="1"/></body>'
    rows = []
    for kind in ("mujoco", *HERE):
        errors = []
        for h in (0.001, 0.002, 0.004):
            engine = made(kind, xml(body, h))
            run(engine, 1.0)
            errors.append(float(engine.data("qpos")[0, 2]) + 0.5 * G)
        rows.append([kind, *(1000.0 * e for e in errors)])
    rows.append(["semi-implicit Euler, by hand", *(-500.0 * G * h for h in (0.001, 0.002, 0.004))])
    table("Free fall, error after 1 s (mm)", ["engine", "1 ms", "2 ms", "4 ms"], rows)


def damping() -> None:
    """A hinge with damping: its speed is exp(-d t / I), here after one time constant."""
    rows = []
    for kind in ("mujoco", *HERE):
        errors = []
        for rate in (1.0, 50.0, 200.0):
            body = (
                f'<body><joint name="j" axis="0 0 1" damping="{rate!r}"/>'
                '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body>'
            )
            engine = made(kind, xml(body, 0.002, gravity="0 0 0"))
            engine.data("qvel")[:] = 1.0
            steps = max(1, round(1.0 / rate / 0.002))
            engine.step(steps)
            errors.append(100.0 * (float(engine.data("qvel")[0, 0]) / math.exp(-rate * 0.002 * steps) - 1.0))
        rows.append([kind, *errors])
    explicit = []
    for rate in (1.0, 50.0, 200.0):
        steps = max(1, round(500.0 / rate))
        explicit.append(100.0 * ((1.0 - rate * 0.002) ** steps / math.exp(-rate * 0.002 * steps) - 1.0))
    rows.append(["explicit Euler, by hand", *explicit])
    table(
        "Damping of a joint, error of the speed after 1 / rate, at 2 ms (%)", ["engine", "1/s", "50/s", "200/s"], rows
    )


def slip() -> None:
    """A cube on a plane under gravity that is tilted by an angle: it slides from atan(mu) on."""
    mu, angles = 0.5, np.arange(17.0, 31.0, 1.0)
    # It cannot tip over: Drake has it touch in one point.
    slides = "".join(f'<joint type="slide" axis="{axis}"/>' for axis in ("1 0 0", "0 1 0", "0 0 1"))
    rows = []
    variants = [("mujoco", "elliptic"), ("mujoco", "pyramidal"), *((kind, "elliptic") for kind in HERE)]
    for kind, cone in variants:
        found = []
        for heading in (0.0, 45.0):
            text = xml(
                f'<geom type="plane" size="5 5 1" friction="{mu}"/><body pos="0 0 0.1">{slides}'
                f'<geom type="box" size="0.2 0.2 0.1" mass="1" friction="{mu}"/></body>',
                0.002, option=f'cone="{cone}" impratio="10"',
            )  # fmt: skip
            engine = made(kind, text, len(angles))
            tilt, turn = np.deg2rad(angles), math.radians(heading)
            gravity = np.stack((np.sin(tilt) * math.cos(turn), np.sin(tilt) * math.sin(turn), -np.cos(tilt)), axis=1)
            engine.field("opt.gravity").copy_(torch.from_numpy(G * gravity))
            run(engine, 1.0)
            speed = engine.data("qvel")[:, :2].norm(dim=1).numpy()
            # Above the angle the speed after 1 s is g (sin a - mu cos a): where that line, fitted, is zero.
            sliding = speed > 0.5
            found.append(_zero(angles[sliding], speed[sliding]))
            found.append(1000.0 * float(speed[angles < (18.0 if heading else 24.0)].max()))
        rows.append([f"{kind}, {cone}" if kind == "mujoco" else kind, *found])
    rows.append(["a round cone, by hand", math.degrees(math.atan(mu)), 0.0, math.degrees(math.atan(mu)), 0.0])
    rows.append(
        ["a pyramid, by hand", math.degrees(math.atan(mu)), 0.0, math.degrees(math.atan(mu / math.sqrt(2.0))), 0.0]
    )
    table(
        "A cube on a slope, friction 0.5: angle from which it slides (degrees), speed after 1 s below it (mm/s)",
        ["engine", "along an axis", "creep", "along a diagonal", "creep"], rows,
    )  # fmt: skip


def _zero(angles: Array, speed: Array) -> float:
    """Where g (sin a - mu cos a) is zero for the mu that fits speeds after 1 s best."""
    a = np.deg2rad(angles)
    return float(np.rad2deg(np.arctan(np.mean((np.sin(a) - speed / G) / np.cos(a)))))


def servo() -> None:
    """A hinge (1 kg m^2) with a servo: a step of 0.1 rad within its limit, and of 10 rad far beyond it."""
    kp, kd, limit, h = 100.0, 10.0, 5.0, 0.002
    body = '<body><joint name="j" axis="0 0 1"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body>'
    rows: list[list[object]] = []
    times = np.arange(1.0, 501.0) * h
    omega, decay = math.sqrt(kp - 0.25 * kd**2), 0.5 * kd
    exact = 0.1 * (1.0 - np.exp(-decay * times) * (np.cos(omega * times) + decay / omega * np.sin(omega * times)))
    for kind in ("mujoco", *HERE):
        errors = []
        for forced, wanted, target in ((1e9, 0.1, exact), (limit, 10.0, 0.5 * limit * times**2)):
            rest = (
                f'<actuator><position joint="j" kp="{kp}" kv="{kd}" forcelimited="true" '
                f'forcerange="{-forced} {forced}"/></actuator>'
            )
            engine = made(kind, xml(body, h, rest, 'integrator="implicitfast"', "0 0 0"))
            engine.data("ctrl")[:] = wanted
            seen: list[float] = []
            run(engine, 1.0, lambda e=engine, s=seen: s.append(float(e.data("qpos")[0, 0])))
            errors.append(100.0 * float(np.abs(np.array(seen) - target).max() / np.abs(target).max()))
        rows.append([kind, *errors])
    rows += own_servos(limit, h, exact, times)
    table(
        "A servo (kp 100, kv 10) on 1 kg m^2 at 2 ms: largest error within 1 s, share of the way (%)",
        ["engine", "0.1 rad, no limit", "10 rad, limit 5 N m"], rows,
    )  # fmt: skip


def own_servos(limit: float, h: float, exact: Array, times: Array) -> list[list[object]]:
    """The same with PyBullet's position control, which `simreal` does not use."""
    rows: list[list[object]] = []
    if "pybullet" not in HERE:
        return rows
    import pybullet

    from envs.engines.bridge.bullet import BulletSimulator
    from envs.engines.bridge.mechanism import mechanism

    body = '<body><joint name="j" axis="0 0 1"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body>'
    errors = []
    for most, wanted, target in ((1e9, 0.1, exact), (limit, 10.0, 0.5 * limit * times**2)):
        simulator = BulletSimulator(mechanism(mujoco.MjModel.from_xml_string(xml(body, h, gravity="0 0 0"))))
        simulator.write(np.zeros(1), np.zeros(1))
        world = simulator.client
        pybullet.setJointMotorControl2(
            0,
            0,
            pybullet.POSITION_CONTROL,
            targetPosition=wanted,
            force=most,
            physicsClientId=world,
        )
        seen = []
        for _ in times:
            pybullet.stepSimulation(physicsClientId=world)
            seen.append(simulator.read()[0][0])
        errors.append(100.0 * float(np.abs(np.array(seen) - target).max() / np.abs(target).max()))
        simulator.close()
    rows.append(["pybullet's own POSITION_CONTROL, whose gains (0.1 and 1) are no N m/rad", *errors])
    return rows


def resting() -> None:
    """A ball and a cube of given masses at rest: how deep they sink in."""
    rows = []
    for kind in ("mujoco", *HERE):
        depths = []
        for shape, mass in (("sphere", 1.0), ("sphere", 100.0), ("box", 1.0)):
            size = "0.1" if shape == "sphere" else "0.1 0.1 0.1"
            body = (
                '<geom type="plane" size="5 5 1"/><body pos="0 0 0.101"><freejoint/>'
                f'<geom type="{shape}" size="{size}" mass="{mass}"/></body>'
            )
            engine = made(kind, xml(body, 0.002))
            run(engine, 3.0)
            depths.append(1e6 * (0.1 - float(engine.data("qpos")[0, 2])))
        rows.append([kind, *depths])
    table("At rest on a plane: depth (micrometres)", ["engine", "ball 1 kg", "ball 100 kg", "cube 1 kg"], rows)


def swinging() -> None:
    """A ball of 1 kg swings on a contact of 10 kN/m and 10 N s/m: MuJoCo's impedance adds to its inertia."""
    stiffness, damper, h = 1e4, 10.0, 0.0005
    rest = G / stiffness
    impedances, rows = (0.1, 0.5, 0.9), []
    for kind in ("mujoco", *HERE):
        periods = []
        for d in impedances:
            law = f'solimp="{d} {d} 0.001" solref="{-stiffness * (1 - d)} {-damper * (1 - d)}" condim="1"'
            body = (
                f'<geom type="plane" size="5 5 1" {law}/><body pos="0 0 0.1"><freejoint/>'
                f'<geom size="0.1" mass="1" {law}/></body>'
            )
            engine = made(kind, xml(body, h))
            engine.data("qpos")[:, 2] -= 1.5 * rest
            seen: list[float] = []
            run(engine, 0.6, lambda e=engine, s=seen: s.append(float(e.data("qpos")[0, 2])))
            z = np.array(seen) - (0.1 - rest)
            up = np.flatnonzero((z[:-1] < 0) & (z[1:] >= 0))[:3]
            crossings = up + z[up] / (z[up] - z[up + 1])
            periods.append(1000.0 * h * float(np.diff(crossings).mean()))
        rows.append([kind, *periods])
    spring = 2000.0 * math.pi / math.sqrt(stiffness)
    rows.append(["1 kg on a spring, by hand", *[spring] * 3])
    rows.append(["1 kg / (1 - d) on a spring, by hand", *(spring / math.sqrt(1 - d) for d in impedances)])
    table(
        "A ball that swings on its contact, of the same stiffness at rest: period (ms)",
        ["engine", *(f"impedance {d}" for d in impedances)], rows,
    )  # fmt: skip


def energy() -> None:
    """A double pendulum without friction, for 10 s: its energy stays."""
    link = '<joint axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.02" mass="1"/>'
    body = f'<body pos="0 0 2">{link}<body pos="0 0 -0.5">{link}</body></body>'
    rows = []
    variants = [("mujoco", "Euler"), ("mujoco", "implicitfast"), ("mujoco", "RK4"), *((kind, "Euler") for kind in HERE)]
    for kind, integrator in variants:
        drifts = []
        for h in (0.001, 0.002, 0.004):
            option = f'integrator="{integrator}"'
            text = xml(body, h, option=option).replace(
                "<worldbody>", '<option><flag contact="disable"/></option><worldbody>'
            )
            engine = made(kind, text)
            engine.data("qpos")[:] = torch.tensor([math.pi / 2, 0.0])
            model, data = engine.model, mujoco.MjData(engine.model)
            seen: list[float] = []

            def note(
                e: CpuEngine = engine, m: mujoco.MjModel = model, d: mujoco.MjData = data, s: list[float] = seen
            ) -> None:
                d.qpos[:], d.qvel[:] = e.data("qpos")[0].numpy(), e.data("qvel")[0].numpy()
                mujoco.mj_forward(m, d)
                mujoco.mj_energyPos(m, d)
                mujoco.mj_energyVel(m, d)
                s.append(float(d.energy.sum()))

            note()
            run(engine, 10.0, note)
            swing = 3.0 * G * 0.5  # J, from lying to hanging: (0.25 + 0.75) m of 1 kg each, and half
            drifts.append(100.0 * float(np.abs(np.array(seen) - seen[0]).max()) / swing)
        rows.append([f"{kind}, {integrator}" if kind == "mujoco" else kind, *drifts])
    table(
        "A double pendulum for 10 s: largest change of energy (% of what it swings with)",
        ["engine", "1 ms", "2 ms", "4 ms"],
        rows,
    )


def rotors() -> None:
    """A link with a rotor on a free base: the accelerations that a torque on the joint makes, over 0.1 s."""
    base, child, rotor, torque = 0.02, 0.01, 0.01, 0.1  # kg m^2, and N m
    body = (
        f'<body><joint axis="0 0 1"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 {base}"/>'
        f'<body><joint name="j" axis="0 0 1" armature="{rotor}"/>'
        f'<inertial pos="0 0 0" mass="1" diaginertia="1 1 {child}"/></body></body>'
    )
    exact = np.linalg.solve([[base + child, child], [child, child + rotor]], [0.0, torque])
    rows = []
    for kind in ("mujoco", *HERE):
        rest = '<actuator><motor joint="j"/></actuator>'
        engine = made(kind, xml(body, 0.002, rest, gravity="0 0 0"))
        engine.data("ctrl")[:] = torque
        engine.step(50)
        got = engine.data("qvel")[0].numpy() / 0.1
        rows.append([kind, *got.tolist()])
    rows.append(["by hand", *exact.tolist()])
    table(
        "0.1 N m on a joint with a rotor (0.01 kg m^2), on a base that turns: accelerations (rad/s^2)",
        ["engine", "base", "joint"],
        rows,
    )


def bounce() -> None:
    """A ball falls from 0.5 m: how high it comes again."""
    rows = []
    for kind in ("mujoco", *HERE):
        heights = []
        for h in (0.001, 0.004):
            body = '<geom type="plane" size="5 5 1"/><body pos="0 0 0.6"><freejoint/><geom size="0.1" mass="1"/></body>'
            engine = made(kind, xml(body, h))
            seen: list[float] = []
            run(engine, 1.2, lambda e=engine, s=seen: s.append(float(e.data("qpos")[0, 2])))
            low = int(np.argmin(seen[: round(0.4 / h)]))
            heights.append(1000.0 * (max(seen[low:]) - 0.1))
        rows.append([kind, *heights])
    table("A ball from 0.5 m: height of its rebound (mm)", ["engine", "1 ms", "4 ms"], rows)


EXPERIMENTS = {f.__name__: f for f in (free_fall, damping, slip, servo, resting, swinging, energy, rotors, bounce)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    for name in parser.parse_args().only:
        EXPERIMENTS[name]()


if __name__ == "__main__":
    main()
