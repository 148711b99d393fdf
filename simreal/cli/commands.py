"""What the commands do, from arguments to printed result."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from envs.common.fast_matmul import thread_independent
from envs.common.ranks import ALONE, Ranks
from simreal.cli.check import look_at
from simreal.common.atomic_files import owned, write_text
from simreal.common.errors import UserError
from simreal.common.json_io import read_json, to_json, without_samples, write_target
from simreal.common.trusted_code import naming, remember_made
from simreal.evaluation.compare import (
    differences,
    differences_table,
    engine_differences,
    engines_table,
    envelope_table,
    figures_table,
    find_baseline,
    load_policies,
    other_options,
    policies_table,
    reported_table,
)
from simreal.evaluation.envelope import EnvelopeSettings, measure_envelope
from simreal.evaluation.evaluate import evaluate, evaluate_named, remarks
from simreal.evaluation.metrics import metric_of
from simreal.evaluation.worlds import check_names, find_worlds
from simreal.training.budget import budget_warning, untrained_warning
from simreal.training.build import EngineName
from simreal.training.checkpoint import BEST, EVALUATION, checkpoints, is_outdated, newest_checkpoint, policy_file
from simreal.training.launch import joined, restarted, together
from simreal.training.monitoring.exploration import noise_remarks
from simreal.training.monitoring.loggers import Loggers, check_loggers, final_figures
from simreal.training.monitoring.progress import Progress
from simreal.training.run_config import RunConfig, apply_overrides, first_difference, load_config
from simreal.training.run_directory import (
    LoadedPolicy,
    is_bundle,
    is_empty,
    is_estimator,
    load_policy,
    new_run_directory,
    newest_run,
    refuse_filled,
    run_config,
    start_from,
)
from simreal.training.trainer import Interrupted, Trainer, update_threads

ENVELOPE = "envelope.json"  # in a run directory
PRIVILEGED = (
    "its policy reads what no robot measures (actor_reads: privileged); train a student of it with algorithm distill, "
    "which can be exported"
)
_RESUME_MAY_CHANGE = ("train", "evaluate", "threads", "gpu")


def train_command(
    name: str,
    overrides: list[str],
    run_dir: Path | None,
    resume: bool,
    out: Console,
    config: RunConfig | None = None,
) -> Path:
    """`simreal train`. Returns the run directory. `config` replaces what `name` and `overrides` say.

    Of the ranks that torchrun started the first one writes, prints and evaluates; of a run whose rank died, torchrun's
    next attempt goes on.

    Raises UserError before anything is written; Interrupted after a checkpoint; LostRankError.
    """
    with contextlib.ExitStack() as held:
        with joined() as ranks:
            out = out if ranks.first else Console(quiet=True)
            resume = resume or (ranks.size > 1 and restarted(ranks) and _is_there(name, run_dir))
            config = together(ranks, lambda: config or _configuration(name, overrides, run_dir, resume))
            check_names(config.evaluate.worlds)
            check_loggers(config.train.loggers)
            begin = lambda: _begin(name, run_dir, resume, config, held) if ranks.first else (Path(), None)  # noqa: E731
            run, checkpoint = together(ranks, begin)
            run = ranks.objects(run)[0]
            try:
                train_run(config, run, checkpoint, out, ranks)
            except Interrupted as interrupted:
                resume_line = shlex.join(["simreal", "train", name, *overrides, "--run-dir", str(run), "--resume"])
                raise Interrupted(f"{interrupted}; to continue: {resume_line}" if ranks.first else "") from None
        if ranks.first:
            finish(run, out)
    return run


def _begin(
    name: str, run_dir: Path | None, resume: bool, config: RunConfig, held: contextlib.ExitStack
) -> tuple[Path, dict[str, Any] | None]:
    """The directory of a run, which `held` owns from now on, and the checkpoint to go on from. Raises UserError."""
    run = (run_dir or newest_run(name)) if resume else new_run_directory(name, run_dir)
    if resume and not run.is_dir():
        raise UserError(f"{run}: no such run to resume")
    held.enter_context(owned(run, keep_empty=run_dir is not None))
    if not resume:
        refuse_filled(run)
    return run, _checkpoint_to_resume(run, config) if resume else None


def _is_there(name: str, run_dir: Path | None) -> bool:
    """Whether there is a run to resume."""
    try:
        return (run_dir or newest_run(name)).is_dir()
    except UserError:
        return False


def _configuration(name: str, overrides: list[str], run_dir: Path | None, resume: bool) -> RunConfig:
    """The configuration of that name. Where it cannot be had because a package is missing that the run to resume is of,
    UserError names the package."""
    try:
        return load_config(name, overrides)
    except UserError:
        run = (run_dir or newest_run(name)) if resume else None
        if run is not None and (run / "config.yaml").is_file():
            run_config(run)
        raise


def train_run(
    config: RunConfig,
    run: Path,
    checkpoint: dict[str, Any] | None,
    out: Console,
    ranks: Ranks = ALONE,
    display: Callable[..., Progress] = Progress,
) -> None:
    """Train in a run directory, from the start or its checkpoint, which the first rank has. Raises Interrupted after
    a checkpoint."""
    config = ranks.objects(with_threads(config, run))[0]
    torch.set_num_threads(1)
    trainer = together(ranks, lambda: _make_trainer(config, run, ranks))
    if any(ranks.objects(checkpoint is not None)):
        trainer.load(checkpoint)
    else:
        together(ranks, lambda: start_from(trainer.learner, config))
    if ranks.first:
        _write_down(config, run)
    total, adr = config.learner.run_length(config.train.env_steps), config.randomization.sampler in ("adr", "doraemon")
    unit = "steps" if config.learner.COUNTS == "env_steps" else config.learner.COUNTS
    at = f", from {unit[:-1]} {trainer.env_steps:,}" if checkpoint else ""
    on = f" on {ranks.size} ranks" if ranks.size > 1 else ""
    out.print(f"Training {config.task} with {config.learner.algorithm.upper()} for {total:,} {unit}{on} in {run}{at}")
    for warning in (
        untrained_warning(config),
        budget_warning(trainer.layer.sampler, total, trainer.environment.max_episode_steps),
    ):
        if warning is not None:
            out.print(warning)
    for finding in look_at(trainer.environment, run) if ranks.first else ():
        out.print(f"warning: simulation: {finding.line()} (simreal check {config.task})")
    try:
        trainer.train(display(total, trainer.env_steps, out, adr, unit))
    except Interrupted:
        raise Interrupted(f"interrupted at {unit[:-1]} {trainer.env_steps:,}") from None
    out.print(f"Trained {trainer.env_steps:,} {unit} in {trainer.seconds:.1f} s")


def _write_down(config: RunConfig, run: Path) -> None:
    """Leave in a run directory what a run begins with."""
    if config.train.keep == "last":
        shutil.rmtree(run / BEST, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", config.to_yaml())
    remember_made(run, config.task)


def _make_trainer(config: RunConfig, run: Path, ranks: Ranks) -> Trainer:
    """A trainer. Raises UserError where the configuration asks for what cannot be, or does not fit in memory."""
    try:
        return Trainer(config, run, ranks)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise UserError(f"{run}: does not fit in memory; lower num_envs, replay_size or horizon") from None


def with_threads(config: RunConfig, run: Path) -> RunConfig:
    """The configuration with the threads of an update written out: those of the run, where there is one already.

    Where sums depend on them in the last bit (`thread_independent`; those of convolutions do) a run keeps them wherever
    it is resumed. Elsewhere a run that began without a fixed number stays free to choose
    (`simreal.training.updates.threads`).
    """
    if config.train.torch_threads is not None:
        return config
    started = run_config(run).train.torch_threads if (run / "config.yaml").is_file() else None
    if started is None and thread_independent() and config.observation is None:
        return config
    train = config.train.model_copy(update={"torch_threads": started or update_threads(config)})
    return config.model_copy(update={"train": train})


def assess(run: Path, out: Console) -> Path | None:
    """Evaluate a trained run as its configuration says, and export it. Returns the bundle; None where no robot has use
    for one: the task says so, or the policy reads what only a simulator knows."""
    policy = load_policy(run)
    assert policy.config is not None
    kept, last = policy_file(run), checkpoints(run / "checkpoints")[-1:]
    if kept is not None and last and kept.name != last[0].name:
        out.print(f"The policy is that of step {int(kept.stem[5:]):,}: no later one was shown to be better.")
    settings = policy.config.evaluate
    out.print(f"Playing {settings.episodes} episodes in each of: {', '.join(settings.worlds)} ...")
    figures = evaluate_named(policy, settings.worlds, settings.episodes, settings.num_envs, settings.seed)
    write_text(run / EVALUATION, to_json(figures | {"checkpoint": _newest_name(run)}))
    task = policy.make_task()
    out.print(figures_table(figures, metric_of(task)))
    for line in (*remarks(figures), *noise_remarks(run, figures, metric_of(task))):
        out.print(line)
    obstacle = PRIVILEGED if policy.config.learner.reads_privileged else task.export_obstacle
    if obstacle is not None:
        out.print(f"{run}: no bundle: {task.id}: {obstacle}")
        bundle = None
    else:
        out.print("Writing the bundle ...")
        bundle = _export(run, policy, run / "bundle", figures)
    loggers = Loggers(policy.config.train.loggers, run, policy.config.model_dump(mode="json"))
    for text in loggers.hand_over(final_figures(figures)):
        out.print(text, markup=False)
    return bundle


def finish(run: Path, out: Console) -> None:
    """Evaluate and export a finished run, and say where everything is."""
    bundle = assess(run, out)
    code = naming(run_config(run).task, run)
    written = "" if bundle is None else f"\n  {bundle}      the policy for your robot: see docs/deploy.md"
    out.print(f"""
  {run / "config.yaml"}      the complete configuration
  {run / "metrics.csv"}, {run / "adr.csv"}      learning curve, ranges over time (also: tensorboard --logdir {run})
  {run / "checkpoints"}      to resume from
  {run / EVALUATION}      the figures above{written}

