"""Makes what a study lacks: runs, evaluations, bounds, the table, the report."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from simreal.cli.commands import ENVELOPE, EVALUATION, assess, train_run, with_threads
from simreal.common.atomic_files import owned, write_text
from simreal.common.errors import UserError
from simreal.common.json_io import to_json
from simreal.report import write_report
from simreal.report.records import Evaluation, read_document
from simreal.study.adr_probe import WIDENED, same_request, widen
from simreal.study.results import write_results
from simreal.study.spec import Study, StudyArm, load_study
from simreal.training.checkpoint import BEST, checkpoints, newest_checkpoint
from simreal.training.monitoring.metrics_log import JUDGED
from simreal.training.run_config import RunConfig
from simreal.training.run_directory import is_empty, load_policy, run_config
from simreal.training.trainer import Interrupted

if TYPE_CHECKING:
    from simreal.study.cluster import Job

_RESULTS_OF_TRAINING = (EVALUATION, ENVELOPE, WIDENED, "bundle", "footage")
_MAY_DIFFER = ("train", "evaluate", "threads")


def study_command(name: str, folder: Path | None, pictures: bool, out: Console, ray: str | None = None) -> None:
    """`simreal study`, on the Ray cluster at an address or "local" where one is given. Raises UserError before anything
    is written, Interrupted with how to continue."""
    study = load_study(name)
    folder = folder or Path("studies") / study.spec.name
    _check_folder(folder, study)
    runs = [(arm, seed) for seed in study.spec.seeds for arm in study.arms.values()]
    _announce(study, folder, out)
    try:
        with owned(folder):
            write_text(folder / "study.yaml", study.to_yaml())
            (folder / "runs").mkdir(exist_ok=True)
            if ray is not None:
                from simreal.study.cluster import make_on_ray

                missing = [_job(study, arm, seed) for arm, seed in runs if not _is_done(study, arm, seed, folder)]
                for _ in make_on_ray(missing, folder, ray, out):
                    write_results(study, folder)
            for number, (arm, seed) in enumerate(runs, start=1):
                if make_run(study, arm, seed, folder, out, f"[{number}/{len(runs)}] {arm.name}, seed {seed}"):
                    write_results(study, folder)
            write_results(study, folder)  # of these arms, seeds and words, even where no run was missing
            write_report([folder], folder / "report.html", pictures)
    except (Interrupted, KeyboardInterrupt) as interrupted:
        again = ["simreal", "study", name, "--run-dir", str(folder), *(("--ray", ray) if ray else ())]
        raise Interrupted(f"{str(interrupted) or 'interrupted'}; to continue: {shlex.join(again)}") from None
    out.print((folder / "table.md").read_text())
    out.print(f"{folder / 'report.html'}: the report; {folder / 'table.md'}, {folder / 'study.json'}: the table")


def _job(study: Study, arm: StudyArm, seed: int) -> Job:
    """A run as something that is made on a node."""
    from simreal.study.cluster import Job

    name, before = f"{arm.name}-{seed}", None if arm.after is None else f"{arm.after}-{seed}"
    make, title = partial(_make_on_node, study, arm, seed), f"{arm.name}, seed {seed}"
    return Job(name, title, arm.config, (name,), make, before, () if before is None else (before,))


def _make_on_node(study: Study, arm: StudyArm, seed: int, folder: Path, threads: int | None, out: Console) -> None:
    if threads is not None:
        arm = replace(arm, config=arm.config.model_copy(update={"threads": threads}))
    make_run(study, arm, seed, folder, out)


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where a run of a study is."""
    return folder / "runs" / f"{arm}-{seed}"


def _announce(study: Study, folder: Path, out: Console) -> None:
    seeds = study.spec.seeds
    total = len(seeds) * sum(study.trained_steps(arm) for arm in study.arms.values())
    missing = sum(
        max(0, arm.config.train.env_steps - max(_reached(run_folder(folder, arm.name, seed)), _start_of(study, arm)))
        for arm in study.arms.values()
        for seed in seeds
    )
    out.print(
        f"Study {study.spec.name}: {len(study.arms)} arms x {len(seeds)} seeds on {study.task}; {missing:,} of "
        f"{total:,} steps to be trained, in {folder}"
    )
    for warning in study.warnings():
        out.print(f"warning: {warning}")


def _start_of(study: Study, arm: StudyArm) -> int:
    return arm.config.train.env_steps - study.trained_steps(arm)


