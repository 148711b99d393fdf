"""How stiff the robot's servos are, from how its joints follow their targets under the policy.

The answer is learnt from simulated logs whose gains are known: inverse regression on a few figures of each log. Its error
is that of the simulated logs, each predicted from the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simreal.audit.joints import Joints, joints_of, usual_steps
from simreal.audit.recording import Recording
from simreal.audit.reference import Reference

Numbers = NDArray[np.float64]
_RIDGE = 3.0


@dataclass(frozen=True)
class Gains:
    """Gains of the servos in parts of the nominal ones.

    Attributes:
        factor: the estimate, with its 95 % interval.
        trained: least and largest factor of training.
        error: standard deviation of the estimate's logarithm on simulated logs.
        distance: how far the log's figures are outside those of the simulated ones, in their spread; above 3 nothing
            can be said.
    """

    factor: float
    interval: tuple[float, float]
    trained: tuple[float, float]
    error: float
    distance: float


def servo_figures(record: Recording, joints: Joints) -> Numbers | None:
    """Figures [m] of how n joints follow position targets; None where the log does not show it."""
    chosen = joints.has("position", "velocity", "target")
    if len(chosen) < len(joints.has("target")) or not len(chosen):
        return None
    q, v, u = joints.position[:, chosen], joints.velocity[:, chosen], joints.target[:, chosen]
    good = usual_steps(record)
    k = np.arange(3, len(q) - 1)
    k = k[good[k] & good[k - 1]]
    pull, drag, answer, step = np.empty((4, len(chosen)))
    for j in range(len(chosen)):
        short = np.column_stack([np.ones(len(k)), u[k, j] - q[k, j], v[k, j]])
        _, pull[j], drag[j] = np.linalg.lstsq(short, v[k + 1, j] - v[k, j], rcond=None)[0]
        past = [q[k, j], q[k - 1, j], v[k, j], v[k - 1, j], u[k, j], u[k - 1, j]]
        long = np.column_stack([np.ones(len(k)), *past])
        answer[j] = np.linalg.lstsq(long, v[k + 1, j], rcond=None)[0][-2:].sum()
        step[j] = np.linalg.lstsq(long, q[k + 1, j], rcond=None)[0][-2:].sum()
    log = lambda x: np.log(np.maximum(x, 1e-3))  # noqa: E731
    error = u - q
    rms, mean, speed = np.sqrt((error**2).mean(axis=0)), error.mean(axis=0), np.sqrt((v**2).mean(axis=0))
    pull, answer, step, rms, speed = log(pull), log(answer), log(step), log(rms), log(speed)
    overall = [pull.mean(), rms.mean(), log(np.abs(mean).mean()), (rms - speed).mean(), drag.mean(), speed.mean()]
    overall += [
        answer.mean(),
        step.mean(),
        log(np.abs(np.diff(u, axis=0)).mean()),
        log(np.abs(np.diff(v, axis=0)).mean()),
    ]
    return np.concatenate([overall, pull, rms, mean, answer, drag])


def gains_of(record: Recording, joints: Joints, known: Reference) -> Gains | None:
    """Estimate the gains of a log from a reference; None where it has no servos or the figures cannot be had."""
    ours = servo_figures(record, joints)
    rows = [
        (servo_figures(log, j), f) for log, f in zip(known.gains, known.factor, strict=True) if (j := joints_of(log))
    ]
    kept = [(x, f) for x, f in rows if x is not None and np.isfinite(x).all()]
    if ours is None or len(kept) < 10 or not np.isfinite(ours).all():
        return None
    x, y = np.array([r for r, _ in kept]), np.log(np.array([f for _, f in kept]))
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    z, target = (x - mean) / spread, (ours - mean) / spread
    design = lambda a: np.column_stack([np.ones(len(a)), a])  # noqa: E731
    a = design(z)
    penalty = _RIDGE * np.diag(np.r_[0.0, np.ones(z.shape[1])])
    solve = np.linalg.solve(a.T @ a + penalty, a.T)
    weights = solve @ y
    hat = np.einsum("ij,ji->i", a, solve)
    error = float(np.sqrt((((y - a @ weights) / (1.0 - hat)) ** 2).mean()))
    estimate = float(np.r_[1.0, target] @ weights)
    inverse = np.linalg.pinv(np.cov(z.T) + 0.05 * np.eye(z.shape[1]))
    distance = float(np.sqrt(target @ inverse @ target / z.shape[1]))
    low, high = np.exp(estimate - 1.96 * error), np.exp(estimate + 1.96 * error)
    return Gains(float(np.exp(estimate)), (float(low), float(high)), _trained(record, known), error, distance)


def _trained(record: Recording, known: Reference) -> tuple[float, float]:
    """Least and largest factor of gains in training: of the contract's ranges, else of the simulated worlds."""
    low = high = 1.0
    for entry in (record.contract.get("randomization") or {}).get("parameters", ()):
        if entry["quantity"] in ("actuator_gain", "actuator_kp", "actuator_strength") and entry["mode"] == "scale":
            low, high = low * entry["lower"], high * entry["upper"]
    return min(low, known.trained_gains[0]), max(high, known.trained_gains[1])
