"""What follows from pictures: faces of a Rubik's Cube, of its orientation and the black pieces that a camera shows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from envs.common.spatial import axis_angle_to_quat, quat_multiply, uniform_quat
from envs.manipulation.rubiks.marks import angles_of, faces_by_side, marks_of, rule
from envs.manipulation.rubiks.task import RubiksCube
from envs.registry import make_task
from robots import ALLEGRO, needs
from shortcuts import made_once, with_small_chunks
from simreal.cli.main import main
from simreal.common.json_io import read_json
from simreal.deploy import BundleError, Estimator
from simreal.deploy.seeing.follows import read_follows
from simreal.export.pictures.beside import export_beside
from simreal.export.source import ExportError
from simreal.training.build import make_environment
from simreal.vision.estimator.derived import follow, implied
from simreal.vision.estimator.loading import load_estimator
from simreal.vision.estimator.targets import find_target
from simreal.vision.sensors.config import SensorConfig
from small_eyes import small_chunks as small_chunks

pytestmark = needs(ALLEGRO)

MOUNTED = {"above": {"pos": [-0.01, -0.1, 0.4], "lookat": [-0.01, 0, 0.05], "fovy": 20}}
SMALL: dict[str, Any] = {
    "task": "RubiksCube-v0", "task_options": {"hand": "allegro"}, "mounts": MOUNTED, "cameras": ["above"], "size": 16,
    "targets": {"cube_quat": {"within": 0.3}, "mark_angle": {"within": 0.2}}, "pictures": {"workers": 0},
    "network": {"channels": [8, 8], "features": 8, "hidden": [16], "grid": 2},
    "train": {"frames": 32, "batch_size": 4, "round_chunks": 1},
    "evaluate": {"frames": 16, "looks": ["nominal"], "boundary_frames": 0},
}  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained estimator, made once."""

    def make(folder: Path) -> None:
        (folder / "eyes.yaml").write_text(yaml.safe_dump(SMALL))
        with pytest.MonkeyPatch.context() as patch:
            with_small_chunks(patch)
            main(["estimate", str(folder / "eyes.yaml"), "--run-dir", str(folder / "eyes")])

    return made_once(tmp_path_factory, "rubiks_eyes", make) / "eyes"


def quats(count: int) -> torch.Tensor:
    return uniform_quat(torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def test_marks_say_the_angles_of_the_faces() -> None:
    quat = quats(2000)
    angles = math.pi * (2.0 * torch.rand(2000, 6, generator=torch.Generator().manual_seed(1)).double() - 1.0)
    clear = (faces_by_side(quat).sort(dim=1).values == torch.arange(6)).all(dim=1)  # each face points to a side
    assert float(clear.double().mean()) > 0.8
    found = angles_of(quat, marks_of(quat, angles))
    assert float((found - angles)[clear].abs().max()) < 1e-9


def test_a_mark_is_where_it_is_seen() -> None:
    """From above: x to the right, y up."""
    level = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    still = torch.zeros(1, 6, dtype=torch.float64)
    top = lambda quat, angles: float(marks_of(quat, angles)[0, 4])  # noqa: E731
    assert top(level, still) == pytest.approx(3 * math.pi / 4)  # U's first facelet is at the back, left
    turned = still.clone()
    turned[0, 0] = 0.3
    assert top(level, turned) == pytest.approx(3 * math.pi / 4 + 0.3)
    yawed = axis_angle_to_quat(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0.3])).double()
    assert top(quat_multiply(yawed, level), still) == pytest.approx(3 * math.pi / 4 + 0.3, abs=1e-6)


def test_how_unsure_an_implied_angle_is_comes_from_what_it_follows_from() -> None:
    task = make_task("RubiksCube-v0", hand="allegro")
    parts = [find_target(task, "cube_quat", "auto", 0.3), find_target(task, "mark_angle", "auto", 0.2)]
    (faces,) = implied(task, parts)
    assert (faces.name, faces.kind, faces.size, faces.within) == ("face_angle", "angles", 6, 0.2)
    assert implied(task, parts[:1]) == []
    assert implied(make_task("FetchReach-v4"), parts) == []
    n = 400
    level = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64).expand(n, 4)
    truth = torch.zeros(n, 6, dtype=torch.float64)
    exact = torch.full((n, 1), 1e-6, dtype=torch.float64)
    marks = marks_of(level, truth)
    value, std = follow(task, faces, parts, {"cube_quat": (level, exact), "mark_angle": (marks, 0.05 + 0.0 * marks)})
    assert float((value - truth).abs().max()) < 1e-9
    assert float(std.mean()) == pytest.approx(0.05, rel=0.1)
    _, std = follow(task, faces, parts, {"cube_quat": (level, 0.05 + 0.0 * exact), "mark_angle": (marks, 0.0 * marks)})
    assert float(std.mean()) == pytest.approx(0.05, rel=0.1)  # of the turn about the face's axis
    _, std = follow(task, faces, parts, {"cube_quat": (level, 3.0 + 0.0 * exact), "mark_angle": (marks, 0.0 * marks)})
    assert float(std.mean()) > 1.0  # another face may be there


