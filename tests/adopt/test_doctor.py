"""The doctor names each of many defects by what it is, and finds nothing in sound robots."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from broken_robots import ARM, BROKEN, DOG, SOUND, URDF_ARM, URDF_DOG
from command import refused, simreal_command
from envs.robots.doctor.examine import examine
from envs.robots.doctor.symptom import Symptom
from envs.robots.files import open_robot
from robots import missing

MENAGERIE = ("unitree_go1", "wonik_allegro/right_hand", "shadow_hand/right_hand")
GYMNASIUM = ("ant", "half_cheetah", "hopper", "humanoid", "walker2d_v5", "inverted_pendulum")


def found(path: Path, severities: tuple[str, ...] = ("error", "warning")) -> list[Symptom]:
    return [symptom for symptom in examine(open_robot(str(path))) if symptom.severity in severities]


@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_wrong_with_a_sound_robot(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SOUND[name][1])
    assert [symptom.line() for symptom in found(tmp_path / name)] == []


@pytest.mark.parametrize("defect", BROKEN)
def test_a_defect_is_named(tmp_path: Path, defect: str) -> None:
    kinds, of, form, make = BROKEN[defect]
    path = tmp_path / ("robot.urdf" if form == "urdf" else "robot.xml")
    path.write_text(make())
    symptoms = found(path)
    named = [symptom for symptom in symptoms if symptom.kind in kinds and of in symptom.of + symptom.evidence]
    assert named, [symptom.line() for symptom in symptoms]
    assert all(symptom.remedy for symptom in named)


@pytest.mark.parametrize("robot", MENAGERIE)
def test_nothing_is_wrong_with_robots_of_the_menagerie(robot: str) -> None:
    if reason := missing(robot):
        pytest.skip(reason)
    assert [symptom.line() for symptom in examine(open_robot(robot)) if symptom.severity != "note"] == []


@pytest.mark.parametrize("name", GYMNASIUM)
def test_nothing_is_wrong_with_models_of_gymnasium(name: str) -> None:
    import gymnasium

    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{name}.xml"
    assert [symptom.line() for symptom in found(path)] == []


def test_what_importers_drop_is_told(tmp_path: Path) -> None:
    (tmp_path / "arm.urdf").write_text(URDF_ARM)
    notes = {symptom.kind: symptom for symptom in found(tmp_path / "arm.urdf", ("note",))}
    assert "8 to 8" in notes["velocity"].evidence
    assert "position servos" in notes["actuators"].remedy


def test_meshes_of_packages_are_found_beside_and_above_the_file(tmp_path: Path) -> None:
    import gymnasium_robotics

    stl = next((Path(gymnasium_robotics.__file__).parent / "envs" / "assets").rglob("*.stl"))
    package = tmp_path / "my_dog"
    (package / "urdf").mkdir(parents=True)
    (package / "meshes").mkdir()
    (package / "meshes" / "trunk.stl").write_bytes(stl.read_bytes())
    asked = 'mesh filename="package://my_dog/meshes/trunk.stl" scale="0.1 0.1 0.1"/>'
    (package / "urdf" / "dog.urdf").write_text(URDF_DOG.replace('<box size="0.4 0.1 0.1"/>', f"<{asked}"))
    robot = open_robot(str(package / "urdf" / "dog.urdf"))
    assert robot.error == ""
    assert robot.missing == []
    assert robot.model is not None
    assert robot.model.nmesh == 1


def test_the_command_says_it_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = partial(simreal_command, capsys)
    (tmp_path / "good.xml").write_text(ARM)
    status, out, _ = run("adopt", tmp_path / "good.xml", "--doctor", "--json", tmp_path / "good.json")
    assert status == 0
    assert "nothing is wrong" in out
    assert json.loads((tmp_path / "good.json").read_text())["healthy"] is True
    (tmp_path / "bad.xml").write_text(BROKEN["commands in degrees"][3]())
    status, out, _ = run("adopt", tmp_path / "bad.xml", "--doctor", "--json", tmp_path / "bad.json")
    assert status == 1
    assert "warning: units: actuator 'lift'" in out
    (finding,) = [f for f in json.loads((tmp_path / "bad.json").read_text())["findings"] if f["severity"] == "warning"]
    assert finding["kind"] == "units"


def test_wrong_input_is_one_line_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = partial(simreal_command, capsys), tmp_path / "made"
    files = {
        "world.sdf": "<sdf version='1.9'><model name='a'/></sdf>",
        "robot.xacro": "<robot xmlns:xacro='http://www.ros.org/wiki/xacro'><xacro:include filename='a'/></robot>",
        "page.xml": "<html/>",
        "text.urdf": "hello",
        "limp.xml": BROKEN["no actuators"][3](),
        "lost.urdf": BROKEN["a mesh that is not there"][3](),
        "dog.xml": DOG,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    expected = {
        "world.sdf": "is an SDF", "robot.xacro": "xacro robot.xacro > robot.urdf", "page.xml": "<html>",
        "text.urdf": "is no XML", "limp.xml": "no actuators", "lost.urdf": "package://dog/meshes/trunk.stl",
        "nowhere.urdf": "no such file",
    }  # fmt: skip
    for name, told in expected.items():
        refused(run("adopt", tmp_path / name, "--output", out, "--no-smoke"), told)
    refused(run("adopt", "unitree_gone", "--output", out, "--no-smoke"), "unitree_gone")
    refused(run("adopt", tmp_path / "dog.xml", "--task", "walk", "--output", out), "expected velocity, reach, hold")
    refused(run("adopt", tmp_path / "dog.xml", "--task", "reach", "--output", out, "--no-smoke"), "its base floats")
    refused(run("adopt", tmp_path / "dog.xml", "--doctor", "--output", out), "--doctor")
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("mine")
    refused(run("adopt", tmp_path / "dog.xml", "--output", out, "--no-smoke"), "exists; name another --output")
    assert [path.name for path in out.iterdir()] == ["mine"]
