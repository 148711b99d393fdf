"""Looks for settings: trainings whose values a search proposes (optuna), judged by the same fresh episodes.

    SWEEPS/NAME/sweep.yaml     what was asked for
               journal.log     every trial, for the search to go on from (optuna's journal)
               runs/TRIAL-SEED run directories
               sweep.json, table.md

A sweep that was stopped goes on where it was: a trial that was running is trained on from its checkpoint, and what the
search proposes next depends on the finished trials and their number alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from simreal.cli.commands import EVALUATION, assess, train_run
from simreal.common.atomic_files import owned, write_text
from simreal.common.errors import UserError
from simreal.common.json_io import to_json
from simreal.evaluation.metrics import Metric, metric_of
from simreal.study.sweep.results import results, table
from simreal.study.sweep.spec import Span, SweepSpec, load_sweep
from simreal.training.checkpoint import checkpoints, newest_checkpoint
from simreal.training.monitoring.metrics_log import read_columns
from simreal.training.monitoring.progress import Progress
from simreal.training.run_config import RunConfig
from simreal.training.run_directory import is_empty

if TYPE_CHECKING:
    import optuna

_LOOKS = 10  # at the curve of a training


def sweep_command(name: str, run_dir: Path | None, out: Console) -> None:
    """Make the trials of a sweep that are missing, and its table.

    Raises:
        UserError: the file or the folder is wrong, or optuna is not installed.
        Interrupted: after a checkpoint; the same command goes on.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("optuna is not installed; pip install 'simreal[sweep]'") from None
    spec = load_sweep(name)
    folder = run_dir or Path("sweeps") / spec.name
    _check_folder(folder, spec)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with owned(folder):
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        write_text(folder / "sweep.yaml", json.dumps(json.loads(spec.model_dump_json()), indent=1) + "\n")  # is YAML
        sweep = Sweep(spec, folder, out)
        sweep.run()


