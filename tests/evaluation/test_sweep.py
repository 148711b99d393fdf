"""Sweeps: proposed, trained, judged in the same episodes, stopped and gone on with, refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from shortcuts import with_short_rehearsals, without_bundles
from simreal.cli import commands
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.study import cluster
from simreal.study.cluster import Job
from simreal.study.sweep import search
from simreal.study.sweep.results import best_shares
from simreal.study.sweep.spec import PruneSpec, Span, load_sweep
from simreal.study.sweep.trial import bars
from simreal.training.monitoring import metrics_log
from simreal.training.monitoring.progress import Progress

optuna = pytest.importorskip("optuna")
SWEEP: dict[str, Any] = {
    "name": "tiny",
    "config": "inverted_pendulum",
    "set": {"train.env_steps": 1024, "train.keep": "last", "train.log_interval": 64, "learner.horizon": 16},
    "space": {
        "learner.lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "learner.epochs": {"low": 1, "high": 4},
        "learner.actor_hidden": {"choices": [[8], [16, 16]]},
    },
    "trials": 3,
    "evaluate": {"episodes": 8, "worlds": ["nominal"]},
    "prune": None,
}


def write(folder: Path, **changes: Any) -> str:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}, sort_keys=False))
    return str(path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_bundles(monkeypatch)
    with_short_rehearsals(monkeypatch)


def trials(folder: Path) -> list[dict[str, Any]]:
    document = json.loads((folder / "sweep.json").read_text())
    return sorted(document["trials"], key=lambda row: row["run"])


def test_a_sweep_that_is_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["sweep", write(tmp_path), "--run-dir", str(tmp_path / "whole")])
    out = capsys.readouterr().out
    whole = trials(tmp_path / "whole")
    assert [row["run"] for row in whole] == ["trial-0", "trial-1", "trial-2"]
    assert len({row["values"]["learner.lr"] for row in whole}) == 3
    for row in whole:
        config = yaml.safe_load((tmp_path / "whole" / "runs" / f"{row['run']}-0" / "config.yaml").read_text())
        assert config["learner"]["lr"] == row["values"]["learner.lr"]
        assert config["learner"]["actor_hidden"] == row["values"]["learner.actor_hidden"]
        episodes = json.loads((tmp_path / "whole" / "runs" / f"{row['run']}-0" / "evaluation.json").read_text())
        assert row["value"] == pytest.approx(episodes["worlds"][0]["return_mean"])
    assert sum(row["best_in"] for row in whole) == pytest.approx(1.0)
    best = max(whole, key=lambda row: row["value"])
    assert f"{best['run']} is the best in {best['best_in']:.0%} of 4,000 draws of these episodes" in " ".join(
        out.split()
    )
    assert (tmp_path / "whole" / "table.md").read_text().startswith("# tiny\n\n3 trials judged, 0 broken off")

    # The same, killed in the middle of the second training.
    update = Progress.update

    def dies(self: Progress, steps: int, score: str, entropy: float) -> None:
        update(self, steps, score, entropy)
        if steps > 500 and (tmp_path / "stopped" / "runs" / "trial-1-0").is_dir():
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", dies)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        main(["sweep", write(tmp_path), "--run-dir", str(tmp_path / "stopped")])
    monkeypatch.setattr(Progress, "update", update)
    assert [row["run"] for row in trials(tmp_path / "stopped")] == ["trial-0"]
    main(["sweep", write(tmp_path), "--run-dir", str(tmp_path / "stopped")])
    again = trials(tmp_path / "stopped")
    assert [(row["run"], row["values"], row["value"]) for row in again] == [
        (row["run"], row["values"], row["value"]) for row in whole
    ]
    # Nothing is left to do; more trials may be asked for, other things not.
    before = sorted(path.name for path in (tmp_path / "whole" / "runs").iterdir())
    main(["sweep", write(tmp_path), "--run-dir", str(tmp_path / "whole")])
    assert sorted(path.name for path in (tmp_path / "whole" / "runs").iterdir()) == before
    with pytest.raises(SystemExit) as refused:
        main(["sweep", write(tmp_path, seed=1), "--run-dir", str(tmp_path / "whole")])
    assert refused.value.code == 2
    assert "sweep.yaml: seed differs from the sweep's" in capsys.readouterr().err


def test_trials_of_a_configuration_that_was_changed_since_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    document: dict[str, Any] = {"task": "InvertedPendulum-v5", "num_envs": 4, "learner": {"algorithm": "ppo"}}
    path.write_text(yaml.safe_dump(document))
    few = {"set": {"train.env_steps": 64, "learner.horizon": 16}, "trials": 1}
    arguments = [write(tmp_path, config=str(path), **few), "--run-dir", str(tmp_path / "s")]
    main(["sweep", *arguments])
    main(["sweep", *arguments])
    before = (tmp_path / "s" / "sweep.yaml").read_text()
    path.write_text(yaml.safe_dump({**document, "num_envs": 2}))
    write(tmp_path, config=str(path), **{**few, "trials": 2})
    with pytest.raises(SystemExit) as refused:
        main(["sweep", *arguments])
    assert refused.value.code == 2
    assert "trial-0-0/config.yaml: num_envs differs from what tiny asks for now" in capsys.readouterr().err
    assert (tmp_path / "s" / "sweep.yaml").read_text() == before


def test_a_trial_far_below_the_others_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = metrics_log.read_columns

    def curve(path: Path) -> dict[str, list[float]]:
        number, table = int(path.parent.name.split("-")[1]), read(path)
        return {**table, "return": [1.0 if number == 2 else 100.0 + number] * len(table.get("env_steps", []))}

    monkeypatch.setattr("simreal.study.sweep.trial.read_columns", curve)
    name = write(tmp_path, prune={"after": 0.3, "others": 2})
    main(["sweep", name, "--run-dir", str(tmp_path / "s")])
    document = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert {row["run"] for row in document["trials"]} == {"trial-0", "trial-1"}
    (broken,) = document["broken_off"]
    assert (broken["run"], broken["looks"]) == ("trial-2", 3)
    assert not (tmp_path / "s" / "runs" / "trial-2-0" / "evaluation.json").exists()


def test_trials_are_broken_off_below_the_median_as_optuna_would() -> None:
    curves = [{1: 1.0, 2: 5.0, 3: 3.0}, {1: 2.0, 2: 1.0, 3: 4.0}, {1: 3.0, 2: 3.0, 3: 9.0, 4: 2.0}]
    study = optuna.create_study(direction="maximize")
    for curve in curves:
        trial = study.ask()
        for look, value in curve.items():
            trial.report(value, look)
        study.tell(trial, 0.0)
    found = bars(PruneSpec(after=0.2, others=3), curves)
    for mine in ({1: 0.0, 2: 2.9}, {1: 3.1, 2: 0.0}, {1: 2.0, 2: 3.5, 3: 1.0}, {2: 3.5, 3: 1.0, 4: 4.0}):
        pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2, interval_steps=1)
        study.pruner = pruner
        trial, best = study.ask(), -np.inf
        for look, value in mine.items():
            trial.report(value, look)
            best = max(best, value)
            assert trial.should_prune() == (look in found and best < found[look]), (mine, look)
    assert bars(PruneSpec(after=0.2, others=4), curves) == bars(None, curves) == {}


def test_a_round_of_trials_is_the_same_wherever_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"trials": 5, "parallel": 2, "evaluate": {"episodes": 2, "worlds": ["nominal"]}}
    changes["set"] = {**SWEEP["set"], "train.env_steps": 128, "threads": 1}
    monkeypatch.setattr(commands, "thread_independent", lambda: False)  # runs then keep the threads of their updates
    main(["sweep", write(tmp_path, **changes), "--run-dir", str(tmp_path / "one")])
    rounds: list[list[str]] = []

    def elsewhere(jobs: list[Job], folder: Path, *_: Any) -> Iterator[tuple[str, Any]]:
        rounds.append([job.name for job in jobs])
        for job in reversed(jobs):
            result, archive = cluster._on_node(cluster._Work(job, folder, "no such token", cluster.packed([]), 1))
            cluster._bring_home(archive, folder / "runs")
            yield job.name, result

    monkeypatch.setattr(cluster, "make_on_ray", elsewhere)
    main(["sweep", write(tmp_path, **changes), "--run-dir", str(tmp_path / "other"), "--ray", "anywhere"])
    assert rounds == [["trial-0", "trial-1"], ["trial-2", "trial-3"], ["trial-4"]]
    assert trials(tmp_path / "other") == trials(tmp_path / "one")
    assert len({row["values"]["learner.lr"] for row in trials(tmp_path / "one")}) == 5

    # Killed while the search was told of the second round: the third is still proposed from the first two.
    told = search.Sweep._tell
    times: list[None] = []

    def dies(self: search.Sweep, proposed: Any, outcome: Any) -> None:
        times.append(None)
        if len(times) == 4:
            raise KeyboardInterrupt
        told(self, proposed, outcome)

    monkeypatch.setattr(search.Sweep, "_tell", dies)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        main(["sweep", write(tmp_path, **changes), "--run-dir", str(tmp_path / "stopped")])
    monkeypatch.setattr(search.Sweep, "_tell", told)
    main(["sweep", write(tmp_path, **changes), "--run-dir", str(tmp_path / "stopped")])
    assert trials(tmp_path / "stopped") == trials(tmp_path / "one")


def test_how_sure_the_best_is_follows_from_pairs_of_episodes() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(size=200) * 10.0  # episodes differ more than policies
    shares = best_shares([hard + 0.5, hard, hard - 3.0])
    assert shares.tolist() == [1.0, 0.0, 0.0]
    mixed = best_shares([hard, generator.permutation(hard), hard - 100.0])
    assert 0.3 < mixed[0] < 0.7
    assert mixed[2] == 0.0
    assert best_shares([hard, hard.copy()]).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"learner.lrr": {"low": 1, "high": 2}}}, "learner.lrr: unknown key"),
        ({"space": {"learner.lr": {"low": 2, "high": 1}}}, "space.learner.lr: expected low below high, or choices"),
        ({"space": {"learner.lr": {"low": 0, "high": 1, "log": True}}}, "log: low is 0, expected a number above 0"),
        ({"space": {"learner.lr": {"choices": [1]}}}, "space.learner.lr.choices"),
        ({"space": {"learner.epochs": {"low": 0, "high": 3}}}, "learner.epochs"),
        ({"space": {"learner.epochs": {"low": 1, "high": 3.0}}}, "learner.epochs: input should be a valid integer"),
        ({"space": {"learner.lr": {"choices": [0.1, 0.1]}}}, "choices: 0.1 stands 2 times"),
        ({"seeds": [3, 3]}, "seeds: expected different numbers, got [3, 3]"),
        ({"set": {"learner.lr": 0.01}}, "learner.lr: has no effect beside space.learner.lr, which"),
        (
            {"set": {}, "space": {"learner.lr": {"low": 0.1, "high": 1}, "learner": {"choices": [{"lr": 1}, {}]}}},
            "learner.lr: has no effect beside space.learner, which",
        ),
        ({"space": {"seed": {"low": 0, "high": 9}}}, "seed: belongs to the whole sweep, see seeds and evaluate"),
        ({"set": {"evaluate.episodes": 3}}, "evaluate.episodes: belongs to the whole sweep"),
        ({"config": "no_such"}, "no_such: no such file"),
        ({"evaluate": {"episods": 3}}, "evaluate.episods: unknown key (did you mean 'episodes'?)"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        load_sweep(write(tmp_path, **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_configuration_that_is_written_out_is_the_same_in_every_trial(tmp_path: Path) -> None:
    written = {"task": "InvertedPendulum-v5", "learner": {"algorithm": "ppo"}}
    spec = load_sweep(write(tmp_path, config=written, set={}))
    first = spec.config_of({"learner.gamma": 0.5}, 0)
    second = spec.config_of({"learner.lr": 0.01}, 1)
    assert first.learner.model_dump()["gamma"] == 0.5
    assert second.learner.model_dump()["gamma"] != 0.5  # nothing is left of the trial before
    assert (second.learner.model_dump()["lr"], second.seed) == (0.01, 1)


def test_whole_numbers_stay_whole() -> None:
    assert Span.model_validate({"low": 1, "high": 4}).whole
    assert not Span.model_validate({"low": 1.0, "high": 4}).whole
    assert callable(commands.train_run)
