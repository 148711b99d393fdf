"""What identification costs: processor time against the length of the log and the number of unknowns.

    python -m benchmarks.identify_cost OUT.json [--first 0] [--lengths 5 10 20 40] [--joints 1 3 5 7] [--seconds 10]

The arm of `identify_coverage` with damping, dry friction, rotor, kp and kd of its first joints, and the delay. All
seven joints with logs of some lengths, then fewer joints with one of them; the same hidden world throughout. OUT.json
gets a row for each fit as it comes, and what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.identify_coverage import Robot, hidden, log_of, xarm7
from randomization.parameters import build_parameters
from simreal.identify.identify import identify


def fitted(robot: Robot, seed: int, seconds: float, joints: int) -> dict[str, Any]:
    """One fit: unknowns of the first joints, the others as they are in the hidden world's model."""
    entries = {k: v for k, v in robot.entries.items() if k == "action_delay" or int(k.split()[1]) <= joints}
    asked = replace(robot, entries=entries)
    values, model = hidden(asked, seed)
    recording = log_of(asked, values, model, seed, seconds)
    begun, started = time.process_time(), time.monotonic()
    found = identify(robot.task, [recording], build_parameters(robot.task, entries), seed=seed)
    of = found.knowledge.of
    return {
        "seconds": seconds, "joints": joints, "unknowns": len(of), "told": sum(k.told for k in of),
        "held": sum(k.told and k.low <= values[k.unknown.name] <= k.high for k in of),
        "processor_s": time.process_time() - begun, "wall_s": time.monotonic() - started, "pieces": found.pieces,
    }  # fmt: skip


def main() -> None:
    """Make what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=0, help="seed of the hidden world")
    parser.add_argument("--lengths", type=float, nargs="*", default=[5.0, 10.0, 20.0, 40.0], help="of logs, s")
    parser.add_argument("--joints", type=int, nargs="*", default=[1, 3, 5, 7])
    parser.add_argument("--seconds", type=float, default=10.0, help="of the log for fewer joints")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else []
    wanted = [(seconds, 7) for seconds in options.lengths] + [(options.seconds, joints) for joints in options.joints]
    robot = xarm7()
    for seconds, joints in dict.fromkeys(wanted):
        if not any((row["seconds"], row["joints"]) == (seconds, joints) for row in rows):
            rows.append(fitted(robot, options.first, seconds, joints))
            options.out.write_text(json.dumps(rows, indent=1))
    print("| log, s | unknowns | told | of them held | processor s | wall s |\n|---|---|---|---|---|---|")
    for row in rows:
        figures = f"{row['told']} | {row['held']} | {row['processor_s']:.0f} | {row['wall_s']:.0f} |"
        print(f"| {row['seconds']:g} | {row['unknowns']} | {figures}")


if __name__ == "__main__":
    main()
