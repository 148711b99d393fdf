"""`simreal new`: what it writes can be checked and trained as it stands, and nothing is written over."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from command import Run, refused, simreal_command
from defects import DEFECTS, arm
from envs.platform.menagerie import ModelUnavailableError, robot_path
from envs.registry import make_task
from shortcuts import without_bundles
from simreal.testing import check_task

DOCS = Path(__file__).resolve().parents[2] / "docs"
CARTPOLE = re.findall(r'MODEL = """\n(.*?)"""', (DOCS / "tasks.md").read_text(), re.DOTALL)[0]
BIPED = """
<mujoco>
  <worldbody>
    <body name="trunk"><freejoint/><geom type="box" size=".1 .1 .1" mass="2"/>
      <body name="left" pos="0 .1 -.1"><joint name="left" axis="0 1 0" range="-60 60" armature=".01"/>
        <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".03" mass=".5"/></body>
      <body name="right" pos="0 -.1 -.1"><joint name="right" axis="0 1 0" range="-60 60" armature=".01"/>
        <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".03" mass=".5"/></body>
    </body>
  </worldbody>
  <actuator>
    <position name="left" joint="left" kp="40" kv="2" ctrlrange="-1 1"/>
    <position name="right" joint="right" kp="40" kv="2" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""
ROBOTS = ("ufactory_xarm7", "unitree_go1", "wonik_allegro/right_hand", "shadow_hand/right_hand")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    without_bundles(monkeypatch)
    before = set(sys.modules)
    yield partial(simreal_command, capsys)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def made(run: Run, robot: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a starter, go to its folder; returns the name of its task."""
    status, out, err = run("new", robot, "--output", name)
    assert status == 0, err
    monkeypatch.chdir(name)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    return out.split("simreal check ")[1].split()[0]


@pytest.mark.parametrize(("name", "xml"), [("cartpole_x", CARTPOLE), ("biped_x", BIPED)])
def test_a_starter_is_checked_and_trained_as_it_stands(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, xml: str
) -> None:
    (tmp_path / f"{name}.xml").write_text(xml)
    task = made(run, tmp_path / f"{name}.xml", name, monkeypatch)
    assert sorted(path.suffix for path in Path.cwd().iterdir()) == [".py", ".yaml"]
    status, out, _ = run("check", task)
    assert status == 0, out
    check_task(task)
    status, _, err = run("train", f"{name}.yaml", "train.env_steps=1100", "evaluate.episodes=2")
    assert status == 0, err
    # made here, from this folder: nobody is asked for --task
    assert run("evaluate", f"runs/{name}-1", "--episodes", "2")[0] == 0


def test_a_starter_cures_joints_that_flip_and_reaches_what_it_asks_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flips_x.xml").write_text(DEFECTS["no rotor behind strong damping"][3])
    name = made(run, tmp_path / "flips_x.xml", "flips_x", monkeypatch)
    assert 'spec.joint("elbow").armature = ' in Path("flips_x.py").read_text()
    assert run("check", name)[0] == 0
    task = make_task(name)
    (component,) = task.action
    # 4 rad of range: a quarter is 1 rad, more than the 0.6 rad that a starter asks for at most
    assert component.scale == (0.6, 0.6)
    assert component.target_limits == ((-2.0, -2.0), (2.0, 2.0))


def test_the_legs_stand_on_a_floor_that_the_file_does_not_have(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conftest import build

    (tmp_path / "stands_x.xml").write_text(BIPED)
    env = build(make_task(made(run, tmp_path / "stands_x.xml", "stands_x", monkeypatch)), 2)
    # legs of 0.3 m and a radius of 0.03 m under a box whose centre is 0.1 m above them
    assert float(env.engine.data("qpos")[0, 2]) == pytest.approx(0.43, abs=2e-3)
    result = env.step(torch.zeros(2, 2))
    assert not bool(result.terminated.any())
    assert [component.name for component in env.task.observation] == [
        "joint_pos", "joint_vel", "gyro", "projected_gravity", "last_action", "asked",
    ]  # fmt: skip
    text = Path("stands_x.py").read_text()
    assert "(simreal.ComposedTask)" in text
    assert len(text.splitlines()) < 80


def test_a_robot_whose_actuators_no_ready_made_part_has_gets_a_task_with_all_in_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rope = '<tendon><fixed name="rope"><joint joint="elbow" coef="1"/></fixed></tendon>'
    pulled = arm(bend='<position name="pull" tendon="rope" kp="50" kv="4" ctrlrange="-1 1"/>')
    (tmp_path / "pulled_x.xml").write_text(pulled.replace("<actuator>", rope + "<actuator>"))
    task = make_task(made(run, tmp_path / "pulled_x.xml", "pulled_x", monkeypatch))
    assert "(simreal.Task)" in Path("pulled_x.py").read_text()
    assert [name for part in task.action for name in part.actuators] == ["lift", "pull"]


@pytest.mark.slow
@pytest.mark.parametrize("robot", ROBOTS)
def test_starters_of_real_robots_are_checked_and_trained(run: Run, monkeypatch: pytest.MonkeyPatch, robot: str) -> None:
    try:
        path = robot_path(robot)
    except ModelUnavailableError as error:
        pytest.skip(str(error))
    name = made(run, path, "real_x", monkeypatch)
    status, out, _ = run("check", name)
    assert status == 0, out
    file = next(Path.cwd().glob("*.yaml"))
    status, _, err = run("train", file, "train.env_steps=1100", "evaluate.episodes=2", "--run-dir", "r")
    assert status == 0, err


def test_motors_without_a_range_and_names_with_commas_are_written_as_they_are(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`inf` is no Python, and a line must not break within a name."""
    names = [f"a long name, number {i},, with commas and spaces" for i in range(6)]
    bodies = "".join(
        f'<body pos="{i} 0 0"><joint name="{name}" axis="0 0 1" damping=".1"/><geom size=".1"/></body>'
        for i, name in enumerate(names)
    )
    motors = "".join(f'<motor name="{name}" joint="{name}"/>' for name in names)
    (tmp_path / "six.xml").write_text(f"<mujoco><worldbody>{bodies}</worldbody><actuator>{motors}</actuator></mujoco>")
    task = make_task(made(run, tmp_path / "six.xml", "six", monkeypatch))
    assert list(task.action[0].actuators) == names
    assert task.observation[0].joints == tuple(names)
    check_task(type(task))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.xml").write_text(
        '<mujoco><worldbody><body><joint name="a" damping=".1"/><geom size=".1"/></body></worldbody>'
        '<actuator><velocity name="a" joint="a"/></actuator></mujoco>'
    )
    check_task(type(make_task(made(run, tmp_path / "one.xml", "one", monkeypatch))))


