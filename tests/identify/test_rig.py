"""A robot that hangs up for its log: the same motion as that of one whose base is fixed, and nothing to touch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

import simreal
from envs import registry
from randomization.parameters import build_parameters
from simreal.common.errors import UserError
from simreal.identify.rig import Rig, held

ARM = """
  <body name="arm" pos="0 0.2 0"><joint name="shoulder" axis="0 1 0" damping="0.1" range="-90 90"/>
    <geom name="upper" type="capsule" fromto="0 0 0 0.4 0 -0.3" size="0.03" mass="1"/>
  </body>
"""
BASE = '<body name="hull" pos="0 0 0.15"><freejoint name="root"/><geom size="0.1" mass="5"/>' + ARM + "</body>"
FIXED = '<body name="hull" pos="0 0 0.15"><geom size="0.1" mass="5" contype="0" conaffinity="0"/>' + ARM + "</body>"
WORLD = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 0.1"{off}/>
    {robot}
    {other}
  </worldbody>
  <actuator><position name="m" joint="shoulder" kp="40" kv="2" ctrlrange="-1 1"/></actuator>
  {keys}
</mujoco>
"""
BALL = '<body name="ball" pos="0.3 0.2 1"><freejoint/><geom size="0.05" mass="1"/></body>'


class Swimmer(simreal.ComposedTask):
    """An arm on a hull that nothing holds, with a ball beside it."""

    decimation, max_episode_steps = 2, 10
    compiled: bool = True

    def __init__(self) -> None:
        keys = '<keyframe><key qpos="0 0 1 1 0 0 0 0 0 0 1 1 0 0 0"/></keyframe>'
        spec = mujoco.MjSpec.from_string(WORLD.format(robot=BASE, other=BALL, off="", keys=keys))
        model = simreal.compile_spec(spec) if self.compiled else spec.compile()
        self.compose(model, simreal.JointPosition(), [simreal.JointState("shoulder")])

    def outcome(self, action: Any) -> simreal.Outcome:
        raise NotImplementedError


class Closed(Swimmer):
    """The same, of a model that it does not let be changed."""

    compiled = False


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._TASKS, "Swimmer-v0", (Swimmer, {}))
    monkeypatch.setitem(registry._TASKS, "Closed-v0", (Closed, {}))


def played(model: mujoco.MjModel, steps: int = 300) -> np.ndarray:
    data = mujoco.MjData(model)
    for step in range(steps):
        data.ctrl[:] = 0.9 * np.sin(0.03 * step)
        mujoco.mj_step(model, data)
    return np.array([data.joint("shoulder").qpos[0], data.joint("shoulder").qvel[0]])


def test_a_hung_robot_moves_as_one_whose_base_is_fixed_and_touches_nothing() -> None:
    task, start = held("Swimmer-v0", Rig(hang=True, without=("ball",)))
    off = ' contype="0" conaffinity="0"'
    fixed = mujoco.MjModel.from_xml_string(WORLD.format(robot=FIXED, other="", off=off, keys=""))
    assert (task.model.nq, task.model.nbody) == (1, 3)
    assert np.allclose(played(task.model), played(fixed), atol=1e-12)
    # The same motion over a floor in its way is another one: the test can fail.
    floor = mujoco.MjModel.from_xml_string(WORLD.format(robot=FIXED, other="", off="", keys=""))
    assert abs(played(task.model) - played(floor))[0] > 0.05
    subject = start()
    assert subject.starts[0].qpos.shape == (1,)
    (mass,) = build_parameters(task, {"arm": {"quantity": "body_mass", "of": "arm", "range": [0.5, 2]}})
    assert mass.targets == ("arm",)


def test_what_is_left_out_may_stand_before_the_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    first = WORLD.replace("    {robot}\n    {other}\n", "    {other}\n    {robot}\n")
    monkeypatch.setattr(sys.modules[__name__], "WORLD", first)
    task, _ = held("Swimmer-v0", Rig(hang=True, without=("ball",)))
    assert [task.model.body(i).name for i in range(task.model.nbody)] == ["world", "hull", "arm"]
    assert task.model.nq == 1
    assert not task.model.geom("floor").contype[0]
    assert task.model.geom("upper").contype[0] == 1


def test_a_body_of_the_task_may_be_missing() -> None:
    task, _ = held("Swimmer-v0", Rig(hang=True))
    assert [task.model.body(i).name for i in range(task.model.nbody)] == ["world", "hull", "arm", "ball"]


@pytest.mark.parametrize(
    ("name", "rig", "message"),
    [
        ("Swimmer-v0", Rig(), r"its base \(hull\) floats, .* and say --hang"),
        ("InvertedPendulum-v5", Rig(hang=True), "--hang: its base does not float"),
        ("Swimmer-v0", Rig(True, ("bal",)), r"--without bal: no such body \(did you mean 'ball'\?\)"),
        ("Swimmer-v0", Rig(True, ("arm",)), "--without arm: is part of the robot"),
        ("Swimmer-v0", Rig(True, ("hull",)), "--without hull: is part of the robot"),
        ("Closed-v0", Rig(hang=True), "its model cannot be changed; compile it with simreal.compile_spec"),
    ],
)
def test_what_cannot_be_is_one_line(name: str, rig: Rig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        held(name, rig)


def test_a_motion_of_a_hung_robot_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from simreal.cli.main import main

    (tmp_path / "p.yaml").write_text("damping: {quantity: joint_damping, of: shoulder, range: [0.3, 3]}\n")
    main(["excite", "Swimmer-v0", "--hang", "--without", "ball", "--parameters", str(tmp_path / "p.yaml"), "--seconds",
          "3", "--draws", "1", "--output", str(tmp_path / "motion.csv")])  # fmt: skip
    assert (tmp_path / "motion.csv").read_text().startswith("time,command/m\n")
    assert "simreal identify Swimmer-v0 --hang --without ball LOG" in capsys.readouterr().out
