"""`simreal estimate`, from arguments to printed result."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from simreal.common.atomic_files import owned, write_text
from simreal.common.errors import UserError
from simreal.common.json_io import read_json, to_json, write_target
from simreal.common.made_here import remember
from simreal.common.trusted_code import module_of, trust
from simreal.training.checkpoint import EVALUATION, checkpoints, newest_checkpoint
from simreal.training.run_config import first_difference
from simreal.training.run_directory import is_empty, new_run_directory, newest_run, refuse_filled
from simreal.training.trainer import Interrupted
from simreal.vision.estimator.assess import USUAL, assess, assessment_table, noise_block
from simreal.vision.estimator.config import EstimatorConfig, estimator_config, load_estimator_config
from simreal.vision.estimator.in_loop import in_loop_table, play_on_estimates
from simreal.vision.estimator.loading import load_estimator
from simreal.vision.estimator.looks import find_look
from simreal.vision.estimator.rounds import with_folder
from simreal.vision.estimator.trainer import EstimatorTrainer, with_estimator_threads
from simreal.vision.sensors.config import SensorConfig

_RESUME_MAY_CHANGE = ("evaluate", "device")


def estimate_command(name: str, overrides: Sequence[str], run_dir: Path | None, resume: bool, out: Console) -> Path:
    """Train an estimator and assess it. Returns the run directory. Raises UserError before anything is written;
    Interrupted after a checkpoint."""
    config = with_folder(load_estimator_config(name, overrides))
    for look in config.evaluate.looks:
        if look != "trained":  # which training decides
            find_look(look, config, {})
    run = (run_dir or newest_run(name)) if resume else new_run_directory(name, run_dir)
    if resume and not run.is_dir():
        raise UserError(f"{run}: no such run to resume")
    with contextlib.ExitStack() as held:
        held.enter_context(owned(run, keep_empty=run_dir is not None))
        if not resume:
            refuse_filled(run)
        checkpoint, threads = _checkpoint_to_resume(run, config) if resume else (None, None)
        config = with_estimator_threads(config, threads)
        code = config.task if module_of(config.task) is not None else None
        trainer = EstimatorTrainer(config, run, code)
        if checkpoint is not None:
            trainer.load(checkpoint)
        write_text(run / "config.yaml", config.to_yaml())
        if code is not None:
            trust(code)
            remember(run, code)
        at = f", from frame {trainer.frames:,}" if checkpoint else ""
        out.print(f"Training an estimator of {config.task} on {config.train.frames:,} pictures in {run}{at}")
        try:
            trainer.train(out)
        except Interrupted as interrupted:
            line = shlex.join(["simreal", "estimate", name, *overrides, "--run-dir", str(run), "--resume"])
            raise Interrupted(f"{interrupted}; to continue: {line}") from None
        out.print(f"Trained on {trainer.frames:,} pictures in {trainer.seconds:.1f} s")
        assess_command(run, None, None, None, None, out)
    out.print(f"""
  {run / "config.yaml"}      the complete configuration
  {run / "metrics.csv"}, {run / "adr.csv"}      learning curve, ranges of looks over time
  {run / EVALUATION}      the figures above

Next:
  simreal estimate {run} --noise-block
  simreal estimate {run} --policy RUN
  simreal report {run}
""")
    return run


def _checkpoint_to_resume(run: Path, config: EstimatorConfig) -> tuple[dict[str, Any] | None, int | None]:
    """The newest checkpoint of a run, None if there is none yet, and its threads. Raises UserError where the run has
    another configuration."""
    if not (run / "config.yaml").exists() and is_empty(run):
        return None, None
    before = estimator_config(run)
    threads = before.train.torch_threads
    now, then = config.model_dump(), before.model_dump()
    for free in ("log_interval", "checkpoint_interval_s", "keep_checkpoints", "torch_threads"):
        now["train"][free] = then["train"][free]
    now["pictures"]["workers"] = then["pictures"]["workers"]
    for key in now:
        if key not in _RESUME_MAY_CHANGE and (apart := first_difference(then[key], now[key], key)) is not None:
            raise UserError(f"{apart}, which {run / 'config.yaml'} has; a new --run-dir begins anew")
    return (newest_checkpoint(run, config.task) if checkpoints(run / "checkpoints") else None), threads


def assess_command(
    run: Path, looks: Sequence[str] | None, frames: int | None, asked: int | None, json_file: Path | None, out: Console
) -> None:
    """Assess an estimator on fresh pictures. The figures go to a file, or to RUN/evaluation.json if they are those that
    its configuration asks for. Raises UserError."""
    estimator = load_estimator(run)
    settings = estimator.config.evaluate
    target = None if json_file is None else write_target(json_file, ".json")
    seed = settings.seed if asked is None else asked
    document = assess(estimator, looks or settings.looks, frames or settings.frames, seed, out.print)
    out.print(assessment_table(document))
    for row in document.get("boundaries", ()):
        out.print(
            f"boundary {row['parameter']} {row['side']} {row['value']:.4g}: right in {row['right']:.2f} "
            f"({row['right_ci95'][0]:.2f} to {row['right_ci95'][1]:.2f}) of {row['frames']} pictures"
        )
    if target is not None:
        write_text(target, to_json(document))
    elif looks is None and frames is None and asked is None:
        write_text(run / EVALUATION, to_json(document))


def _assessment(run: Path) -> dict[str, Any]:
    """The figures of an estimator's newest checkpoint. Raises UserError if there are none."""
    document = read_json(run / EVALUATION)
    if document is None:
        raise UserError(f"{run}: has not been assessed; first simreal estimate {run}")
    return document


def noise_command(run: Path, look: str, out: Console) -> None:
    """Print the errors of an estimator as a block to train policies with. Raises UserError."""
    estimator = load_estimator(run)
    document = _assessment(run)
    known = [row["name"] for row in document["looks"]]
    if look not in known:
        raise UserError(f"--look {look}: not in {run / EVALUATION}; there are: {', '.join(known)}")
    entries = noise_block(document, look, usual=True)
    out.print(
        f"# errors of {estimator.name} in look {look}: ranges from 0 to twice their standard deviation, that of a"
    )
    out.print(f"# normal error whose smaller {100 * USUAL:.0f} % are as large; the rest are larger than in such noise")
    lines = yaml.safe_dump(entries, sort_keys=False, default_flow_style=None, width=120).splitlines()
    out.print("\n".join(["randomization:", "  sampler: manual", "  parameters:", *(f"    {line}" for line in lines)]))


def policy_command(
    run: Path,
    policy: Path,
    looks: Sequence[str],
    episodes: int,
    seed: int,
    camera: SensorConfig,
    json_file: Path | None,
    out: Console,
) -> None:
    """Play a policy on an estimator's readings, and beside it on true states. Raises UserError."""
    target = None if json_file is None else write_target(json_file, ".json")
    estimator = load_estimator(run)
    document = play_on_estimates(estimator, policy, looks, episodes, seed, camera, _assessment(run), out.print)
    out.print(in_loop_table(document))
    if target is not None:
        write_text(target, to_json(document))