@pytest.mark.usefixtures("can_render", "small_chunks")
def test_faces_are_assessed_shown_to_policies_and_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = read_json(run / "evaluation.json")
    assert document is not None
    assert list(document["looks"][0]["targets"]) == ["cube_quat", "mark_angle", "face_angle"]
    assert document["measured"] == ["cube_quat", "face_angle"]
    sensor = SensorConfig(estimator=str(run), rate_hz=None, latency_s=0.0, drop=0.0, unseen=False)
    made = make_environment(
        "RubiksCube-v0", 2, engine="cpu", task_options={"hand": "allegro"}, sensors={"face_angle": sensor}, seed=1
    )
    shown = made.reset().policy[:, made.task.slices("policy")["face_angle"]]
    eye: Any = made.layer._eyes[0]  # type: ignore[attr-defined]
    pictures = eye._camera().take(torch.arange(2), made.layer.lam)  # type: ignore[attr-defined]
    found = load_estimator(run).estimate(pictures)
    expected = angles_of(found["cube_quat"][0], found["mark_angle"][0])
    np.testing.assert_allclose(shown, expected, atol=1e-5)
    (entry,) = export_beside({"face_angle": sensor}, tmp_path / "bundle")
    deployed = Estimator.load(tmp_path / entry["bundle"])
    told, unsure = deployed.of_stacks(pictures)["face_angle"]
    np.testing.assert_allclose(told, expected, atol=1e-4)
    assert unsure.shape == (2, 6)
    assert [follows.name for follows in deployed.follows] == ["face_angle"]
    monkeypatch.setattr(RubiksCube, "picture_rule", lambda self, name: None)
    with pytest.raises(ExportError, match=r"face_angle: follows from what .* reads by arithmetic of the task"):
        export_beside({"face_angle": sensor}, tmp_path / "other")


def test_the_robots_arithmetic_is_the_tasks() -> None:
    quat, g = quats(500), torch.Generator().manual_seed(2)
    marks = math.pi * (2.0 * torch.rand(500, 6, generator=g).double() - 1.0)
    contract = {"follows": [{"name": "face_angle", "of": ["q", "m"], **rule()}]}
    (follows,) = read_follows(contract, {"q": ("quaternion", 4), "m": ("angles", 6)})
    value, deviation = follows.estimate({
        "q": (quat.numpy(), np.full((500, 1), 0.03)), "m": (marks.numpy(), np.full((500, 6), 0.04)),
    })  # fmt: skip
    np.testing.assert_allclose(value, angles_of(quat, marks), atol=1e-9)
    clear = (faces_by_side(quat).sort(dim=1).values == torch.arange(6)).all(dim=1).numpy()
    np.testing.assert_allclose(deviation[clear], 0.05, atol=1e-12)
    assert (deviation[~clear].max(axis=1) == np.pi).all()  # a face that no side shows


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rule": "faces"}, "expected a component with the rule 'marks'"),
        ({"of": ["m", "q"]}, r"of: expected a quaternion and six angles"),
        ({"of": "qm"}, r"of: expected a quaternion and six angles"),
        ({"tables": {"first": [[1, 2, 3]]}}, "tables: expected first, across"),
        ({"tables": None}, "tables: expected first, across"),
    ],
)
def test_a_contract_that_says_it_wrongly_is_refused(changed: dict[str, Any], said: str) -> None:
    contract = {"follows": [{"name": "face_angle", "of": ["q", "m"], **rule(), **changed}]}
    with pytest.raises(BundleError, match=said):
        read_follows(contract, {"q": ("quaternion", 4), "m": ("angles", 6)})
