"""Estimators as bundles: loaded without torch, with the policies that act on what they read."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from envs.common.spatial import matrix_to_euler, matrix_to_quat
from shortcuts import made_once, with_short_rehearsals
from simreal.cli.main import main
from simreal.deploy import BundleError, Policy, SeeingPolicy
from simreal.deploy import Estimator as Deployed
from simreal.deploy.seeing import rotations
from simreal.deploy.seeing.estimator import Read
from simreal.export.pictures.estimator import write_estimator
from simreal.vision.estimator.config import NetworkConfig
from simreal.vision.estimator.loading import load_estimator
from simreal.vision.estimator.network import EstimatorNetwork
from simreal.vision.estimator.targets import Target, six_to_matrix
from small_eyes import run as run
from small_eyes import small_chunks as small_chunks

pytestmark = pytest.mark.usefixtures("can_render", "small_chunks")


@pytest.fixture(scope="session")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The estimator's bundle, made once."""
    folder = made_once(tmp_path_factory, "eyes-bundle", lambda f: main(["export", str(run), "--output", str(f / "b")]))
    return folder / "b"


def test_an_exported_estimator_reads_what_the_run_reads(run: Path, bundle: Path) -> None:
    robot, pictures = Deployed.load(bundle), np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    expected, deviation = load_estimator(run).estimate(pictures[:, None])["grip_pos"]
    value, spread = robot({"front": pictures})["grip_pos"]
    np.testing.assert_allclose(value, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(spread, deviation.numpy(), rtol=1e-3)
    np.testing.assert_allclose(robot(pictures[2])["grip_pos"][0], value[2], atol=1e-6)  # one picture of one camera
    camera = robot.contract["cameras"][0]
    assert (camera["camera"], camera["shape"], camera["colours"]) == ("front", [16, 16, 3], "rgb")
    assert camera["intrinsics"]["fy"] == pytest.approx(8 / np.tan(np.radians(camera["intrinsics"]["fovy_deg"] / 2)))
    assert robot.contract["targets"][0]["unit"] == "m"
    assert robot.contract["evaluation"]["task"] == "FetchReach-v4"


def test_an_exported_estimator_refuses_other_pictures_and_changed_files(bundle: Path, tmp_path: Path) -> None:
    robot, blank = Deployed.load(bundle), np.zeros((16, 16, 3), np.uint8)
    for given, said in (
        (blank.astype(np.float32), r"front: expected bytes \(uint8\).*got float32"),
        (np.zeros((32, 32, 3), np.uint8), r"front: expected pictures \[16, 16, 3\] .* got \[32, 32, 3\]"),
        ({"fornt": blank}, r"unknown camera 'fornt' \(did you mean 'front'\?\)"),
        ({}, "front: missing"),
    ):
        with pytest.raises(ValueError, match=said):
            robot(given)
    changed = Path(shutil.copytree(bundle, tmp_path / "b"))
    graph = changed / "estimator.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"estimator.onnx: altered after the export"):
        Deployed.load(changed)
    with pytest.raises(BundleError, match="no such estimator"):
        Deployed.load(tmp_path)


def test_rotations_of_a_deployed_estimator_are_those_of_torch() -> None:
    six = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = six_to_matrix(six)
    ours = rotations.six_to_matrix(six.numpy())
    np.testing.assert_allclose(ours, matrix.numpy(), atol=1e-12)
    np.testing.assert_allclose(rotations.matrix_to_quat(ours), matrix_to_quat(matrix).numpy(), atol=1e-12)
    np.testing.assert_allclose(rotations.matrix_to_euler(ours), matrix_to_euler(matrix).numpy(), atol=1e-12)


@pytest.mark.parametrize(("kind", "grid"), [("quaternion", 0), ("angles", 2), ("euler", 0)])
def test_every_kind_of_target_is_exported(kind: Any, grid: int) -> None:
    # Two cameras, and what the network puts out for it is made a value as torch makes it
    size = {"quaternion": 4, "angles": 2, "euler": 3}[kind]
    target = Target("thing", kind, size, 0.1, "rad", tuple("abcd"[:size]))
    place = Target("place", "position", 3, 0.1, "m", tuple("xyz"))
    sizes = NetworkConfig(channels=(8, 16), halvings=2, features=5, hidden=(8,), grid=grid)
    network = EstimatorNetwork([place, target], 2, sizes).eval()
    network.fit_scales({"place": torch.randn(20, 3) * 3 + 1})
    pictures = torch.randint(0, 256, (3, 2, 24, 32, 3), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(write_estimator(network, (2, 24, 32)), providers=["CPUExecutionProvider"])
    outputs: Any = session.run(None, {"pixels": pictures.numpy()})[0]
    start = 0
    with torch.no_grad():
        for t, found in zip((place, target), network(pictures).values(), strict=True):
            value, deviation = Read(t.name, t.kind, t.size, start, start := start + t.outputs).estimate(outputs)
            expected, spread = t.estimate(found)
            np.testing.assert_allclose(value, expected.numpy(), atol=2e-5)
            np.testing.assert_allclose(deviation, spread.numpy(), rtol=1e-4)


def test_a_policy_takes_its_estimators_along_and_acts_on_pictures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_short_rehearsals(monkeypatch)
    config = tmp_path / "policy.yaml"
    config.write_text(
        f"task: FetchReach-v4\nnum_envs: 2\nlearner: {{algorithm: ddpg, hidden: [8], warmup_steps: 4}}\n"
        f"sensors: {{grip_pos: 'estimator:{run}'}}\ntrain: {{env_steps: 8, keep: last}}\n"
        f"evaluate: {{episodes: 1, worlds: [nominal]}}\n"
    )
    main(["train", str(config), "--run-dir", str(tmp_path / "policy")])
    seeing = SeeingPolicy.load(tmp_path / "policy" / "bundle")
    assert seeing.policy.contract["sensors"][0]["bundle"] == "bundle_eyes"
    picture = np.random.default_rng(2).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    rest = {p.name: np.full(p.stop - p.start, 0.1) for p in seeing.policy.layout.observation if p.name != "grip_pos"}
    with pytest.raises(ValueError, match=r"'grip_pos': no picture showed it in this episode; call see\(\) first"):
        seeing(rest)
    shown = seeing.see(picture)["grip_pos"]
    np.testing.assert_allclose(shown, load_estimator(run).estimate(picture[None, None])["grip_pos"][0][0], atol=1e-4)
    expected = Policy.load(tmp_path / "policy" / "bundle")({**rest, "grip_pos": shown})
    for _ in range(2):  # the estimate stays until there is another picture
        np.testing.assert_array_equal(seeing(rest), expected)
    with pytest.raises(ValueError, match="'grip_pos': is read from pictures; leave it out"):
        seeing({**rest, "grip_pos": shown})
    other = copy.copy(seeing.estimators["grip_pos"])
    other.contract = other.contract | {"task": "FetchPush-v4"}
    with pytest.raises(ValueError, match="grip_pos: the estimator is of FetchPush-v4, expected one of FetchReach-v4"):
        SeeingPolicy(seeing.policy, {"grip_pos": other})
    shutil.rmtree(tmp_path / "policy" / "bundle_eyes")
    with pytest.raises(BundleError, match="bundle_eyes: no such estimator"):
        SeeingPolicy.load(tmp_path / "policy" / "bundle")
