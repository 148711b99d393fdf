"""Robot models by name, and one line that says what to do where a model cannot be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from envs.platform.menagerie import NOT_HERE, ModelUnavailableError, UnknownRobotError, load_robot, robot_path
from envs.registry import make_task
from robots import skip_if_missing, skipping_missing


def test_tests_of_a_robot_that_is_not_here_are_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch, tmp_path)
    with pytest.raises(pytest.skip.Exception, match=r"unitree_go1.*set MENAGERIE_ROOT"), skipping_missing():
        make_task("Go1Velocity-v0")
    program = [sys.executable, "-m", "simreal.cli.main", "describe", "Go1Velocity-v0"]
    said = subprocess.run(program, capture_output=True, text=True, check=False).stderr
    with pytest.raises(pytest.skip.Exception, match=r"unitree_go1.*set MENAGERIE_ROOT"):
        skip_if_missing(said)
    with pytest.raises(UnknownRobotError), skipping_missing():  # a fault of the test, not of the machine
        load_robot("unitree_goo1")


def offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """A machine with an empty cache and nowhere to download from."""
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    monkeypatch.setenv("MENAGERIE_CACHE_DIR", str(cache))
    monkeypatch.setenv("MENAGERIE_BASE_URL", (cache / "nothing").as_uri())


def test_a_folder_named_by_menagerie_root_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "unitree_go1"
    folder.mkdir()
    for name, body in (("go1.xml", "robot"), ("scene.xml", "floor")):
        (folder / name).write_text(f"<mujoco><worldbody><body name='{body}'/></worldbody></mujoco>")
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    assert load_robot("unitree_go1").body("robot") is not None
    assert load_robot("unitree_go1", scene=True).body("floor") is not None
    assert robot_path("unitree_go1/scene") == folder / "scene.xml"


def test_a_model_that_cannot_be_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path)
    with pytest.raises(ModelUnavailableError, match=r"unitree_go1.*set MENAGERIE_ROOT to a folder") as caught:
        load_robot("unitree_go1")
    assert "\n" not in str(caught.value)
    assert NOT_HERE in str(caught.value)


def test_a_root_without_the_robot_or_without_its_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    with pytest.raises(ModelUnavailableError, match="not found under MENAGERIE_ROOT"):
        load_robot("wonik_allegro/right_hand")
    (tmp_path / "wonik_allegro").mkdir()
    with pytest.raises(ModelUnavailableError, match=r"right_hand.xml: no such file"):
        load_robot("wonik_allegro/right_hand")


def test_unknown_names_are_answered_with_the_nearest_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path)
    with pytest.raises(UnknownRobotError, match="Did you mean 'wonik_allegro'"):
        load_robot("wonik_alegro")
    with pytest.raises(UnknownRobotError, match=r"no entry point 'middle_hand'.*right_hand"):
        load_robot("wonik_allegro/middle_hand")
