"""What motors cost: steps of 64 environments with none, with a torque-speed curve, with all quantities, with a network.

    python benchmarks/motors_cost.py [ACTUATOR]

Quantities are at values that change nothing, so that all arms simulate the same motion but the network's, whose robot
stands less well. Arms take turns; processor time, the median of the turns.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

import torch

from simreal.training.build import make_environment

ENVS, TURNS, STEPS = 64, 15, 8
CURVE = {"motor_no_load_speed": 1e6}
ALL = CURVE | {
    "motor_stall_torque": 1.0, "supply_sag": 0.0, "motor_continuous_torque": 1.0, "motor_start_heat": 0.0,
    "motor_friction_load": 0.0, "motor_stiction": 0.0, "gear_efficiency": 1.0, "gear_backdrive_efficiency": 1.0,
}  # fmt: skip


def _block(values: dict[str, float]) -> dict[str, Any]:
    return {"parameters": {name: {"range": [value, value]} for name, value in values.items()}}


def main() -> None:
    """Print env-steps/s of each arm and its time as a multiple of the first one's."""
    torch.set_num_threads(1)
    for task in ("Go1Velocity-v0", "HalfCheetah-v5"):
        arms: dict[str, tuple[Any, dict[str, Any]]] = {
            "none": (None, {}), "curve": (_block(CURVE), {}), "all": (_block(ALL), {})
        }  # fmt: skip
        if task.startswith("Go1") and len(sys.argv) > 1:
            arms["network"] = (None, {"actuator": sys.argv[1]})
        envs = {
            name: make_environment(task, ENVS, block, engine="cpu", threads=1, task_options=options)
            for name, (block, options) in arms.items()
        }
        times: dict[str, list[float]] = {name: [] for name in envs}
        for env in envs.values():
            env.reset()
        for _ in range(TURNS):
            action = 0.3 * (2.0 * torch.rand(ENVS, envs["none"].task.action_size) - 1.0)
            for name, env in envs.items():
                start = time.process_time()
                for _ in range(STEPS):
                    env.step(action)
                times[name].append(time.process_time() - start)
        for name, found in times.items():
            ratios = median(t / base for t, base in zip(found, times["none"], strict=True))
            print(f"{task:15} {name:8} {STEPS * ENVS / median(found):8.0f} env-steps/s  {ratios:.2f}", flush=True)


if __name__ == "__main__":
    main()