Next:
  simreal play {run} --video policy.mp4{code}
  simreal evaluate {run} --world nominal --world held_out --world unmodelled{code}
  simreal evaluate {bundle or run}{code}
""")


def _checkpoint_to_resume(run: Path, config: RunConfig) -> dict[str, Any] | None:
    """The newest checkpoint of a run whose configuration agrees with `config`; None if there is none yet."""
    if not (run / "config.yaml").exists() and is_empty(run):
        return None
    before, now = run_config(run).model_dump(), config.model_dump()
    for name in config.learner.RESUME_MAY_CHANGE & before["learner"].keys():
        before["learner"][name] = now["learner"].get(name)
    checkpoint = newest_checkpoint(run, config.task) if checkpoints(run / "checkpoints") else None
    if checkpoint is None and (run / EVALUATION).exists():
        raise UserError(f"{run}: has an evaluation but no checkpoint to resume; expected the checkpoints that it had")
    for key in now:
        if key not in _RESUME_MAY_CHANGE and (apart := first_difference(before[key], now[key], key)) is not None:
            raise UserError(
                f"{apart}, which {run / 'config.yaml'} has; a resumed run may change only train, evaluate; "
                "a new --run-dir begins anew"
            )
    return checkpoint


def evaluate_command(
    paths: list[Path],
    worlds: list[str],
    episodes: int,
    seed: int,
    json_file: Path | None,
    baseline: str | None,
    ranges_of: Path | None,
    task: str | None,
    engine: EngineName | None,
    out: Console,
    task_options: Sequence[str] | None = None,
    contract: Path | None = None,
) -> None:
    """`simreal evaluate`: one policy, or several beside each other. Raises UserError before anything is played."""
    options = None if task_options is None else apply_overrides({}, task_options)
    policies = [policy.on_task(options) for policy in load_policies(paths, task, contract)]
    if changed := options if options is not None else policies[0].make_task().evaluation_options:
        out.print(f"{policies[0].task_id} with {', '.join(f'{key}: {value}' for key, value in changed.items())}")
    first = find_baseline(baseline, paths, policies)
    source = None if ranges_of is None else load_policy(ranges_of, task)
    found = [find_worlds(worlds, policy, source) for policy in policies]
    if engine is not None:
        found = [([replace(world, engine=engine) for world in chosen], left_out) for chosen, left_out in found]
    target = None if json_file is None else write_target(json_file, ".json")
    for name, reason in found[0][1].items():
        out.print(f"{name}: left out: {reason}")
    for warning in other_options(policies):
        out.print(f"warning: {warning}")
    out.print(f"Playing {episodes} episodes in each of: {', '.join(world.name for world in found[0][0])} ...")
    documents = [evaluate(p, w, episodes, None, seed, out.print) for p, (w, _) in zip(policies, found, strict=True)]
    measure = metric_of(policies[0].make_task())
    if len(policies) == 1:
        document: dict[str, Any] = documents[0]
        out.print(figures_table(document, measure))
        if (told := reported_table(document, policies[0].make_task().reported)) is not None:
            out.print(told)
    else:
        apart = differences(documents, [w for w, _ in found], first, measure)
        document = {"policies": documents, "differences": apart}
        out.print(policies_table(documents, measure), differences_table(apart, documents[first], measure), sep="\n")
    engines = [e for d, (w, _) in zip(documents, found, strict=True) for e in engine_differences(d, w, measure)]
    if engines:
        document = document | {"engines": engines}
        out.print(engines_table(engines, measure))
    for line in [line for d in documents for line in remarks(d, compared=len(documents) > 1)]:
        out.print(line)
    _say_what_engines_lack(documents[0], out)
    if target is not None:
        write_text(target, to_json(document))


def _say_what_engines_lack(figures: dict[str, Any], out: Console) -> None:
    for world in figures["worlds"]:
        if lines := world.get("statement"):
            out.print(f"{world['name']}: what {world['engine']} lacks of this model, or does otherwise than MuJoCo:")
            out.print(*(f"  {line}" for line in lines), sep="\n")


def envelope_command(
    run: Path,
    settings: EnvelopeSettings,
    ranges_of: Path | None,
    json_file: Path | None,
    task: str | None,
    out: Console,
) -> None:
    """`simreal evaluate --envelope`: measure, write RUN/envelope.json, and export the bundle of the run again."""
    if run.is_dir() and is_bundle(run):
        raise UserError(f"{run}: is a bundle; --envelope writes into a run directory, expected one")
    policy = load_policy(run, task)
    source = None if ranges_of is None else load_policy(ranges_of, task)
    if source is not None and source.task_id != policy.task_id:
        raise UserError(f"{source.name}: is of {source.task_id}, but {policy.name} is of {policy.task_id}")
    target = None if json_file is None else write_target(json_file, ".json")
    document = measure_envelope(policy, settings, out.print, source)
    document["checkpoint"] = _newest_name(run)
    write_text(run / ENVELOPE, to_json(document))
    if target is not None:
        write_text(target, to_json(document))
    out.print(envelope_table(document))
    out.print(f"{run / ENVELOPE}: written")
    if is_bundle(run / "bundle"):
        out.print(f"{_export(run, policy, run / 'bundle', _present_evaluation(run, out))}: exported again, with it")


def export_command(
    run: Path,
    output: Path | None,
    task: str | None,
    out: Console,
    c: Path | None = None,
    int8: bool = False,
    int8_limit: float | None = None,
) -> None:
    """`simreal export`, of a policy or of an estimator."""
    from simreal.export.pictures.estimator import export_run

    if (int8 and c is None) or (int8_limit is not None and not int8):
        raise UserError("--int8: needs --c DIR" if int8 else "--int8-limit: needs --int8")
    if int8_limit is not None and not 0.0 < int8_limit <= 2.0:
        raise UserError(f"--int8-limit: expected a difference of actions in [-1, 1], above 0, got {int8_limit:g}")
    if run.is_dir() and is_bundle(run):
        raise UserError(f"{run}: is a bundle already; expected a run directory")
    if is_estimator(run):
        if c is not None:
            raise UserError("--c: is of policies; expected an estimator without it")
        out.print(export_run(run, output or run / "bundle"))
        return
    from simreal.export.c.int8 import INT8_LIMIT

    policy = load_policy(run, task)
    figures = _present_evaluation(run, out)
    code: dict[str, Any] = {} if c is None else {"c": c, "int8_limit": (int8_limit or INT8_LIMIT) if int8 else None}
    bundle = _export(run, policy, output or run / "bundle", figures, **code)
    remember_made(bundle, policy.task_id)
    out.print(f"{bundle}: exported {policy.task_id}")
    if c is not None:
        out.print(f"{c}: the same in C99; make -C {c} test")


def _export(run: Path, policy: LoadedPolicy, output: Path, figures: dict[str, Any] | None, **code: Any) -> Path:
    from simreal.export.bundle import ExportError, export_bundle  # ONNX is not needed to train
    from simreal.export.pictures.golden import sight_of

    assert policy.module is not None
    assert policy.config is not None
    if policy.config.learner.reads_privileged:
        raise UserError(f"{run}: {PRIVILEGED}")
    try:
        return export_bundle(
            policy.module,
            policy.make_task(),
            output,
            task_name=policy.task_id,
            randomization=policy.randomization,
            evaluation=None if figures is None else without_samples(figures),
            envelope=_present_envelope(run, policy),
            run={"seed": policy.config.seed, "config": policy.config.model_dump(mode="json")},
            sight=sight_of(policy, output),
            **code,
        )
    except ExportError as error:
        raise UserError(f"{run}: {error}") from None


def _newest_name(run: Path) -> str:
    found = policy_file(run)
    assert found is not None
    return found.name


def _present_evaluation(run: Path, out: Console) -> dict[str, Any] | None:
    """The figures of a run, unless they are of an earlier checkpoint."""
    document = read_json(run / EVALUATION)
    if document is not None and is_outdated(run, document.pop("checkpoint", None)):
        out.print(
            f"{run / EVALUATION}: is of an earlier checkpoint; the bundle states no figures until --resume has ended"
        )
        return None
    return document


def _present_envelope(run: Path, policy: LoadedPolicy) -> dict[str, Any] | None:
    """The envelope of a run, unless it is of an earlier checkpoint."""
    document = read_json(run / ENVELOPE)
    if document is None or is_outdated(run, document.get("checkpoint")):
        return None
    if document.get("task") != policy.task_id:
        raise UserError(f"{run / ENVELOPE}: is of {document.get('task')}, expected {policy.task_id}")
    return document
