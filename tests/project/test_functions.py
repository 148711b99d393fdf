"""simreal.train, simreal.evaluate and simreal.load: what the commands do, with arguments that are looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import simreal
from conftest import TINY
from simreal.cli.main import main
from simreal.training.run_directory import run_config


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"episodes": 0}, "episodes: expected a whole number of at least 1, got 0"),
        ({"episodes": 1.5}, "episodes: expected a whole number of at least 1, got 1.5"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"num_envs": 0}, "num_envs: expected a whole number of at least 1, got 0"),
        ({"worlds": []}, "worlds: expected names"),
        ({"worlds": [{"a": 1}]}, "worlds: expected names"),
        ({"worlds": "nominall"}, "nominall"),
    ],
)
def test_wrong_arguments_of_evaluate_are_one_line(trained_run: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(simreal.UserError) as caught:
        simreal.evaluate(trained_run, **arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_world_may_be_given_by_its_name_alone(trained_run: Path) -> None:
    figures = simreal.evaluate(simreal.load(trained_run), "nominal", episodes=2)
    assert [world["name"] for world in figures["worlds"]] == ["nominal"]


def test_what_an_evaluation_is_warned_of_is_said_once_and_again_in_the_next(
    trained_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = tmp_path / "w.yaml"
    world.write_text("randomization: {parameters: {geom_gap: {of: 'robot0:base_link'}}}")
    command = ["evaluate", str(trained_run), "--world", str(world), "--episodes", "1"]
    for evaluate in (
        lambda: main(command),
        lambda: main(command),
        lambda: simreal.evaluate(trained_run, str(world), 1),
    ):
        caplog.clear()
        evaluate()
        (said,) = caplog.messages
        assert "geom_gap.of: robot0:base_link changes no motion" in said


def test_overrides_count_for_a_mapping_too_and_leave_it_alone(tmp_path: Path) -> None:
    config = yaml.safe_load(TINY)
    settings = ["learner.gamma=0.5", "train.env_steps=60", "learner.warmup_steps=20", "evaluate.episodes=1"]
    run = simreal.train(config, settings, run_dir=tmp_path / "run", quiet=True)
    assert run_config(run).learner.model_dump()["gamma"] == 0.5
    assert config == yaml.safe_load(TINY)
    with pytest.raises(simreal.UserError, match=r"nonsense: expected key\.sub=value"):
        simreal.train(config, ["nonsense"], run_dir=tmp_path / "other")
    with pytest.raises(simreal.UserError, match="expected the directory"):
        simreal.load(None)  # pyright: ignore[reportArgumentType]


def test_figures_and_pages_take_the_place_of_their_own_kind_only(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, figures = tmp_path / "config.yaml", tmp_path / "figures.json"
    victim.write_text(TINY)
    evaluate = ["evaluate", str(trained_run), "--episodes", "1", "--world", "nominal", "--json"]
    for command in ([*evaluate, str(victim)], ["report", str(trained_run), "--no-pictures", "--output", str(victim)]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2
        assert f"{victim}: exists and is no" in capsys.readouterr().err
    assert victim.read_text() == TINY
    for _ in range(2):
        main([*evaluate, str(figures)])
    assert json.loads(figures.read_text())["worlds"][0]["name"] == "nominal"
