"""The loop that is written beside a bundle runs as it stands, and what its user made of it is not lost."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from envs.parts.actions import EndEffectorDelta
from envs.parts.observations import BodyPose, JointState, LastTarget
from simreal.export.bundle import export_bundle
from simreal.export.example_loop import example_loop
from small_arm import SmallArm


def still(observations: int) -> nn.Module:
    """A policy that asks for nothing."""
    policy = nn.Linear(observations, 3)
    for values in policy.parameters():
        nn.init.zeros_(values)
    return policy


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps of a tool: the loop has to send targets of joints."""
    parts = [JointState(stance=(0.1, 0.2, 0.3)), LastTarget(), BodyPose("tool", rotation="6d")]
    task = SmallArm(EndEffectorDelta("tool", 0.03), parts)
    return export_bundle(still(18), task, tmp_path_factory.mktemp("loop") / "bundle", observations=torch.zeros(2, 18))


def test_it_names_all_that_the_contract_names_and_runs(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (bundle / "example_loop.py").read_text()
    contract = json.loads((bundle / "policy.json").read_text())
    for part in contract["observation"]:
        if part["name"] != "last_target":
            assert f"{part['name']!r}: np.zeros({part['shape'][0]})" in text
    # Before anything is sent it is what the robot holds, and then what was sent.
    assert "sent = {'tool_step': np.zeros(3)}" in text
    assert "'last_target': sent['tool_step']," in text
    assert "sent.update(targets)" in text
    assert "joint positions from the stance; what is measured less [0.1, 0.2, 0.3]; yaw" in text
    assert "computed from joint_pos" in text
    assert "due += 0.02" in text
    monkeypatch.setattr(sys, "argv", ["example_loop.py", "2"])
    runpy.run_path(str(bundle / "example_loop.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == ["{'tool_step': [0.0, 0.0, 0.0]}"] * 2


def test_where_only_the_robot_knows_what_it_holds_it_is_asked() -> None:
    whole = {"index": [0, 2], "shape": [2], "unit": "rad", "frame": "joint", "description": "", "elements": []}
    action = whole | {
        "name": "a",
        "actuators": [],
        "joints": [],
        "afterwards": "",
        "initial_target": None,
        "smoothing": 0.5,
    }
    seen = whole | {"name": "q", "derived_from": [], "measured": True}
    contract = {"task": 'x"""\n', "control_period_s": 0.1, "observation": [seen], "action": [action]}
    text = example_loop(contract)
    assert "policy.reset(targets={'a': np.zeros(2)})" in text
    compile(text, "example_loop.py", "exec")
    action["smoothing"] = 1.0
    assert "policy.reset()" in example_loop(contract)


def test_a_loop_that_was_changed_stays_and_others_follow_the_contract(tmp_path: Path) -> None:
    task = SmallArm(observations=JointState())
    folder, zeros = tmp_path / "bundle", torch.zeros(2, 6)
    export_bundle(still(6), task, folder, observations=zeros, task_name="first")
    loop = folder / "example_loop.py"
    export_bundle(still(6), task, folder, observations=zeros, task_name="second")
    assert "A control loop for second" in loop.read_text()
    loop.write_text("my_robot()\n")
    export_bundle(still(6), task, folder, observations=zeros, task_name="third")
    assert loop.read_text() == "my_robot()\n"
