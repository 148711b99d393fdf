"""Sweeps: proposed, trained, judged in the same episodes, stopped and gone on with, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from shortcuts import with_short_rehearsals, without_bundles
from simreal.cli import commands
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.study.sweep.results import best_shares
from simreal.study.sweep.spec import Span, load_sweep
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


def test_a_trial_far_below_the_others_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def curve(path: Path) -> dict[str, list[float]]:
        number = int(path.parent.name.split("-")[1])
        made.append(number)
        return {"return": [1.0 if number == 2 else 100.0 + number]}

    monkeypatch.setattr("simreal.study.sweep.search.read_columns", curve)
    name = write(tmp_path, prune={"after": 0.3, "others": 2})
    main(["sweep", name, "--run-dir", str(tmp_path / "s")])
    document = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert {row["run"] for row in document["trials"]} == {"trial-0", "trial-1"}
    (broken,) = document["broken_off"]
    assert (broken["run"], broken["looks"]) == ("trial-2", 3)
    assert made.count(2) == 3  # looked at after 1, 2 and 3 tenths
    assert not (tmp_path / "s" / "runs" / "trial-2-0" / "evaluation.json").exists()


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
