"""Which held-out looks an estimator misreads: one kind of visual difference beyond its ranges, all else as it is.

    python -m benchmarks.held_out_looks RUN [RUN ...] [--frames 1000] [--json FILE]

All runs are shown the same pictures where their configurations have the same ranges.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from simreal.vision.estimator.assess import read_looks, summarize_looks
from simreal.vision.estimator.config import EstimatorConfig
from simreal.vision.estimator.loading import Estimator, load_estimator
from simreal.vision.estimator.looks import LookWorlds, find_look

_KINDS = {
    "camera's place and angle": ("camera_position", "camera_rotation"),
    "camera's field of view": ("camera_fov",),
    "lights": ("light_",),
    "surfaces, of unseen patterns": ("material_",),
    "background": ("background_",),
    "the picture's colours and noise": ("image_",),
    "all but the camera": ("light_", "material_", "background_", "image_"),
    "all at once": ("",),
}


def look_of(config: EstimatorConfig, kind: str, estimator: Estimator) -> LookWorlds:
    """Held-out looks of some parameters alone."""
    starts = _KINDS[kind]
    block = config.randomization
    entries = {name: entry for name, entry in block.parameters.items() if name.startswith(starts)}
    some = config.model_copy(update={"randomization": block.model_copy(update={"parameters": entries})})
    unseen = any("material_".startswith(start) for start in starts)
    return replace(find_look("held_out", some, estimator.looks), name=kind, unseen=unseen)


def main() -> None:
    """Read, print, write."""
    parser = argparse.ArgumentParser(description="Which held-out looks an estimator misreads.")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=1000, help="pictures of each kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for run in options.runs:
        estimator = load_estimator(run)
        for kind in _KINDS:
            look = look_of(estimator.config, kind, estimator)
            row = summarize_looks(look, read_looks(estimator, look, options.frames, 1_000_003), estimator.readings)
            found.append({"run": run.name, **row})
            for name, target in row["targets"].items():
                low, high = target["median_ci95"]
                print(f"| {run.name} | {kind} | {name} | {1000 * target['median']:.1f} mm | {1000 * low:.1f} to "
                      f"{1000 * high:.1f} | {target['coverage']:.2f} |", flush=True)  # fmt: skip
            if options.json is not None:
                options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
