"""Does it pay to identify a robot before training? One command, which goes on where it was:

    python -m benchmarks.identify_pays FOLDER arm|go1 [--steps N] [--seeds 0 1] [--episodes 200] [--neighbours 8]

A hidden world is drawn by a seed (as in `identify_coverage`), a log of it is made and identified. Then
`simreal study FOLDER/study.yaml` trains, at equal budget: without randomization; in ranges that somebody chose
(`manual`); with ADR; and in the identified ranges. All are evaluated in the hidden world and in its neighbours: each of
its values moved by up to a tenth of the range in which it was looked for. At the end a table has, beside success, the
return and what the task calls an error (a Go1's of velocity) in both: means over the seeds' episodes, and of the
differences from the identified ranges the 95 % interval over pairs of the same episodes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.identify_coverage import Robot, arm, arm_reach, go1_stand, hidden, log_of
from randomization.parameters import build_parameters
from simreal.cli.main import main as simreal_main
from simreal.evaluation.intervals import bootstrap_ci
from simreal.identify.answer.files import block, document
from simreal.identify.identify import identify
from simreal.identify.unknowns import Scales, unknown_of
from simreal.training.run_config import find_config, read_yaml

_NEAR = 0.2  # of the prior range's half: a tenth of the range
_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def world_file(path: Path, robot: Robot, values: dict[str, float]) -> str:
    """Write a world with these values, return its path."""
    parameters = {
        name: {**{k: v for k, v in entry.items() if k != "range"}, "range": [values[name]] * 2}
        for name, entry in robot.entries.items()
    }
    content = {"name": path.stem, "randomization": {"sampler": "manual", "parameters": parameters}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def neighbours(robot: Robot, values: dict[str, float], count: int, seed: int) -> list[dict[str, float]]:
    """Worlds around one, within the ranges."""
    unknowns = [unknown_of(p) for p in build_parameters(robot.task, robot.entries)]
    scales, generator = Scales(unknowns), np.random.default_rng(3000 + seed)
    z = scales.inward(np.array([values[u.name] for u in unknowns]))
    moved = np.clip(z + generator.uniform(-_NEAR, _NEAR, (count, len(z))), -1.0, 1.0)
    return [dict(zip([u.name for u in unknowns], row.tolist(), strict=True)) for row in scales.outward(moved)]


def find(robot: Robot, folder: Path, seed: int, seconds: float, count: int) -> list[str]:
    """Identify a hidden world; the files of it and of its neighbours."""
    values, model = hidden(robot, seed)
    if not (folder / "identified.yaml").exists():
        recording = log_of(robot, values, model, seed, seconds)
        found = identify(robot.task, [recording], build_parameters(robot.task, robot.entries), seed=seed, say=print)
        (folder / "identified.json").write_text(json.dumps({"true": values, **document(found)}, indent=1))
        (folder / "identified.yaml").write_text(block(found, f"hidden world {seed}, {seconds:g} s of log"))
    files = [world_file(folder / "hidden.yaml", robot, values)]
    for i, near in enumerate(neighbours(robot, values, count, seed)):
        files.append(world_file(folder / f"near{i}.yaml", robot, near))
    return files


def arms(name: str, identified: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a robot's study, and its arms."""
    if name == "go1":
        manual = read_yaml(find_config("configs/studies/go1_velocity.yaml"))["arms"]["manual"]["set"]["randomization"]
        base, widest = read_yaml(find_config("go1_velocity_wide")), ("motor_strength", "gains")
    else:
        base, widest = read_yaml(_EXAMPLES / "arm_reach.yaml"), ("servo", "link_mass")
        manual = {"sampler": "manual", "parameters": base["randomization"]["parameters"]}
    # What the log spoke of is not guessed beside it; sensors and pushes are as in the manual ranges.
    rest = {label: entry for label, entry in manual["parameters"].items() if label not in widest}
    return base, {
        "none": {"set": {"randomization.sampler": "none"}},
        "manual": {"set": {"randomization": manual}},
        "adr": {},
        "identified": {"set": {"randomization": {"sampler": "manual", "from": str(identified), "parameters": rest}}},
    }


def figures(study: Path, kinds: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Of each arm, in the hidden world and in its neighbours: mean success, return and errors, and by how much the
    identified ranges are apart, paired by world, seed and episode, with the ends of 95 % bootstrap intervals."""

    def worlds(kind: str, near: bool) -> list[dict[str, Any]]:
        files = [study / "runs" / f"{kind}-{seed}" / "evaluation.json" for seed in seeds]
        found = [world for file in files for world in json.loads(file.read_text())["worlds"]]
        return [w for w in found if w["name"] != "nominal" and (w["name"] != "hidden") == near]

    def episodes(kind: str, near: bool, name: str) -> np.ndarray:
        return np.concatenate([world["samples"][name] for world in worlds(kind, near)]).astype(float)

    def error(kind: str, near: bool, name: str) -> float | None:
        found = [world["measures"][name]["mean"] for world in worlds(kind, near) if name in world["measures"]]
        return float(np.mean(found)) if found else None

    rows: list[dict[str, Any]] = []
    for near in (False, True):
        for kind in kinds:
            row: dict[str, Any] = {"worlds": "neighbours" if near else "hidden", "arm": kind}
            for name in ("success", "return"):
                own, other = episodes(kind, near, name), episodes("identified", near, name)
                row[name], row[f"identified_{name}_more"] = float(own.mean()), float((other - own).mean())
                row[f"identified_{name}_more_ci95"] = bootstrap_ci(other - own).tolist()
            row |= {name: error(kind, near, name) for name in ("linear_error", "turning_error")}
            rows.append(row)
    return rows


def main() -> None:
    """Make what is missing, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("robot", choices=["arm", "go1"])
    parser.add_argument("--steps", type=int, help="of each training; default: the configuration's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--neighbours", type=int, default=8)
    parser.add_argument("--world", type=int, default=0, help="seed of the hidden one")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the log")
    told = parser.parse_args()
    folder: Path = told.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    robot = go1_stand() if told.robot == "go1" else arm(arm_reach.ArmReach())
    worlds = find(robot, folder, told.world, told.seconds, told.neighbours)
    config, kinds = arms(told.robot, folder / "identified.yaml")
    steps = {} if told.steps is None else {"train.env_steps": told.steps}
    for kind in kinds.values():
        kind["set"] = {**kind.get("set", {}), **steps, "train.keep_checkpoints": 1}
    study = {
        "name": f"identify_pays_{told.robot}", "config": config, "seeds": told.seeds,
        "evaluate": {"episodes": told.episodes, "worlds": ["nominal", *worlds]}, "arms": kinds,
    }  # fmt: skip
    plain = json.loads(json.dumps(study))  # nothing of it twice: YAML would write an alias
    (folder / "study.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    simreal_main(["study", str(folder / "study.yaml"), "--run-dir", str(folder / "study"), "--no-pictures"])
    rows = figures(folder / "study", list(kinds), told.seeds)
    (folder / "figures.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print("; ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
