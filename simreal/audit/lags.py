"""Who is late: signals of one robot against each other and against what was sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from simreal.audit.facts import REPEATS, Facts
from simreal.audit.findings import Finding
from simreal.audit.recording import Recording

_LATE = 0.75  # cycles that are called late
_CLOSE = 0.6  # correlation of a velocity with the rate of its position that is more than noise
Interval = tuple[float, float]


def lag_findings(facts: Facts) -> list[Finding]:
    """Components that are later than the others, or all of them later than what was sent allows."""
    out = _stamped(facts)
    joints = facts.joints
    late: set[str] = {name for finding in out for name in finding.components}
    close = facts.rate is not None and float(np.median(np.abs(facts.rate.strength.diagonal()))) > _CLOSE
    if joints is not None and facts.rate is not None and close and _is_late(abs(facts.rate.lag), facts.rate.interval):
        kind = "velocity" if facts.rate.lag > 0 else "position"
        name = joints.component(kind, facts.rate.joints)[0]
        against = joints.component("position" if kind == "velocity" else "velocity", facts.rate.joints)[0]
        out.append(_late(facts, (name,), facts.rate.lag, facts.rate.interval, against))
        late.add(name)
    imu = facts.imu
    if imu is not None and imu.best is imu.plain and imu.turn > 0.2 and _is_late(abs(imu.lag), imu.interval):
        first, second = (imu.gyro.name, imu.gravity.name) if imu.lag > 0 else (imu.gravity.name, imu.gyro.name)
        out.append(_late(facts, (second,), imu.lag, imu.interval, first))
        late.add(second)
    if late:
        return out
    behind = _behind_joints(facts)
    if behind > 0.0 and imu is not None and facts.imu_lag is not None:
        names = (imu.gyro.name, imu.gravity.name)
        return [*out, _late(facts, names, behind, facts.imu_lag[1], "the joints")]
    return out + _behind_targets(facts, behind < 0.0)


def _is_late(lag: float, interval: Interval) -> bool:
    """Late by most of a cycle, and known well enough."""
    return lag > _LATE and interval[1] - interval[0] < max(1.0, 0.5 * lag)


def _late(facts: Facts, names: tuple[str, ...], lag: float, interval: Interval, against: str) -> Finding:
    step = 1e3 * facts.record.step_s
    low, high = sorted((abs(interval[0]) * step, abs(interval[1]) * step))
    lag_ms = abs(lag) * step
    return Finding(
        "lag", names, (), f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {lag_ms:.0f} ms late",
        f"behind {against} by {lag_ms:.0f} ms (95 % interval {low:.0f} to {high:.0f}), by correlation",
        "take the newest message: look for a queue, a filter or a slow bus in front of this sensor",
        {"lag_ms": lag_ms, "interval_ms": [low, high]}, 500.0 * abs(lag),
    )  # fmt: skip


def _stamped(facts: Facts) -> list[Finding]:
    """Components whose stamps say that they are old."""
    out: list[Finding] = []
    record = facts.record
    allowed = trained_delay_s(record) + max(1.5 * record.period_s, 0.005)
    for name, arrival in facts.came.items():
        if arrival.channel.part["measured"] and arrival.age_s > allowed and not arrival.frozen:
            age = 1e3 * arrival.age_s
            out.append(
                Finding(
                    "lag", (name,), (), f"{name} is {age:.0f} ms old when it is used",
                    f"by its stamps (median), trained at most {1e3 * trained_delay_s(record):.0f} ms",
                    "take the newest message, and look at the clocks",
                    {"lag_ms": age}, 1e4,
                )
            )  # fmt: skip
    return out


def trained_delay_s(record: Recording) -> float:
    """The longest delay of actions and sensors together that the policy was trained with."""
    total = 0.0
    for entry in (record.contract.get("randomization") or {}).get("parameters", ()):
        if entry["quantity"] in ("action_delay", "observation_delay"):
            unit = {"ms": 1e-3, "s": 1.0, "steps": record.period_s, "step": record.period_s}.get(entry["unit"], 0.0)
            total += unit * float(entry["upper"])
    return total


def _behind_joints(facts: Facts) -> float:
    """Cycles that the IMU is later than the joints: above 0 the IMU is late, below the joints are; 0 for neither."""
    if facts.imu_lag is None or not facts.dynamic:
        return 0.0
    lag, interval, explained = facts.imu_lag
    return lag if explained > 0.4 and _is_late(abs(lag), interval) else 0.0


def answer(facts: Facts) -> tuple[float, Interval] | None:
    """Cycles from what was sent to the joints' answer, with its interval."""
    relation = (facts.velocity or facts.position) if facts.dynamic else facts.level
    return None if relation is None else (relation.lag, relation.interval)


def unjudged(facts: Facts) -> list[str]:
    """What the log cannot show, in sentences."""
    if facts.dynamic or facts.repeats < REPEATS:
        return []
    return [
        "whether what is sent arrives late, and which of two joints that move alike it moves: the gait repeats itself "
        f"in {facts.repeats:.0%} of the log, and too little departs from it. Record a change of command or a push"
    ]


def _behind_targets(facts: Facts, joints_only: bool) -> list[Finding]:
    joints, measured = facts.joints, answer(facts)
    if joints is None or measured is None or unjudged(facts):
        return []
    lag, interval = measured
    expected = _expected(facts)
    extra = lag - expected
    if not (extra > _LATE and interval[1] - interval[0] < 1.0):
        return []
    names = list(dict.fromkeys(p[0] for kind in ("position", "velocity") for p in joints.place[kind] if p is not None))
    if not joints_only and facts.imu is not None and facts.dynamic:
        names += [facts.imu.gyro.name, facts.imu.gravity.name]
    step = 1e3 * facts.record.step_s
    over: Any = [float((x - min(lag, 0.0)) * step) for x in interval]
    what = "what is measured of the joints" if joints_only else "what is measured, or what is sent,"
    return [
        Finding(
            "lag", tuple(names), (), f"{what} is {lag * step:.0f} ms late: {', '.join(names)}",
            f"joints answer {lag * step:.0f} ms after what was sent (95 % interval {over[0]:.0f} to {over[1]:.0f}), by "
            f"correlation; expected at most {max(expected, 0.0) * step:.0f} ms, with the delays of training",
            "look for a queue, a filter or a slow bus between controller and motors; or train with this delay",
            {"lag_ms": lag * step, "interval_ms": over, "expected_ms": max(expected, 0.0) * step}, 500.0 * extra,
        )
    ]  # fmt: skip


def _expected(facts: Facts) -> float:
    """Cycles until joints answer on a sound robot: a motor's own, and the delays of training."""
    record = facts.record
    delay = trained_delay_s(record) / record.step_s
    if facts.dynamic:  # the answer to a target shows in the next cycle already
        return max(delay - 0.5, 0.0)
    damped = [
        float(np.median(np.array(p["damping"]) / np.array(p["stiffness"])))
        for p in record.contract["action"]
        if p["stiffness"] and p["damping"] and min(p["stiffness"]) > 0
    ]
    return 1.5 + delay + max(damped, default=0.05) / record.step_s
