"""Looks for settings: trainings whose values a search proposes (optuna), judged by the same fresh episodes.

    SWEEPS/NAME/sweep.yaml     what was asked for
               journal.log     every trial, for the search to go on from (optuna's journal)
               runs/TRIAL-SEED run directories
               sweep.json, table.md

Trials come in rounds. Those of one are proposed before the first of them is made, from the rounds before and their
number alone, and the search is told of them when the last is done: so a sweep that was stopped goes on as if it had
not been, and where its trials are made, one after the other or all at once, changes nothing.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from simreal.cli.commands import with_threads
from simreal.common.atomic_files import owned, write_text
from simreal.common.errors import UserError
from simreal.common.json_io import to_json
from simreal.evaluation.metrics import Metric, metric_of
from simreal.study.sweep.results import results, table
from simreal.study.sweep.spec import Span, SweepSpec, load_sweep
from simreal.study.sweep.trial import Outcome, Trial, bars, make_trial
from simreal.training.run_config import RunConfig
from simreal.training.run_directory import is_empty, run_config

if TYPE_CHECKING:
    import optuna


def sweep_command(name: str, run_dir: Path | None, out: Console, ray: str | None = None) -> None:
    """Make the trials of a sweep that are missing, and its table; on the Ray cluster at an address or "local" where one
    is given.

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
        sweep = Sweep(spec, folder, out)
        sweep.check_runs()
        write_text(folder / "sweep.yaml", json.dumps(json.loads(spec.model_dump_json()), indent=1) + "\n")  # is YAML
        sweep.run(ray)


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
        task = spec.config_of({key: span.tried()[0] for key, span in spec.space.items()}, spec.seeds[0])
        self._measure = _measure_of(task)
        storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
        self._study = optuna.create_study(
            storage=storage, study_name=spec.name, direction="maximize", load_if_exists=True
        )

    def check_runs(self) -> None:
        """What was trained before must be what would be trained now: the file that `config` names may have changed.

        Raises:
            UserError: naming the run and the key.
        """
        for trial in self._study.get_trials(deepcopy=False):
            for seed in self._spec.seeds:
                run = self._folder / "runs" / f"{trial.user_attrs.get('run')}-{seed}"
                if not (run / "config.yaml").is_file():
                    continue
                found = run_config(run)
                wanted = with_threads(self._spec.config_of(trial.user_attrs["values"], seed), run)
                for key in RunConfig.model_fields:
                    if key != "threads" and getattr(found, key) != getattr(wanted, key):
                        raise UserError(
                            f"{run / 'config.yaml'}: {key} differs from what {self._spec.name} asks for now; name "
                            "another --run-dir to begin anew"
                        )

    def run(self, ray: str | None = None) -> None:
        """Make what is missing."""
        spec = self._spec
        self._take_up()
        while (made := len(self._finished())) < spec.trials:
            count = min(spec.parallel - made % spec.parallel, spec.trials - made)
            asked = [self._propose(made + i) for i in range(count)]
            outcomes = self._make([trial for _, trial in asked], ray)
            for proposed, trial in asked:
                self._tell(proposed, outcomes[trial.name])
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

    def _propose(self, number: int) -> tuple[optuna.Trial, Trial]:
        """Trial `number`: what is proposed depends on the finished rounds and on the number alone."""
        import optuna

        spec = self._spec
        few = max(1, min(10, spec.trials // 3))  # at random, before there is something to learn from
        self._study.sampler = optuna.samplers.TPESampler(
            seed=spec.seed + number, n_startup_trials=few, constant_liar=spec.parallel > 1
        )
        proposed = self._study.ask()
        values = {key: _proposed(proposed, key, span) for key, span in spec.space.items()}
        name = str(proposed.user_attrs.get("run", f"trial-{number}"))
        proposed.set_user_attr("run", name)
        proposed.set_user_attr("values", values)
        shown = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
        self._out.print(f"\n[trial {number + 1} of {spec.trials}] {shown}")
        before = self._finished()[: number - number % spec.parallel]  # of other rounds, also where a few were told
        judged = [one.intermediate_values for one in before if one.state == optuna.trial.TrialState.COMPLETE]
        return proposed, Trial(name, values, bars(spec.prune, judged))

    def _make(self, trials: list[Trial], ray: str | None) -> dict[str, Outcome]:
        """What becomes of trials, by name."""
        makes = {trial.name: partial(make_trial, self._spec, self._measure, trial) for trial in trials}
        if ray is None:
            return {name: make(self._folder, None, self._out) for name, make in makes.items()}
        from simreal.study.cluster import Job, make_on_ray

        jobs = [
            Job(trial.name, trial.name, self._spec.config_of(trial.values, self._spec.seeds[0]),
                tuple(trial.runs(self._spec)), makes[trial.name])
            for trial in trials
        ]  # fmt: skip
        return dict(make_on_ray(jobs, self._folder, ray, self._out))

    def _tell(self, proposed: optuna.Trial, outcome: Outcome) -> None:
        """Have the search know what became of a trial."""
        import optuna

        for look, value in outcome.curve.items():
            proposed.report(value, look)
        if outcome.value is None:
            self._study.tell(proposed, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(proposed, outcome.value)

    def _write(self) -> None:
        """The figures of what is there."""
        found = results(self._spec, self._measure, self._finished(), self._folder)
        write_text(self._folder / "sweep.json", to_json(found))
        write_text(self._folder / "table.md", "\n".join(table(self._folder / "sweep.json", markdown=True)) + "\n")


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
        same = key in before and before[key] == now[key]
        if key not in ("trials", "description") and not same and (key in before or key in spec.model_fields_set):
            raise UserError(f"{path}: {key} differs from the sweep's; name another --run-dir to begin anew")
