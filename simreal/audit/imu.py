"""Faults of an IMU, named."""

from __future__ import annotations

import numpy as np

from simreal.audit.facts import Facts
from simreal.audit.findings import Finding, places
from simreal.audit.relations.attitude import Attitude, Reading
from simreal.audit.verdicts import scale_finding

_TURNS = 0.2  # rad/s of a robot that moves; one that does not may lie on its back
_LOSSY = 0.02  # share of messages whose loss makes the integrated gyroscope drift, as does a slow one


def imu_findings(facts: Facts) -> list[Finding]:
    """What is wrong with the gyroscope or the direction of gravity."""
    imu = facts.imu
    if imu is None:
        return []
    lossy = any(facts.came[c.name].lost > _LOSSY or facts.came[c.name].every > 1 for c in (imu.gyro, imu.gravity))
    # What is integrated of noise, and of shaking faster than the log, shrinks with the gyroscope itself.
    shrinks = imu.best.kind == "scale" and imu.best.value > 1.0
    doubtful = (lossy or shrinks) and imu.best.error > (0.5 if shrinks else 0.7) * imu.plain.error
    if imu.best is imu.plain or doubtful:
        return _length(imu) or _upside_down(imu)
    best, plain = imu.best, imu.plain
    name = imu.gyro.name if best.what == "gyro" else imu.gravity.name
    fits = f"gravity turns as the gyroscope says within {best.error:.3f} then, {plain.error:.3f} before"
    weight = 300.0 * plain.error / max(best.error, 1e-3)
    if best.kind in ("scale", "degrees"):
        return [scale_finding((name,), best.value, fits, weight)]
    return [_axes(imu, best, name, fits, weight)]


def _axes(imu: Attitude, best: Reading, name: str, fits: str, weight: float) -> Finding:
    figures = {"before": imu.plain.error, "after": best.error, "reading": best.detail}
    names = "xyz"
    if best.kind == "quaternion_order":
        return Finding(
            "quaternion_order", (name,), (), f"{name} comes from a quaternion in the wrong order ({best.detail})", fits,
            "turn gravity with the quaternion as w, x, y, z (ROS messages and many SDKs have x, y, z, w)", figures,
            weight,
        )  # fmt: skip
    if best.kind == "frame" and best.detail in ("world", "inverse"):
        frame = imu.gyro.part["frame"]
        what = f"{name} is in the world's frame, expected the frame of {frame!r}"
        fix = "turn it into the body's frame: R transposed times the vector, R from the body to the world"
        if best.detail == "inverse":
            what = f"{name} is turned the wrong way: R instead of R transposed"
        return Finding("frame", (name,), (), what, fits, fix, figures, weight)
    if best.kind == "sign":
        axes = " and ".join(names[i] for i in best.elements)
        return Finding(
            "sign", (name,), best.elements, f"{places(name, best.elements)} ({axes}) has the wrong sign", fits,
            "turn the sign round, or mount the sensor as the contract's frame says", figures, weight,
        )  # fmt: skip
    if best.kind == "permuted":
        return Finding(
            "permuted", (name,), best.elements,
            f"{places(name, best.elements)} are exchanged: x, y, z are {best.detail}",
            fits, "read the axes in the contract's order", figures, weight,
        )  # fmt: skip
    return Finding(
        "frame", (name,), (), f"{name} has other axes: x, y, z are {best.detail} of it", fits,
        "turn the readings from the sensor's axes into the contract's", figures, weight,
    )  # fmt: skip


def _length(imu: Attitude) -> list[Finding]:
    """Gravity's direction has length 1; noise makes it longer."""
    length = float(np.sqrt((imu.gravity.values.mean(axis=0) ** 2).sum()))
    typical = float(np.median(np.linalg.norm(imu.gravity.values, axis=1)))
    if 0.8 < typical < 1.25:
        return []
    evidence = f"its length is {typical:.3g} (median), that of its mean {length:.3g}, expected 1"
    if 9.0 < typical < 10.6:
        return [
            Finding(
                "scale", (imu.gravity.name,), (), f"{imu.gravity.name} is in m/s^2, expected a direction of length 1",
                evidence, "divide by 9.81", {"factor": typical}, 1e3,
            )
        ]  # fmt: skip
    return [scale_finding((imu.gravity.name,), typical, evidence, 1e3)]


def _upside_down(imu: Attitude) -> list[Finding]:
    """A vector that points up instead of down turns in the same way: only its usual direction tells."""
    mean, usual = imu.gravity.values.mean(axis=0), imu.gravity.mean
    cosine = float(mean @ usual / max(float(np.linalg.norm(mean) * np.linalg.norm(usual)), 1e-9))
    start = imu.gravity.values[:3].mean(axis=0)  # before it can have fallen
    if cosine > -0.8 or float(start @ usual) > 0.0 or imu.turn < _TURNS:
        return []
    return [
        Finding(
            "sign", (imu.gravity.name,), (0, 1, 2), f"{imu.gravity.name} points the other way",
            f"its mean is {np.round(mean, 2).tolist()}, in training {np.round(usual, 2).tolist()}",
            "turn all its signs round: it is the direction of gravity, not of the force that an accelerometer shows",
            {"cosine": cosine}, 1e3,
        )
    ]  # fmt: skip
