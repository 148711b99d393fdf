"""A student that walks without knowing the world, beside PPO that was trained as it will be used.

    python benchmarks/go1_student.py FOLDER [--seeds 0 1] [--scale 1] [--episodes 200]

Teacher: PPO under `go1_velocity_wide`'s ADR whose policy reads the privileged group and the world, and its last three
actions. Student: ten earlier observations of what the machine measures, late and noisy as in the ranges that the
teacher reached, and estimates of the world. Further: PPO that goes on from the student, under the ADR of the teacher
from its beginning. Direct: PPO under the same ADR, with as many environment steps as these three together. All are
played in the nominal world and in those held out.

The same command goes on where it was stopped; results.json, table.md and latent.png are written as they come.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from simreal.cli.main import main as simreal
from simreal.evaluation.intervals import wilson

_STEPS = {"teacher": 2_500_000, "student": 500_000, "further": 3_000_000, "direct": 6_000_000}
_STUDENT: dict[str, Any] = {
    "algorithm": "distill", "observation_history": 10, "actor_hidden": [128, 128], "horizon": 24, "rollouts": 8,
    "gradient_steps": 20, "batch_size": 2048, "lr": 1e-3, "lr_schedule": "linear", "initial_std": 0.12,
    "latent": "regression",
}  # fmt: skip
_WORLDS = ("nominal", "held_out")


def train(arm: str, folder: Path, seed: int, scale: float) -> Path:
    """The run of an arm: trained, or gone on with, or found finished."""
    run, teacher = folder / f"{arm}-{seed}", folder / f"teacher-{seed}"
    steps = max(int(_STEPS[arm] * scale), 2 * 512 * 24)
    always = [
        f"seed={seed}", f"train.env_steps={steps}", "evaluate.episodes=2", "evaluate.worlds=[nominal]",
        f"train.log_interval={max(steps // 40, 12_288)}",
    ]  # fmt: skip
    config, options = "go1_velocity_wide", []
    if arm == "teacher":
        options = ["learner.actor_reads=privileged", "learner.action_history=3"]
    elif arm == "further":
        options = [f"learner.observation_history={_STUDENT['observation_history']}", "learner.critic_warmup=8"]
        options += [f"learner.initial_policy={folder / f'student-{seed}'}", "learner.lr=0.0002"]
    elif arm == "student":
        config = str(folder / f"{arm}-{seed}.yaml")
        learner, worlds = _STUDENT | {"teacher": str(teacher)}, {"sampler": "frozen", "source": str(teacher)}
        document = {"task": "Go1Velocity-v0", "num_envs": 512, "learner": learner, "randomization": worlds}
        Path(config).write_text(json.dumps(document))  # JSON is YAML
    if not (run / "evaluation.json").exists():
        resume = ["--resume"] if run.is_dir() else []
        simreal(["train", config, *always, *options, "--run-dir", str(run), *resume])
    return run


def evaluate(run: Path, episodes: int) -> list[dict[str, Any]]:
    """Rows of the worlds, from the file that an earlier call has left."""
    target = run.with_name(f"{run.name}.worlds.json")
    if not target.exists():
        worlds = [part for world in _WORLDS for part in ("--world", world)]
        simreal(["evaluate", str(run), *worlds, "--episodes", str(episodes), "--json", str(target)])
    return json.loads(target.read_text())["worlds"]


def known(run: Path) -> dict[str, list[tuple[float, float]]]:
    """What a student knows of each parameter, 1 - MSE/variance, against environment steps."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("latent.")]
    return {
        name.removeprefix("latent."): [(float(row["env_steps"]), float(row[name])) for row in rows if row[name]]
        for name in names
    }


def write(folder: Path, results: dict[str, list[dict[str, Any]]], latent: dict[str, list[tuple[float, float]]]) -> None:
    """results.json, table.md and latent.png of what is there so far."""
    last = {name: sum(y for _, y in values[-5:]) / len(values[-5:]) for name, values in latent.items()}
    (folder / "results.json").write_text(json.dumps({"worlds": results, "latent": last}, indent=1) + "\n")
    names = [row["name"] for row in next(iter(results.values()))]
    lines = ["| arm | " + " | ".join(names) + " | held out, all |", "|---" * (len(names) + 2) + "|"]
    for arm, rows in results.items():
        held = [row for row in rows if row["group"] == "held_out"]
        counts = [(round(row["success_rate"] * row["episodes"]), row["episodes"]) for row in (*rows,)]
        counts.append((sum(round(r["success_rate"] * r["episodes"]) for r in held), sum(r["episodes"] for r in held)))
        cells = [f"{k / n:.3f} ({wilson(k, n)[0]:.3f} to {wilson(k, n)[1]:.3f})" for k, n in counts]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += ["", "| parameter | known of it at the end |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in sorted(last.items(), key=lambda item: -item[1])]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    if latent:
        figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
        for (name, values), style in zip(latent.items(), ["-", "--", ":"] * len(latent), strict=False):
            axes.plot([x / 1e6 for x, _ in values], [y for _, y in values], style, label=name)
        axes.set(xlabel="million environment steps", ylabel="1 - MSE / variance", ylim=(-0.5, 1.0))
        axes.set_title("What a walking Go1 can feel of its world")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(folder / "latent.png", dpi=110)
        plt.close(figure)


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description="A student of a privileged teacher beside PPO, on Go1Velocity-v0.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of steps")
    parser.add_argument("--episodes", type=int, default=200, help="in every world")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, Any]]] = {}
    latent: dict[str, list[tuple[float, float]]] = {}
    for seed in options.seeds:
        for arm in _STEPS:
            run = train(arm, folder, seed, options.scale)
            results[run.name] = evaluate(run, options.episodes)
            if arm == "student":
                latent = latent or known(run)
            write(folder, results, latent)


if __name__ == "__main__":
    main()
