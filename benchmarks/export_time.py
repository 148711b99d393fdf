"""How long the export of a policy takes: from its stated layers, and traced by torch's exporter, as it was before.

    python benchmarks/export_time.py [--rounds 3] [--configs go1_velocity hidden_velocity] [--json FILE]

Policies of shipped configurations, with the weights that training begins with. The ways take turns, each in a new
process: `first` is its first export, with all that it imports; `again` the median of five more. Medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

WAYS = ("layers", "traced")
CONFIGS = ("fetch_reach", "go1_velocity", "hidden_velocity", "allegro_cube")


def worker(way: str, name: str) -> dict[str, float]:
    """Seconds of the exports of one process."""
    from simreal.training.build import make_environment, make_learner
    from simreal.training.run_config import load_config

    config = load_config(name)
    options: dict[str, Any] = {"engine": "cpu", "explore": False, "task_options": config.task_options}
    environment = make_environment(config.task, 1, config.randomization, **options)
    environment.reset()
    alone = {"num_envs": 1, "device": "cpu", "learner": config.learner.without_experience()}
    policy = make_learner(config.model_copy(update=alone), environment).policy
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(6):
            begin = time.perf_counter()
            from simreal.export import source
            from simreal.export.bundle import export_bundle

            if way == "traced":
                source._layers = lambda *_: None
            export_bundle(policy, environment.task, Path(folder) / "bundle")
            seconds.append(time.perf_counter() - begin)
    assert ("torch.onnx" in sys.modules) == (way == "traced")
    return {"first": seconds[0], "again": median(seconds[1:])}


def main() -> None:
    """Measure, print a table, and write the JSON file."""
    parser = argparse.ArgumentParser(description="Seconds of an export.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=2, metavar=("WAY", "CONFIG"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(*options.worker)))
        return
    found: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'':24}{'first':>10}{'again':>10}   s")
    for name in options.configs:
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--worker", way, name]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rounds[way].append(json.loads(done.stdout))
        found[name] = {way: {key: median(r[key] for r in each) for key in each[0]} for way, each in rounds.items()}
        for way, times in found[name].items():
            print(f"{name:17}{way:7}{times['first']:10.3f}{times['again']:10.3f}")
        ratios = {key: found[name]["traced"][key] / found[name]["layers"][key] for key in ("first", "again")}
        print(f"{'':17}{'ratio':7}{ratios['first']:10.1f}{ratios['again']:10.1f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
