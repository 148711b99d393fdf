"""More of the page about runs: figures of other files, the simulation's health, moments of episodes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_report import evaluated, report, world

from shortcuts import without_drawings
from simreal.report import clips


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawings(monkeypatch)


@pytest.fixture
def copy(trained_run: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies of the run, to be changed."""
    return lambda name: Path(shutil.copytree(trained_run, tmp_path / name))


def test_figures_of_one_policy_are_read_beside_its_run(copy: Callable[[str], Path], tmp_path: Path) -> None:
    run = evaluated(copy("a"), world("nominal", 50), world("heavy", 60, group="held_out"))
    text = report(run)
    assert "worlds that are unmodelled" in text
    assert f"simreal evaluate {run} --world unmodelled --json more.json, then simreal report {run} more.json" in text
    more = {"task": "FetchReach-v4", "policy": "a", "adr_entropy_npd": None}
    more |= {"worlds": [world("late", 37, group="unmodelled"), world("heavy", 81, group="held_out")]}
    (tmp_path / "more.json").write_text(json.dumps(more))
    text = report(run, tmp_path / "more.json").replace("\u202f", " ")
    assert "37.0 %" in text
    assert "81.0 %" in text  # measured anew
    assert "60.0 %" not in text
    assert "50.0 %" in text
    assert "Not measured" not in text


def test_figures_of_fewer_episodes_take_no_place(copy: Callable[[str], Path], tmp_path: Path) -> None:
    run = evaluated(copy("a"), world("nominal", 50))
    few = world("nominal", 10) | {"episodes": 10}
    more = {"task": "FetchReach-v4", "policy": "a", "adr_entropy_npd": None, "worlds": [few]}
    (tmp_path / "more.json").write_text(json.dumps(more))
    text = report(run, tmp_path / "more.json").replace("\u202f", " ")
    assert "50.0 %" in text
    assert "10.0 %" not in text


def test_the_health_of_the_simulation_is_shown(copy: Callable[[str], Path]) -> None:
    run = copy("a")
    assert "Nothing was wrong when training began" in report(run)
    defect = {"kind": "saturated", "of": "actuator 'x'", "evidence": "exerts all of its force", "remedy": "raise it"}
    (run / "health.json").write_text(json.dumps({"findings": [defect], "accepted": []}))
    assert "actuator &#39;x&#39;: exerts all of its force; raise it." in report(run)
    (run / "health.json").unlink()
    assert "Nobody looked at the simulation of a" in report(run)


def test_moments_are_those_in_which_something_changes() -> None:
    still = [np.zeros((8, 8, 3), np.uint8)] * 20
    moving = [np.full((8, 8, 3), 10 * k, np.uint8) for k in range(7)]
    assert clips._moments([*moving, *[moving[-1]] * 20]) == [0, 2, 4, 6]
    assert clips._moments(still) == [0, 7, 13, 19]
