"""What a newcomer meets in the first hour: words instead of silence, worlds that say something, known tasks."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest

import simreal
from command import Run, refused, simreal_command
from conftest import HINGE, SLIDER, TINY, TinyTask, build
from defects import arm
from envs import registry
from shortcuts import without_drawings
from simreal.evaluation.evaluate import equal_to_nominal, evaluate_named
from simreal.evaluation.worlds import find_worlds
from simreal.report import write_report
from simreal.training.run_config import find_config
from simreal.training.run_directory import LoadedPolicy
from simreal.vision.rendering.scene import Scene
from simreal.vision.rendering.viewer import parse_size

ARM = "first_hour_tasks:Arm"


class Arm(TinyTask):
    """An arm of one's own."""

    def __init__(self) -> None:
        super().__init__(arm(), decimation=10, max_episode_steps=30, spread=0.2)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return partial(simreal_command, capsys)


@pytest.fixture
def own_arm(monkeypatch: pytest.MonkeyPatch) -> LoadedPolicy:
    """A policy that does nothing, for a task of one's own."""
    import torch

    monkeypatch.setitem(registry._TASKS, ARM, (Arm, {}))
    still = lambda observation: torch.zeros(len(observation), 2)  # noqa: E731
    return LoadedPolicy("still", ARM, still, lambda mask: None, [], None, None)


def test_a_task_of_ones_own_has_several_held_out_worlds(own_arm: LoadedPolicy) -> None:
    worlds, left_out = find_worlds(["held_out"], own_arm)
    assert {"latency", "heavy_links", "weak_motors", "worn_joints", "late_sensors"} <= {world.name for world in worlds}
    assert "heavy_links" not in left_out
    document = evaluate_named(own_arm, ["nominal", "heavy_links", "worn_joints"], 5, None, 3)
    assert equal_to_nominal(document) == []


def test_worlds_without_effect_are_named(own_arm: LoadedPolicy) -> None:
    # A late sensor means nothing to a policy that looks at none; heavier links do.
    document = evaluate_named(own_arm, ["nominal", "late_sensors", "heavy_links"], 5, None, 3)
    assert equal_to_nominal(document) == ["late_sensors"]


def test_worlds_without_effect_are_left_out_of_means(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_drawings(monkeypatch)
    copied = Path(shutil.copytree(trained_run, tmp_path / "a"))
    document = json.loads((copied / "evaluation.json").read_text())
    nominal = document["worlds"][0]
    idle = nominal | {"name": "idle", "group": "held_out", "success_rate": 0.0}
    real = nominal | {"name": "real", "group": "held_out", "success_rate": 1.0}
    # As well as in the nominal world, and not in the same way: a world that the policy copes with.
    real["samples"] = nominal["samples"] | {"actions": [value + 1 for value in nominal["samples"]["actions"]]}
    document["worlds"] += [idle, real]
    (copied / "evaluation.json").write_text(json.dumps(document))
    write_report([copied], tmp_path / "r.html", pictures=False)
    text = (tmp_path / "r.html").read_text().replace("\u202f", " ")
    assert "Equal to nominal in every episode, and left out of means: idle." in text
    assert '<span class="what">Held out</span><b>100.0 %</b>' in text


def test_a_task_that_is_registered_is_known_to_gymnasium_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    simreal.register()
    name = "FirstHour-v0"
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    try:
        simreal.register_task(name, TinyTask, xml=HINGE)
        env = gymnasium.make(f"simreal/{name}")
        observation, _ = env.reset(seed=0)
        assert observation.shape == (3,)
        env.close()
    finally:
        gymnasium.registry.pop(f"simreal/{name}", None)


def test_a_missing_package_of_a_run_to_resume_is_named(run: Run, trained_run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(trained_run, tmp_path / "r"))
    text = (copied / "config.yaml").read_text().replace("algorithm: ddpg", "algorithm: nope")
    (copied / "config.yaml").write_text("# learner 'nope' is of Python package 'not_here'\n" + text)
    (tmp_path / "c.yaml").write_text(TINY.replace("algorithm: ddpg", "algorithm: nope"))
    refused(run("train", "c.yaml", "--run-dir", "r", "--resume"), "'not_here', which is not installed")
    refused(run("train", "c.yaml"), "no learner 'nope'; there are: ddpg, ")


def test_a_learner_without_an_algorithm_is_answered_with_those_there_are(run: Run, tmp_path: Path) -> None:
    for block in ("learner:", "learner: {}", "learner: {gamma: 0.9}"):
        (tmp_path / "c.yaml").write_text(f"task: FetchReach-v4\n{block}\n")
        refused(run("train", "c.yaml"), "learner.algorithm: no 'algorithm'; there are: ddpg, ")


@pytest.mark.usefixtures("can_render")
def test_play_writes_words_into_videos_of_any_size_and_camera(run: Run, trained_run: Path, tmp_path: Path) -> None:
    common = ("--episodes", "1", "--size", "96x64")
    status, out, err = run("play", trained_run, "--video", "v.gif", *common)
    assert status == 0, err
    assert out.splitlines()[0] == f"{trained_run}: loading ..."  # before anything that takes long
    assert "episode 1 of 1: no success, " in out or "episode 1 of 1: success, " in out
    assert " m from the goal after 50 steps" in out
    frames = imageio.imread(tmp_path / "v.gif")
    assert frames.shape[1:3] == (64, 96)
    status, _, err = run("play", trained_run, "--video", "w.mp4", "--camera", "external_camera_0", *common)
    assert status == 0, err
    other = imageio.imread(tmp_path / "w.mp4", index=0)
    assert np.abs(other.astype(float) - frames[0].astype(float)).mean() > 5.0
    refused(run("play", trained_run, "--video", "v.mp4", "--camera", "nope"), "no camera 'nope'", "there are: ")
    refused(run("play", trained_run, "--video", "v.avi"), "v.avi: expected a file name that ends in .mp4 or .gif")
    refused(run("play", trained_run, "--video", "v.mp4", "--size", "big"), "--size: expected WIDTHxHEIGHT")


def test_sizes_are_even_as_video_needs_them() -> None:
    assert (parse_size("480"), parse_size("641x481")) == ((480, 480), (642, 482))


@pytest.mark.usefixtures("can_render")
def test_a_model_without_light_and_background_gets_both_in_pictures() -> None:
    pictures = []
    bright = '<asset><texture type="skybox" builtin="flat" rgb1="1 0 0" rgb2="1 0 0" width="8" height="8"/></asset>'
    for xml in (SLIDER, SLIDER.replace("<worldbody>", f'{bright}<worldbody><light pos="0 0 3"/>', 1)):
        scene = Scene(build(TinyTask(xml.replace('size="9 9 1"', 'size=".3 .3 .1"')), 1), 64, 64, daylight=True)
        pictures.append(scene.picture(0))
        scene.close()
    bare, own = (picture[2, 2].astype(int) for picture in pictures)
    assert bare.min() > 60  # a sky, where MuJoCo leaves black
    assert bare[2] > bare[0]
    assert list(own) == [255, 0, 0]  # the model's own background stays


def test_shipped_worlds_for_own_tasks_are_for_no_task_that_comes_along() -> None:
    for name in ("heavy_links", "weak_motors", "worn_joints", "late_sensors"):
        assert 'tasks: "*:*"' in find_config(name, "worlds").read_text()
