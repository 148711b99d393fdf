"""A robot of six servos and an IMU, worked out without MuJoCo, and its log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simreal.common.logs import Log, Signal

Numbers = NDArray[np.float64]
JOINTS = tuple(f"j{i}" for i in range(6))
PERIOD_S, _FINE = 0.02, 10
HOME = np.array([0.2, 0.9, -1.6, -0.2, 0.8, -1.5])


def part(name: str, unit: str, size: int, **given: Any) -> dict[str, Any]:
    """An entry of a contract."""
    joints = list(JOINTS) if size == len(JOINTS) else []
    entry = {
        "name": name, "unit": unit, "frame": "joint" if joints else "trunk", "description": name, "joints": joints,
        "elements": joints or ["x", "y", "z"], "scale": [1.0] * size, "offset": [0.0] * size, "measured": True,
        "derived_from": [], "limits": None, "training_range": {"lower": [-1e3] * size, "upper": [1e3] * size},
    }  # fmt: skip
    return entry | given


def contract() -> dict[str, Any]:
    gravity = part("projected_gravity", "1", 3, offset=[0.0, 0.0, -1.0], scale=[0.1, 0.1, 0.1], description="down")
    observation = [
        part("joint_pos", "rad", 6, offset=HOME.tolist(), scale=[0.3] * 6), part("joint_vel", "rad/s", 6),
        part("gyro", "rad/s", 3), gravity,
    ]  # fmt: skip
    servo = {
        "stiffness": [40.0] * 6,
        "damping": [1.0] * 6,
        "effort_limit": [30.0] * 6,
        "afterwards": "",
        "index": [0, 6],
    }
    action = part("joint_target", "rad", 6, smoothing=1.0, **servo)
    return {"task": "plain", "control_period_s": PERIOD_S, "observation": observation, "action": [action]}


def signals(seed: int = 0, cycles: int = 700) -> dict[str, Numbers]:
    """What a sound robot shows in every cycle, with a little noise: positions, velocities, targets, gyro, gravity."""
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.normal(0.0, 0.05, (cycles, 6)), axis=0)
    wave = 0.25 * np.sin(
        2.0 * np.pi * (1.0 + 0.3 * rng.random(6)) * PERIOD_S * np.arange(cycles)[:, None] + 6.0 * rng.random(6)
    )
    target = HOME + wave + 0.2 * np.tanh(smooth) + rng.normal(0.0, 0.06, (cycles, 6))
    q, v, fine = HOME.copy(), np.zeros(6), PERIOD_S / _FINE
    position, velocity = np.empty((cycles, 6)), np.empty((cycles, 6))
    for k in range(cycles):
        position[k], velocity[k] = q, v
        for _ in range(_FINE):
            v = v + fine * (40.0 * (target[k] - q) - 1.0 * v) / 0.05  # inertia 0.05 kg m^2
            q = q + fine * v
    rate = np.cumsum(rng.normal(0.0, 0.25, (cycles, 3)), axis=0)
    rate = rate - np.array([np.convolve(c, np.ones(40) / 40.0, "same") for c in rate.T]).T
    gravity, turn = np.empty((cycles, 3)), np.eye(3)
    for k in range(cycles):
        gravity[k] = turn.T @ np.array([0.0, 0.0, -1.0])
        x, y, z = PERIOD_S * 0.5 * (rate[k] + rate[min(k + 1, cycles - 1)])
        norm = max(float(np.linalg.norm([x, y, z])), 1e-12)
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) / norm
        turn = turn @ (np.eye(3) + np.sin(norm) * cross + (1.0 - np.cos(norm)) * cross @ cross)
    noise = lambda size, much: rng.normal(0.0, much, (cycles, size))  # noqa: E731
    return {
        "joint_pos": position + noise(6, 0.003), "joint_vel": velocity + noise(6, 0.05), "joint_target": target,
        "gyro": rate + noise(3, 0.01), "projected_gravity": gravity + noise(3, 0.005),
    }  # fmt: skip


def log(values: dict[str, Numbers], period_s: float = PERIOD_S) -> Log:
    """A log of these values, as simreal's controller names its topics."""
    time: Numbers = 1.7e9 + period_s * np.arange(len(values["joint_pos"]), dtype=np.float64)
    found: dict[str, Signal] = {}
    for name, array in values.items():
        topic = f"/simreal/{'sent' if name == 'joint_target' else 'observation'}/{name}"
        elements = JOINTS if array.shape[1] == 6 else ("x", "y", "z")
        found[topic] = Signal(topic, time[: len(array)], array, elements)
    return Log(found, None, Path("robot.npz"))