def test_wrong_input_is_one_line_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    files = {
        "broken": "<mujoco><worldbody><geom/></worldbody></mujoco>",
        "limp": "<mujoco><worldbody><body><joint name='a'/><geom size='.1'/></body></worldbody></mujoco>",
        "text": "hello",
    }
    for name, xml in files.items():
        (tmp_path / f"{name}.xml").write_text(xml)
    refused(run("new", "nowhere.xml"), "nowhere.xml: no such file")
    refused(run("new", "broken.xml"), "broken.xml: MuJoCo cannot compile it")
    refused(run("new", "text.xml"), "text.xml: MuJoCo cannot compile it")
    refused(run("new", "limp.xml"), "has no actuators")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    (tmp_path / "good.xml").write_text(arm())
    refused(run("new", "good.xml", "--output", "mine"), "mine: exists")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["mine"]
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes"]


def test_actuators_without_names_are_called_by_what_they_act_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = arm().replace('name="lift" ', "").replace('name="bend" ', "")
    second = nameless.replace("</actuator>", '<motor joint="elbow" gear="0.1" ctrlrange="-1 1"/></actuator>')
    (tmp_path / "nameless_x.xml").write_text(second)
    task = make_task(made(run, tmp_path / "nameless_x.xml", "nameless_x", monkeypatch))
    assert [part.actuators for part in task.action] == [("shoulder", "elbow"), ("elbow_2",)]
    assert [task.model.actuator(i).name for i in range(3)] == ["shoulder", "elbow", "elbow_2"]
