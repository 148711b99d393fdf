"""What a controller adds to a policy, in real time: cycles without a log, with a rosbag2 and with an .npz, in turns.

    python benchmarks/controller.py BUNDLE [SECONDS]

Prints p50 and p99 of a cycle (read, decide, write), of handing over a row of the log, and of the lateness of cycles.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from simreal.deploy import Controller, Limits, Policy, Reading


class Still:
    """A robot that stays where training was on average, and takes no time."""

    def __init__(self, policy: Policy) -> None:
        entries = policy.contract["observation"]
        middle = {p.name: p.offset for p, e in zip(policy.layout.observation, entries, strict=True) if e["measured"]}
        self._values = middle
        self._at = {part.name: np.zeros(len(part.low)) for part in policy.layout.action}
        self._at |= {part.name: part.offset for part in policy.layout.action if part.inverse is None}

    def read(self) -> Reading:
        return Reading(self._values, dict.fromkeys(self._values, time.monotonic()), self._at)

    def write(self, targets: Any) -> None:
        pass

    def safe(self, action: Any) -> None:
        pass


def main() -> None:
    bundle, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    policy = Policy.load(bundle)
    parts = zip(policy.layout.observation, policy.contract["observation"], strict=True)
    inputs = {p.name: p.offset for p, e in parts if not e["measured"] and p.name != "last_action"}
    observation = np.concatenate([part.offset for part in policy.layout.observation]).astype(np.float32)
    spent = []
    for _ in range(2000):
        begin = time.perf_counter()
        policy.targets(policy(observation))
        spent.append(time.perf_counter() - begin)
    p50, p99 = 1e6 * np.percentile(spent, (50, 99))
    print(f"policy and targets alone: {p50:.0f} us, p99 {p99:.0f}")
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2):
            for kind in ("", "bag", "log.npz"):
                log = Path(folder) / f"{turn}{kind}" if kind else None
                controller = Controller(
                    policy, Still(policy), inputs=inputs, record=log, limits=Limits(start_s=0.0, stall_s=1.0)
                )
                report = controller.run(seconds)
                found = {key: report["times_s"][key] for key in ("read_decide_write", "record", "late")}
                said = ", ".join(f"{key} {1e6 * t['p50']:.0f}, p99 {1e6 * t['p99']:.0f}" for key, t in found.items())
                size = sum(f.stat().st_size for f in (log.rglob("*") if log and log.is_dir() else [log] if log else []))
                per_cycle = f", {size / report['cycles']:.0f} bytes a cycle" if kind else ""
                print(f"{kind or 'no log':8} us: {said}; overruns {report['overruns']}{per_cycle}")


if __name__ == "__main__":
    main()
