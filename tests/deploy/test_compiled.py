"""A policy compiled from C in the place of ONNX Runtime: the same answers, the same checks, no one else's library."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from envs.parts.actions import JointPosition
from envs.parts.observations import JointState, LastTarget
from envs.registry import make_task
from shortcuts import made_once
from simreal.deploy import BundleError, Controller, Policy
from simreal.export.bundle import export_bundle
from simreal.learners.base import LearnerSpec
from simreal.learners.options import PPOConfig
from simreal.learners.registry import learner_class
from small_arm import SmallArm
from toy_robot import Clock, ToyRobot

pytestmark = pytest.mark.skipif(not (shutil.which("make") and shutil.which("cc")), reason="no C compiler")


def lstm() -> Any:
    """A policy of FetchReach with memory and random weights."""
    spec = LearnerSpec(1, 13, 4, 3, 0, None, torch.device("cpu"))
    options = PPOConfig.model_validate({"algorithm": "ppo", "memory": "lstm", "actor_hidden": (8,), "memory_size": 8})
    policy: Any = learner_class("ppo")(spec, options, 0).policy
    torch.manual_seed(0)
    for values in policy.parameters():
        values.data += 0.1 * torch.randn_like(values)
    return policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arm whose targets are added to what is shown, a policy with memory, and that policy in 8 bits."""

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        arm = SmallArm(JointPosition(scale=0.2, relative="joint", smoothing=0.5), [JointState(), LastTarget()])
        fetch = make_task("FetchReach-v4")
        export_bundle(nn.Linear(9, 3), arm, folder / "arm", c=folder / "arm_c", observations=torch.randn(4, 9))
        export_bundle(lstm(), fetch, folder / "lstm", c=folder / "lstm_c")
        export_bundle(lstm(), fetch, folder / "int8", c=folder / "int8_c", int8_limit=0.3)
        for name in ("arm_c", "lstm_c", "int8_c"):
            subprocess.run(["make", "-s", "-C", folder / name, "CFLAGS=-O1", "libpolicy.so"], check=True)

    return made_once(tmp_path_factory, "compiled", make)


def load(folder: Path, name: str) -> tuple[Policy, Policy]:
    """The policy as ONNX Runtime and as C compute it."""
    return Policy.load(folder / name), Policy.load(folder / name, library=folder / f"{name}_c" / "libpolicy.so")


@pytest.mark.parametrize(("name", "size"), [("arm", 9), ("lstm", 13)])
def test_it_answers_as_onnx_runtime_does(name: str, size: int, folder: Path) -> None:
    graph, compiled = load(folder, name)
    random = np.random.default_rng(0)
    for step in range(40):
        if step == 25:
            graph.reset()
            compiled.reset()
        observation = random.standard_normal(size).astype(np.float32)
        actions = graph(observation), compiled(observation)
        np.testing.assert_allclose(actions[1], actions[0], rtol=0.0, atol=1e-5)
        for key, values in graph.targets(actions[0]).items():
            np.testing.assert_allclose(compiled.targets(actions[1])[key], values, atol=1e-4)
    graph.reset()
    compiled.reset()
    batch = random.standard_normal((5, size)).astype(np.float32)
    for _ in range(3):
        np.testing.assert_allclose(compiled(batch), graph(batch), rtol=0.0, atol=1e-5)
    with pytest.raises(ValueError, match=r"element .* is nan"):
        compiled(np.full((5, size), np.nan))
    np.testing.assert_allclose(compiled(batch), graph(batch), rtol=0.0, atol=1e-5)  # the memory is as it was


def test_a_controller_sends_the_same_with_either(folder: Path) -> None:
    sent: list[Any] = []
    for policy in load(folder, "arm"):
        clock = Clock()
        robot = ToyRobot(policy, clock, {"joint_target": [0.3, -0.4, 0.6]})
        report = Controller(policy, robot, **clock.times()).run(0.5)
        assert [event["kind"] for event in report["events"]][-2:] == ["finished", "stopped"]
        sent.append([targets["joint_target"] for _, targets in robot.written])
    assert np.ptp(sent[0], axis=0).max() > 0.01
    np.testing.assert_allclose(sent[1], sent[0], rtol=0.0, atol=1e-5)


def test_weights_of_8_bits_may_differ_by_what_their_export_states(folder: Path) -> None:
    graph, compiled = load(folder, "int8")
    observation = np.zeros(13)
    error = np.abs(compiled(observation) - graph(observation)).max()
    assert 1e-5 < error < 0.3


def test_onnx_runtime_is_not_needed(folder: Path) -> None:
    bundle, library = str(folder / "arm"), str(folder / "arm_c" / "libpolicy.so")
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from simreal.deploy import Policy\n"
        f"print(Policy.load({bundle!r}, library={library!r})([0.0] * 9).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(3,)\n", "")


def test_a_library_of_another_bundle_or_none_is_refused(folder: Path, tmp_path: Path) -> None:
    def said(library: Path) -> str:
        with pytest.raises(BundleError) as caught:
            Policy.load(folder / "arm", library=library)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "written for another bundle: expected contract_sha256" in said(folder / "lstm_c" / "libpolicy.so")
    assert "expected the folder of simreal export --c" in said(tmp_path / "libpolicy.so")
    shutil.copytree(folder / "arm_c", tmp_path / "c")
    (tmp_path / "c" / "libpolicy.so").unlink()
    assert "libpolicy.so: no such file; make it: make -C" in said(tmp_path / "c" / "libpolicy.so")
    (tmp_path / "c" / "libpolicy.so").write_bytes(b"no library")
    assert "libpolicy.so: cannot be loaded" in said(tmp_path / "c" / "libpolicy.so")
    # One that was made of something else, beside the right header
    changed = tmp_path / "c" / "policy.c"
    (tmp_path / "c" / "libpolicy.so").unlink()
    text = changed.read_text()
    changed.write_text(text.replace("return POLICY_OK;", "action[0] *= 0.5f; return POLICY_OK;", 1))
    subprocess.run(["make", "-s", "-C", tmp_path / "c", "libpolicy.so"], check=True)
    assert "answers with another" in said(tmp_path / "c" / "libpolicy.so")
