"""`simreal adopt` writes packages that are checked, trained, evaluated and exported as they stand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mujoco
import numpy as np
import pytest

from broken_robots import ARM, DOG, HEIGHT_M, URDF_ARM, URDF_DOG
from command import Run, simreal_command
from envs.locomotion.legged.velocity import LeggedVelocity
from envs.registry import make_task
from shortcuts import without_bundles
from simreal.adopt.smoke import verdict
from simreal.testing import check_task

ROBOTS = {
    "dog.xml": (DOG, "velocity", "Dog"), "dog.urdf": (URDF_DOG, "velocity", "Dog"), "arm.xml": (ARM, "reach", "Arm"),
    "arm.urdf": (URDF_ARM, "reach", "Arm"), "holds.xml": (ARM, "hold", "Holds"),
}  # fmt: skip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    without_bundles(monkeypatch)
    sys.modules.pop("task", None)
    yield partial(simreal_command, capsys)
    sys.modules.pop("task", None)


def adopted(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the package of a robot and go there; the name of its task."""
    text, kind, class_name = ROBOTS[name]
    Path(name).write_text(text)
    status, out, err = run("adopt", name, "--task", kind, "--output", "made", "--no-smoke")
    assert status == 0, err
    assert "nothing is wrong" in out
    monkeypatch.chdir("made")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    return f"task:{class_name}"