class Sweep:
    """The trials of one sweep.

    Args:
        spec: what is asked for.
        folder: of the results.
        out: told what happens.
    """

    def __init__(self, spec: SweepSpec, folder: Path, out: Console) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._spec, self._folder, self._out = spec, folder, out
        task = spec.config_of({key: span.ends()[0] for key, span in spec.space.items()}, spec.seeds[0])
        self._measure = _measure_of(task)
        pruner = optuna.pruners.NopPruner()
        if spec.prune is not None:
            pruner = optuna.pruners.MedianPruner(
                n_startup_trials=spec.prune.others, n_warmup_steps=round(spec.prune.after * _LOOKS), interval_steps=1
            )
        storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
        self._study = optuna.create_study(
            storage=storage, study_name=spec.name, direction="maximize", load_if_exists=True, pruner=pruner
        )

    def run(self) -> None:
        """Make what is missing."""
        spec = self._spec
        self._take_up()
        while (made := len(self._finished())) < spec.trials:
            trial = self._ask(made)
            values = {key: _proposed(trial, key, span) for key, span in spec.space.items()}
            name = str(trial.user_attrs.get("run", f"trial-{made}"))
            trial.set_user_attr("run", name)
            trial.set_user_attr("values", values)
            shown = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
            self._out.print(f"\n[trial {made + 1} of {spec.trials}] {shown}")
            self._make(trial, name, values)
            self._write()
        self._write()
        for line in table(self._folder / "sweep.json"):
            self._out.print(line)
        self._out.print(f"\n{self._folder}/table.md, {self._folder}/sweep.json   these figures")

    def _take_up(self) -> None:
        """Trials that were running when the sweep was stopped come again, with their runs."""
        import optuna

        for trial in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            run = trial.user_attrs.get("run")
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            if run is not None and set(trial.params) == set(self._spec.space):
                self._study.enqueue_trial(trial.params, user_attrs={"run": run})

    def _finished(self) -> list[optuna.trial.FrozenTrial]:
        import optuna

        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        return self._study.get_trials(deepcopy=False, states=states)

    def _ask(self, made: int) -> optuna.Trial:
        """The next trial: what is proposed depends on the finished ones and their number alone."""
        import optuna

        few = max(1, min(10, self._spec.trials // 3))  # at random, before there is something to learn from
        self._study.sampler = optuna.samplers.TPESampler(seed=self._spec.seed + made, n_startup_trials=few)
        return self._study.ask()

    def _make(self, trial: optuna.Trial, name: str, values: dict[str, Any]) -> None:
        """Train, judge and tell."""
        import optuna

        means: list[float] = []
        for i, seed in enumerate(self._spec.seeds):
            config, run = self._spec.config_of(values, seed), self._folder / "runs" / f"{name}-{seed}"
            total = config.learner.run_length(config.train.env_steps)
            watch = self._watcher(trial, run, total) if i == 0 and self._spec.prune is not None else None
            try:
                self._train(config, run, total, watch)
            except optuna.TrialPruned:
                self._out.print(f"{run}: broken off: below the median of the others at the same step")
                self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return
            document = json.loads((run / EVALUATION).read_text())
            means.append(sum(world[self._measure.mean] for world in document["worlds"]) / len(document["worlds"]))
        self._study.tell(trial, sum(means) / len(means))

    def _train(self, config: RunConfig, run: Path, total: int, watch: Callable[[int], None] | None) -> None:
        """Train and evaluate a run, as far as it has not been done."""
        reached = checkpoints(run / "checkpoints")
        if not reached or int(reached[-1].stem.removeprefix("step_")) < total:
            train_run(
                config, run, newest_checkpoint(run, config.task) if reached else None, self._out,
                display=lambda *arguments: _Watched(watch, *arguments),
            )  # fmt: skip
        if not (run / EVALUATION).is_file():
            assess(run, self._out)

    def _watcher(self, trial: optuna.Trial, run: Path, total: int) -> Callable[[int], None]:
        """Called with the steps made: reports the curve, and raises TrialPruned where it is low."""
        import optuna

        looked = 0

        def watch(steps: int) -> None:
            nonlocal looked
            look = steps * _LOOKS // total
            if look <= looked or look >= _LOOKS:
                return
            looked = look
            seen = [v for v in read_columns(run / "metrics.csv").get(self._measure.column, []) if v == v]
            if seen:
                trial.report(seen[-1], look)
                if trial.should_prune():
                    raise optuna.TrialPruned

        return watch

    def _write(self) -> None:
        """The figures of what is there."""
        found = results(self._spec, self._measure, self._finished(), self._folder)
        write_text(self._folder / "sweep.json", to_json(found))
        write_text(self._folder / "table.md", "\n".join(table(self._folder / "sweep.json", markdown=True)) + "\n")


class _Watched(Progress):
    """A display that also tells a watcher how far a training is."""

    def __init__(self, watch: Callable[[int], None] | None, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._watch = watch

    def update(self, steps: int, score: str, entropy: float) -> None:
        super().update(steps, score, entropy)
        if self._watch is not None:
            self._watch(steps)


def _measure_of(config: RunConfig) -> Metric:
    from envs.registry import make_task

    return metric_of(make_task(config.task, **config.task_options))


def _proposed(trial: optuna.Trial, key: str, span: Span) -> Any:
    """The value of a key in a trial."""
    if span.choices is not None:
        shown = [json.dumps(choice) for choice in span.choices]  # optuna keeps plain values only
        return json.loads(trial.suggest_categorical(key, shown))
    assert span.low is not None
    assert span.high is not None
    if span.whole:
        return trial.suggest_int(key, int(span.low), int(span.high), log=span.log)
    return trial.suggest_float(key, span.low, span.high, log=span.log)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _check_folder(folder: Path, spec: SweepSpec) -> None:
    """What is there must be of this sweep; more trials may be asked for. Raises UserError."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder for the sweep")
    if not folder.is_dir() or is_empty(folder):
        return
    path = folder / "sweep.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: exists and is not the folder of a sweep; name another --run-dir")
    before, now = json.loads(path.read_text()), json.loads(spec.model_dump_json())
    for key in now:
        if key not in ("trials", "description") and before.get(key) != now[key]:
            raise UserError(f"{path}: {key} differs from the sweep's; name another --run-dir to begin anew")
