"""Toy gaits that repeat themselves exactly, sound and with faults, and what an audit says of them without simulation.

    python -m benchmarks.audit_gaits [--json FILE]

Six servos, of which three move half a period after the other three as the legs of a trot do, pushed by a ground that
reaches across: 24 gaits of 7.3 to 30 cycles, with two shapes. Each is given as it is, with noise, with a start from
rest and a change of speed, and each of those with faults. Nothing may be said of a sound one, and nothing but the fault
of a faulty one; that a fault is not seen in a gait that repeats itself is counted apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from plain_robot import HOME, PERIOD_S, contract, log
from simreal.audit.facts import facts_of
from simreal.audit.lags import lag_findings
from simreal.audit.recording import recording
from simreal.audit.verdicts import joint_findings

Numbers = NDArray[np.float64]
Values = dict[str, Numbers]
PERIODS = (7.3, 8.0, 9.7, 10.0, 11.1, 12.0, 13.6, 15.0, 17.2, 20.0, 24.9, 30.0)
CYCLES, FINE = 700, 10


def gait(period: float, shape: int, changing: bool, noise: float, seed: int = 0) -> Values:
    """What the robot shows; `changing`: it starts from rest, and its speed changes in the middle."""
    rng = np.random.default_rng(seed)
    pace = np.full(CYCLES, 1.0 / period)
    grown = np.ones(CYCLES)
    if changing:
        pace[CYCLES // 3 : CYCLES // 2] *= 0.8
        pace[CYCLES // 2 :] *= 1.2
        grown = np.minimum(np.arange(CYCLES) / 50.0, 1.0)
    phase = 2.0 * np.pi * np.cumsum(pace)[:, None] + np.array([0.0, 0.5, 1.0, np.pi, np.pi + 0.5, np.pi + 1.0])
    second = np.array([0.0, 0.0, 0.0, 3.0, 3.0, 3.0]) if shape else np.array([0.3, 1.0, 2.0, 0.3, 1.0, 2.0])
    target = HOME + grown[:, None] * (0.25 * np.sin(phase) + 0.1 * np.sin(2.0 * phase + second))
    q, v, step = HOME.copy(), np.zeros(6), PERIOD_S / FINE
    position, velocity = np.empty_like(target), np.empty_like(target)
    for k in range(CYCLES):
        position[k], velocity[k] = q, v
        for _ in range(FINE):
            pushed = 12.0 * np.roll(np.maximum(q - HOME, 0.0), 3)  # by the ground, with the leg on the other side
            v = v + step * (40.0 * (target[k] - q) - 1.0 * v - pushed) / 0.05
            q = q + step * v
    position = position + noise * 0.003 * rng.standard_normal(position.shape)
    velocity = velocity + noise * 0.05 * rng.standard_normal(velocity.shape)
    return {"joint_pos": position, "joint_vel": velocity, "joint_target": target}


def late(x: Numbers, cycles: int) -> Numbers:
    return np.concatenate([np.repeat(x[:1], cycles, axis=0), x[:-cycles]])


def spoilt(values: Values, fault: str) -> Values:
    """The same with a fault."""
    q, v = values["joint_pos"], values["joint_vel"]
    order = [0, 4, 2, 3, 1, 5]
    turned = np.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    return (
        values
        | {
            "": {},
            "exchanged": {"joint_pos": q[:, order], "joint_vel": v[:, order]},
            "velocities exchanged": {"joint_vel": v[:, order]},
            "sign": {"joint_pos": q * turned, "joint_vel": v * turned},
            "velocity late": {"joint_vel": late(v, 2)},
            "joints late": {"joint_pos": late(q, 2), "joint_vel": late(v, 2)},
            "velocity halved": {"joint_vel": 0.5 * v},
        }[fault]
    )


FAULTS = {
    "": "", "exchanged": "permuted", "velocities exchanged": "permuted", "sign": "sign", "velocity late": "lag",
    "joints late": "lag", "velocity halved": "scale",
}  # fmt: skip


def said(values: Values) -> list[Any]:
    facts = facts_of(recording(log(values), contract(), {}))
    found = joint_findings(facts)
    if not any(f.kind in ("permuted",) for f in found):
        found = found + lag_findings(facts)
    return found


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    table: dict[str, Any] = {}
    ways = {"exact": (False, 0.0), "noisy": (False, 1.0), "changing": (True, 0.0), "changing, noisy": (True, 1.0)}
    for how, (changing, noise) in ways.items():
        for fault, kind in FAULTS.items():
            counts: Counter[str] = Counter()
            for period in PERIODS:
                for shape in (0, 1):
                    found = said(spoilt(gait(period, shape, changing, noise), fault))
                    kinds = {f.kind for f in found}
                    wrong = kinds - {kind}
                    counts["false"] += bool(wrong)
                    counts["named"] += bool(kind) and kind in kinds and not wrong
                    counts["nothing"] += not kinds
                    if options.verbose and wrong:
                        print(how, fault, period, shape, [(f.kind, f.text, f.evidence[:90]) for f in found])
            table[f"{how}: {fault or 'sound'}"] = dict(counts)
            print(f"{how}: {fault or 'sound'}: {dict(counts)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