def _check_folder(folder: Path, study: Study) -> None:
    """What is there must be of this study. Raises UserError before anything is done."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder for the study")
    if folder.is_dir() and not is_empty(folder) and not (folder / "study.yaml").is_file():
        raise UserError(f"{folder}: exists and is not the folder of a study; name another --run-dir")
    for arm in study.arms.values():
        for seed in study.spec.seeds:
            run = run_folder(folder, arm.name, seed)
            if _reached(run):
                _check_run(run, arm.with_seed(seed))


def _check_run(run: Path, wanted: RunConfig) -> None:
    found = run_config(run)
    for key in RunConfig.model_fields:
        if key not in _MAY_DIFFER and getattr(found, key) != getattr(wanted, key):
            raise UserError(
                f"{run / 'config.yaml'}: {key} differs from the study's; move the run away to train it anew"
            )
    if _reached(run) >= wanted.train.env_steps + wanted.num_envs:
        raise UserError(
            f"{run}: has been trained for {_reached(run):,} steps, the study asks for {wanted.train.env_steps:,}; "
            "move the run away to train it anew"
        )


def _reached(run: Path) -> int:
    """Environment steps of a run's newest checkpoint; 0 without one."""
    found = checkpoints(run / "checkpoints")
    return int(found[-1].stem.removeprefix("step_")) if found else 0


def _is_done(study: Study, arm: StudyArm, seed: int, folder: Path) -> bool:
    """Whether nothing is left to be done for a run."""
    run, wanted, spec = run_folder(folder, arm.name, seed), arm.with_seed(seed), study.spec.widen
    if _reached(run) < wanted.train.env_steps or not _is_evaluated(run, wanted):
        return False
    if spec is None or arm.name not in spec.arms:
        return True
    return same_request(run / WIDENED, study.arms[spec.like].config.randomization, spec.episodes)


def make_run(study: Study, arm: StudyArm, seed: int, folder: Path, out: Console, title: str = "") -> bool:
    """Train, evaluate and widen one run, as far as it has not been done; whether there was anything to do."""
    run, wanted = run_folder(folder, arm.name, seed), arm.with_seed(seed)
    if arm.starts_from is not None:
        source = str(run_folder(folder, arm.starts_from, seed))
        wanted = wanted.model_copy(update={"train": wanted.train.model_copy(update={"source": source})})
    done = True
    if _reached(run) < wanted.train.env_steps:
        out.print(title)
        _train(arm, run, wanted, folder, out)
        done = False
    if not _is_evaluated(run, wanted):
        out.print(f"{title}: evaluating {wanted.evaluate.episodes} episodes in each world")
        (run / EVALUATION).unlink(missing_ok=True)  # it is of the configuration beside it, always
        write_text(run / "config.yaml", with_threads(wanted, run).to_yaml())
        assess(run, out)
        done = False
    spec = study.spec.widen
    if spec is not None and arm.name in spec.arms:
        block = study.arms[spec.like].config.randomization
        if not same_request(run / WIDENED, block, spec.episodes):
            out.print(f"{title}: widening ranges around the frozen policy")
            write_text(run / WIDENED, to_json(widen(load_policy(run), block, spec.episodes)))
            done = False
    return not done


def _train(arm: StudyArm, run: Path, wanted: RunConfig, folder: Path, out: Console) -> None:
    if not _reached(run):
        if run.exists():
            shutil.rmtree(run)  # it ended before its first checkpoint
        if arm.continues is not None:
            _copy_run(run_folder(folder, arm.continues, wanted.seed), run)
    for name in _RESULTS_OF_TRAINING:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    checkpoint = newest_checkpoint(run, wanted.task) if _reached(run) else None
    try:
        train_run(wanted, run, checkpoint, out)
    except Interrupted as interrupted:
        raise Interrupted(f"{run.name}: {interrupted}") from None


def _copy_run(source: Path, target: Path) -> None:
    """What a training needs to go on elsewhere: logs and the newest checkpoint."""
    part = target.with_name(f".{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    (part / "checkpoints").mkdir(parents=True)
    newest = checkpoints(source / "checkpoints")[-1]
    tables = (source / name for name in ("config.yaml", "metrics.csv", "adr.csv", JUDGED))
    for path in (*tables, *source.glob("events.out.*")):
        if path.is_file():
            shutil.copy2(path, part / path.name)
    for file in (newest, *checkpoints(source / BEST)):
        target_file = part / file.relative_to(source)
        target_file.parent.mkdir(exist_ok=True)
        try:
            os.link(file, target_file)  # never written to again, only replaced
        except OSError:
            shutil.copy2(file, target_file)
    part.rename(target)


def _is_evaluated(run: Path, wanted: RunConfig) -> bool:
    try:
        found = read_document(run / EVALUATION, Evaluation)
    except UserError:
        return False
    if found is None or not (run / "bundle").is_dir() or run_config(run).evaluate != wanted.evaluate:
        return False
    files = [path for path in map(Path, wanted.evaluate.worlds) if path.is_file()]
    return all(path.stat().st_mtime <= (run / EVALUATION).stat().st_mtime for path in files)
