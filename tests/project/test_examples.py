"""The scripts in examples/ run as they stand, with few steps."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import simreal
from robots import needs
from shortcuts import with_short_rehearsals, without_bundles
from simreal.export.bundle import export_bundle
from simreal.export.foreign import ForeignContract
from simreal.training.run_config import read_yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted((*EXAMPLES.glob("*.py"), *EXAMPLES.glob("humanoid/*.py")))
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script with arguments in an empty folder; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def go(script: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return go


def test_train_from_python(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with_short_rehearsals(monkeypatch)
    printed = run("train_from_python.py", "1100")
    assert "trained in action_delay from" in printed
    assert "nominal:" in printed
    assert Path("runs/run-1/bundle/policy.onnx").is_file()


def test_own_task_and_the_control_loop_that_its_bundle_runs_in(run: Run) -> None:
    run("own_task.py", "2048")
    printed = run("deploy_loop.py", "runs/rod/bundle", "0.3")
    assert "target_angle: values [0, 1], rad, joints ['hinge']" in printed
    assert "2.0 s:" in printed


def test_the_task_keeps_what_tasks_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    testing = pytest.importorskip("simreal.testing")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    testing.check_task("own_task:Rod")


def mean_distance(printed: str) -> float:
    """What the arm's loop says, mm."""
    return float(printed.split("mean distance ")[1].split()[0])


@needs("ufactory_xarm7")
def test_an_arm_and_the_loop_that_its_bundle_runs_in(run: Run) -> None:
    assert len((EXAMPLES / "arm_reach.py").read_text().splitlines()) < 50
    arm = importlib.import_module("arm_reach")
    task = arm.ArmReach()
    nothing = torch.nn.Linear(sum(part.size for part in task.observation), 7)
    torch.nn.init.zeros_(nothing.weight)
    torch.nn.init.zeros_(nothing.bias)
    export_bundle(nothing, task, "bundle", task_name="arm_reach:ArmReach")
    printed = run("arm_loop.py", "bundle", "2", "40")
    assert "of 2 episodes, 40 ms late" in printed
    distances = {late: mean_distance(run("arm_loop.py", "bundle", "2", late)) for late in ("0", "120", "3000")}
    assert abs(distances["120"] - distances["0"]) < 1.0  # mm: more than two control steps late, and there all the same
    assert abs(distances["3000"] - distances["0"]) > 5.0  # as long as an episode: nothing arrives
    # An action of 0 asks for HOME, at most 0.3 rad away: 40 % of the way in the first step.
    assert 0.05 < float(printed.rsplit("command ", 1)[1].split()[0]) <= 0.12


@needs("ufactory_xarm7")
def test_the_arm_keeps_what_tasks_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.import_module("simreal.testing").check_task("arm_reach:ArmReach")


def test_evaluate_in_worlds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    without_bundles(monkeypatch)
    lines = run("evaluate_in_worlds.py", "2048", "4").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["nominal", "latency", "late_and_noisy_joints", "slow_and_heavy"]


def test_stable_baselines3(run: Run) -> None:
    pytest.importorskip("stable_baselines3")
    assert run("sb3.py", "2048").count("of 1000") == 2


def test_images(run: Run) -> None:
    assert "(12, 240, 240, 3) uint8" in run("images.py", "worlds.png")
    tiles = np.asarray(Image.open("worlds.png")).reshape(3, 240, 4, 240, 3).swapaxes(1, 2).reshape(12, -1)
    assert len(np.unique(tiles, axis=0)) == 12


def test_a_humanoid_of_another_framework_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "humanoid"))
    example = importlib.import_module("t1_walker")
    contract = ForeignContract.model_validate(read_yaml(EXAMPLES / "humanoid" / "t1_walker.yaml"))
    stance = tuple(joint[1] for joint in example.JOINTS)
    assert contract.action.offset == stance
    assert [piece.minus for piece in contract.observation if piece.of == "joint_pos"] == [stance]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(simreal.TaskError, match=r"pip install --no-deps holosoma==0\.0\.3"):
        example.T1Walker()


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_an_example_is_short_uses_public_names_and_is_listed(script: Path) -> None:
    text = script.read_text()
    assert len(text.splitlines()) < 60
    assert f"[{script.name}]({script.relative_to(EXAMPLES)})" in (EXAMPLES / "README.md").read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simreal"):
            assert node.module in ("simreal.deploy", "simreal.gym.sb3")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "simreal":
            assert node.attr in simreal.__all__
