"""What the commands do, from arguments to printed result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from envs.registry import make_task
from simreal.budget import budget_warning
from simreal.checkpoint import newest_checkpoint
from simreal.config import RunConfig, load_config
from simreal.errors import UserError
from simreal.evaluate import evaluate, find_world, write_target
from simreal.export import ExportError, export_bundle
from simreal.named_code import naming
from simreal.progress import Progress
from simreal.runs import LoadedPolicy, is_bundle, load_policy, new_run_directory, newest_run, run_config
from simreal.train import Interrupted, Trainer

_RESUME_MAY_CHANGE = ("train", "evaluate", "threads")


def train_command(name: str, overrides: list[str], run_dir: Path | None, resume: bool, out: Console) -> None:
    """`simreal train`. Raises UserError before anything is written; Interrupted after a checkpoint."""
    config = load_config(name, overrides)
    run = (run_dir or newest_run(name)) if resume else new_run_directory(name, run_dir)
    checkpoint = _checkpoint_to_resume(run, config) if resume else None
    torch.set_num_threads(1)
    trainer = Trainer(config, run)
    if checkpoint is not None:
        trainer.load(checkpoint)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(config.to_yaml())
    total, adr = config.train.env_steps, config.randomization.sampler in ("adr", "doraemon")
    at = f", from step {trainer.env_steps:,}" if checkpoint else ""
    out.print(f"Training {config.task} with {config.learner.algorithm.upper()} for {total:,} steps in {run}{at}")
    warning = budget_warning(trainer.layer.sampler, total, trainer.environment.max_episode_steps)
    if warning is not None:
        out.print(warning)
    try:
        trainer.train(Progress(total, trainer.env_steps, out, adr))
    except Interrupted:
        resume_line = f"simreal train {name} {' '.join([*overrides, ''])}--run-dir {run} --resume"
        raise Interrupted(f"interrupted at step {trainer.env_steps:,}; to continue: {resume_line}") from None
    out.print(f"Trained {trainer.env_steps:,} steps in {trainer.seconds:.1f} s")
    finish(run, out)


def finish(run: Path, out: Console) -> None:
    """Evaluate and export a finished run, and say where everything is."""
    policy = load_policy(run)
    assert policy.config is not None
    settings = policy.config.evaluate
    figures = evaluate(policy, settings.worlds, settings.episodes, settings.num_envs, settings.seed)
    (run / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n")
    out.print(figures_table(figures))
    bundle, code = _export(run, policy, run / "bundle", figures), naming(policy.task_id)
    out.print(f"""
  {run / "config.yaml"}      the complete configuration
  {run / "metrics.csv"}, {run / "adr.csv"}      learning curve, ranges over time (also: tensorboard --logdir {run})
  {run / "checkpoints"}      to resume from
  {run / "evaluation.json"}      the figures above
  {bundle}      the policy for your robot: see docs/deploy.md

Next:
  simreal play {run} --video policy.mp4{code}
  simreal evaluate {run} --world nominal --world latency{code}
  simreal evaluate {bundle}{code}
""")


def _checkpoint_to_resume(run: Path, config: RunConfig) -> dict[str, Any]:
    """The newest checkpoint of a run whose configuration agrees with `config`."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run to resume")
    before, now = run_config(run).model_dump(), config.model_dump()
    checkpoint = newest_checkpoint(run, config.task)
    for key in now:
        if key not in _RESUME_MAY_CHANGE and before[key] != now[key]:
            raise UserError(f"{key}: differs from {run / 'config.yaml'}; a resumed run may change only train, evaluate")
    return checkpoint


def evaluate_command(
    path: Path, worlds: list[str], episodes: int, seed: int, json_file: Path | None, task: str | None, out: Console
) -> None:
    """`simreal evaluate`."""
    policy = load_policy(path, task)
    for world in worlds:
        find_world(world, policy)
    target = None if json_file is None else write_target(json_file)
    figures = evaluate(policy, worlds, episodes, 50, seed)
    out.print(figures_table(figures))
    if target is not None:
        target.write_text(json.dumps(figures, indent=2) + "\n")


def export_command(run: Path, output: Path | None, task: str | None, out: Console) -> None:
    """`simreal export`."""
    if run.is_dir() and is_bundle(run):
        raise UserError(f"{run}: is a bundle already; expected a run directory")
    policy = load_policy(run, task)
    figures = None
    if (run / "evaluation.json").is_file():
        figures = json.loads((run / "evaluation.json").read_text())
    out.print(f"{_export(run, policy, output or run / 'bundle', figures)}: exported {policy.task_id}")


def _export(run: Path, policy: LoadedPolicy, output: Path, figures: dict[str, Any] | None) -> Path:
    assert policy.module is not None
    assert policy.config is not None
    try:
        return export_bundle(
            policy.module,
            policy.make_task(),
            output,
            task_name=policy.task_id,
            randomization=policy.randomization,
            evaluation=figures,
            run={"seed": policy.config.seed, "config": policy.config.model_dump(mode="json")},
        )
    except ExportError as error:
        raise UserError(f"{run}: {error}") from None


def figures_table(figures: dict[str, Any]) -> Table:
    """The figures of an evaluation for people."""
    entropy = figures["adr_entropy_npd"]
    title = f"{figures['policy']} on {figures['task']}"
    title += "" if entropy is None else f", entropy of the trained ranges {entropy:+.2f} npd"
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("world", "episodes", "success", "95 % interval", "return", "median", "worst 10 %"):
        table.add_column(column, justify="left" if column == "world" else "right")
    judged = make_task(figures["task"]).has_success
    for world in figures["worlds"]:
        low, high = world["success_ci95"]
        success = (f"{world['success_rate']:.3f}", f"{low:.3f} to {high:.3f}") if judged else ("-", "-")
        table.add_row(
            world["name"], str(world["episodes"]), *success,
            f"{world['return_mean']:.2f} ± {world['return_se']:.2f}", f"{world['return_median']:.2f}",
            f"{world['return_cvar10']:.2f}",
        )  # fmt: skip
    return table