@pytest.mark.parametrize("name", ROBOTS)
def test_a_package_is_checked_trained_and_evaluated_as_it_stands(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    task = adopted(run, name, monkeypatch)
    assert sorted(path.name for path in Path.cwd().iterdir()) == [
        "README.md", "adopted.json", "config.yaml", "model", "task.py",
    ]  # fmt: skip
    status, out, err = run("check", task)
    assert status == 0, out + err
    check_task(task)
    few = ["num_envs=8", "train.env_steps=400", "evaluate.episodes=1", "evaluate.worlds=[nominal]"]
    status, _, err = run("train", "config.yaml", *few, "--run-dir", "runs/a")
    assert status == 0, err
    assert run("evaluate", "runs/a", "--world", "trained", "--episodes", "1")[0] == 0


def test_what_fits_a_robot_is_found_out(run: Run) -> None:
    for name, (text, kind, _) in ROBOTS.items():
        if kind == "hold":
            continue
        Path(name).write_text(text)
        folder = f"made_{Path(name).stem}_{Path(name).suffix[1:]}"
        status, _, err = run("adopt", name, "--output", folder, "--no-smoke")
        assert status == 0, err
        assert {"velocity": "LeggedVelocity", "reach": "Reach"}[kind] in (Path(folder) / "task.py").read_text()


def test_a_urdf_that_is_fixed_to_its_world_link_is_not_taken_for_a_walker(run: Run) -> None:
    link = '<link name="world"/><joint name="bolt" type="fixed"><parent link="world"/><child link="trunk"/></joint>'
    Path("dog.urdf").write_text(URDF_DOG.replace("</robot>", f"{link}</robot>"))
    status, _, err = run("adopt", "dog.urdf", "--output", "made", "--no-smoke")
    assert status == 0, err
    assert "LeggedVelocity" not in Path("made/task.py").read_text()


def test_two_robots_and_legs_of_slides_are_refused_by_name(run: Run) -> None:
    spec = mujoco.MjSpec.from_string(DOG)
    for key in list(spec.keys):
        spec.delete(key)
    other = spec.worldbody.add_body(name="cart", pos=[2, 0, 0.4])
    other.add_freejoint()
    other.add_geom(size=[0.1, 0, 0], mass=3)
    arm = other.add_body(name="mast")
    arm.add_joint(name="mast", axis=[0, 0, 1])
    arm.add_geom(size=[0.05, 0, 0], mass=1, pos=[0, 0, 0.3])
    Path("two.xml").write_text(spec.to_xml())
    status, _, err = run("adopt", "two.xml", "--output", "made", "--no-smoke")
    assert (status, err) == (2, "simreal: two.xml: holds 2 robots that float (trunk, cart), expected one\n")
    Path("dog.xml").write_text(
        DOG.replace('name="FL_swing"', 'name="FL_swing" type="slide"', 1).replace(
            'name="FL_knee"', 'name="FL_knee" type="slide"', 1
        )
    )
    status, _, err = run("adopt", "dog.xml", "--task", "velocity", "--output", "made", "--no-smoke")
    assert status == 2
    assert err.endswith("no legs: joint 'FL_knee' before a foot is a slide, expected legs of hinges\n")
    assert not Path("made").exists()


def test_a_dog_is_described_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(adopted(run, "dog.xml", monkeypatch))
    assert isinstance(task, LeggedVelocity)
    robot = task.robot
    assert {foot.name: foot.radius_m for foot in robot.feet} == {"FL": 0.02, "FR": 0.02, "RL": 0.02, "RR": 0.02}
    assert all(foot.sole == (0.0, 0.0, -0.2) for foot in robot.feet)
    assert robot.stance == (0.0, 0.8, -1.6) * 4  # the keyframe's
    assert robot.height_m == pytest.approx(HEIGHT_M, abs=1e-3)
    assert robot.stiffness == (40.0,) * 12
    assert robot.damping == (1.0,) * 12
    assert robot.effort == (30.0,) * 12
    groups = {frozenset(group) for group in task.gait.groups}
    assert groups == {frozenset(("FL", "RR")), frozenset(("FR", "RL"))}  # a trot
    assert task.mirror is not None
    assert task.mirror.exchanged["FL_knee"] == "FR_knee"


def test_a_urdf_of_the_same_dog_stands_where_its_file_does_not_say(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(adopted(run, "dog.urdf", monkeypatch))
    assert isinstance(task, LeggedVelocity)
    robot = task.robot
    assert robot.speed == (8.0,) * 12  # of the URDF, which MuJoCo drops
    assert robot.effort == (30.0,) * 12
    assert 0.3 < robot.height_m < 0.36  # of a leg of 0.4 m and a foot of 0.02 m that is never quite straight
    model, data = task.model, mujoco.MjData(task.model)
    data.qpos[:7] = (0, 0, robot.height_m, 1, 0, 0, 0)
    data.qpos[7:] = robot.stance
    mujoco.mj_kinematics(model, data)
    for foot in robot.feet:
        place = data.site(foot.name).xpos
        hip = data.body(foot.name.split("_")[0] + "_hip").xpos
        assert place[2] == pytest.approx(0.02, abs=2e-3)  # on the ground
        assert abs(place[0] - hip[0]) < 0.03  # below the hip
    assert np.ptp(np.abs(np.reshape(robot.stance, (4, 3))), axis=0).max() < 0.05  # all legs alike
    holding = model.actuator_gainprm[0, 0] * 0.3
    assert holding <= 30.0 + 1e-6  # a third of a radian uses the whole motor, or less of it


def test_a_waist_that_carries_all_legs_is_held_and_no_joint_of_a_leg(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    waist = '<joint name="waist" axis="0 0 1" range="-1 1"/><geom name="hips" type="sphere" size="0.03" mass="1"/>'
    text = DOG.replace('mass="6"/>', f'mass="6"/><body name="hips">{waist}', 1)
    apart = "".join(f'<exclude body1="trunk" body2="{leg}_hip"/>' for leg in ("FL", "FR", "RL", "RR"))
    text = text.replace("</body>\n  </worldbody>", f"</body></body>\n  </worldbody><contact>{apart}</contact>")
    text = text.replace("</actuator>", '<position name="waist" joint="waist" kp="40" kv="1"/></actuator>')
    Path("turning.xml").write_text(text.replace(" 1 0 0 0 ", " 1 0 0 0 0 ").replace('-1.6"/></key', '-1.6 0"/></key'))
    monkeypatch.setitem(ROBOTS, "turning.xml", (Path("turning.xml").read_text(), "velocity", "Turning"))
    task = make_task(adopted(run, "turning.xml", monkeypatch))
    assert isinstance(task, LeggedVelocity)
    assert len(task.robot.joints) == 12
    assert "waist" not in task.robot.joints
    assert task.robot.held == (("waist", 0.0),)
    assert task.mirror is not None


def test_an_arm_whose_shoulder_is_in_its_base_does_not_jam(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sunk = URDF_ARM.replace("0 0 0.22", "0 0 0.1")
    assert sunk != URDF_ARM
    monkeypatch.setitem(ROBOTS, "sunk.urdf", (sunk, "reach", "Sunk"))
    model = make_task(adopted(run, "sunk.urdf", monkeypatch)).model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.ncon == 0  # MuJoCo lets neighbours touch, but not those of a base that is fixed to the world


def test_nothing_of_the_package_needs_its_origin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = adopted(run, "arm.xml", monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arm.xml").unlink()
    (tmp_path / "made").rename(tmp_path / "moved")
    monkeypatch.chdir("moved")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    sys.modules.pop("task", None)
    assert run("describe", task)[0] == 0
    assert str(tmp_path) not in "".join(p.read_text() for p in (*Path.cwd().glob("*.py"), *Path.cwd().glob("*.md")))


def test_a_verdict_compares_the_ends_of_a_curve(tmp_path: Path) -> None:
    head = "env_steps,episodes,return,term/linear_error\n"
    rows = ["100,0,0,0.9", "200,2,-10,0.8", "300,4,-9,0.7", "400,6,-8,0.6", "500,8,-6,0.5", "600,9,-5,0.4"]
    (tmp_path / "up.csv").write_text(head + "\n".join(rows) + "\n")
    # the row without an episode does not count; a fifth of five is one
    assert verdict(tmp_path / "up.csv") == ("it learns (return -10 -> -5, linear error 0.8 -> 0.4)", True)
    flat = [f"{100 * i},{i},-10,0.8" for i in range(6)]
    (tmp_path / "flat.csv").write_text(head + "\n".join(flat) + "\n")
    text, learns = verdict(tmp_path / "flat.csv")
    assert not learns
    assert text.startswith("no progress yet")


@pytest.mark.slow
def test_a_smoke_run_says_whether_it_learns(run: Run) -> None:
    Path("arm.urdf").write_text(URDF_ARM)
    status, out, err = run("adopt", "arm.urdf", "--output", "made", "--seconds", "8")
    assert status == 0, err
    assert "smoke run: " in out.splitlines()[-1]
    assert "success rate" in out
    assert (Path("made") / "runs" / "smoke" / "metrics.csv").is_file()
