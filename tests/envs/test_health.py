"""`simreal check`: sound simulations are left alone, and a defect is found once, by its own name."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from command import Run, refused, simreal_command
from conftest import HINGE, TINY, TinyTask, build
from defects import DEFECTS, arm
from envs.platform.menagerie import ModelUnavailableError, robot_path
from envs.registry import make_task, task_ids
from envs.validation.health.checkup import checkup, sorted_out
from envs.validation.health.finding import Finding
from envs.validation.health.motion import move
from envs.validation.health.subject import subject_of_environment, subject_of_file, subject_of_task
from shortcuts import without_bundles
from simreal.training.build import make_environment

FAMILIES = ("FetchPush-v4", "HandReach-v3", "HalfCheetah-v5", "HumanoidStandup-v5", "Go1Velocity-v0", "AllegroCube-v0",
            "RubiksCube-v0")  # fmt: skip
OTHERS = [task for task in task_ids() if task not in FAMILIES and "Dense" not in task and "Sensors" not in task]
XARM = "ufactory_xarm7"


def looked_at(xml: str, folder: Path, period_s: float = 0.02) -> list[Finding]:
    path = folder / "robot.xml"
    path.write_text(xml)
    return checkup(subject_of_file(path, period_s))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return partial(simreal_command, capsys)


def shipped(task_id: str) -> list[Finding]:
    """What is wrong with a task."""
    try:
        task = make_task(task_id)
    except ModelUnavailableError as error:
        pytest.skip(str(error))
    return sorted_out(task, checkup(subject_of_task(task)))[0]


@pytest.mark.parametrize("task_id", [*FAMILIES, *(pytest.param(task, marks=pytest.mark.slow) for task in OTHERS)])
def test_nothing_is_wrong_with_the_tasks_that_come_along(task_id: str) -> None:
    assert [finding.line() for finding in shipped(task_id)] == []


def test_nothing_is_wrong_with_a_sound_arm(tmp_path: Path) -> None:
    assert looked_at(arm(), tmp_path) == []


@pytest.mark.parametrize(("kind", "name", "word", "xml"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_named_and_nothing_else(kind: str, name: str, word: str, xml: str, tmp_path: Path) -> None:
    found = looked_at(xml, tmp_path)
    assert {finding.kind for finding in found} == {kind}
    assert all(name in finding.of for finding in found)
    assert all(word in finding.remedy for finding in found)
    assert all("\n" not in finding.line() for finding in found)


def test_a_speed_that_flips_by_way_of_standing_still_flips(tmp_path: Path) -> None:
    """Without damping but the servo's, and with a force that turns full speed into none in a step: v, 0, -v, 0, ..."""
    servo = '<position name="bend" joint="elbow" kp="400" kv="40" ctrlrange="-2 2" forcerange="-15 15"/>'
    xml = arm(damping=0.0, armature=0.0, mass=0.1, bend=servo).replace('"elbow" axis="0 1 0"', '"elbow" axis="1 0 0"')
    found = looked_at(xml, tmp_path, 0.04)
    assert [(finding.kind, finding.of) for finding in found] == [("sign_flips", "joint 'elbow'")]
    assert looked_at(xml.replace('armature="0.0"', f'armature="{found[0].armature}"'), tmp_path, 0.04) == []


def test_a_servo_that_swings_about_its_target_has_arrived(tmp_path: Path) -> None:
    swings = arm(damping=0.01, bend='<position name="bend" joint="elbow" kp="100" kv="0.02" ctrlrange="-2 2"/>')
    assert "does_not_arrive" not in {finding.kind for finding in looked_at(swings, tmp_path, 0.04)}


def test_the_armature_that_is_named_cures_the_xarms_last_joint() -> None:
    try:
        path = robot_path(XARM)
    except ModelUnavailableError as error:
        pytest.skip(str(error))
    subject = subject_of_file(path, 0.05)
    found = {finding.of: finding for finding in checkup(subject) if finding.kind == "sign_flips"}
    last = found["joint 'joint7'"]
    armature = float(last.remedy.split("armature ")[1].split()[0])
    assert armature <= 0.05  # kg m^2, which is known to cure it
    for value, arrives in ((0.0, False), (armature, True), (0.05, True)):  # by MuJoCo alone
        model, data = copy.copy(subject.model), copy.copy(subject.starts[0])
        dof = int(model.joint("joint7").dofadr[0])
        model.dof_armature[dof] = value
        mujoco.mj_setConst(model, mujoco.MjData(model))
        data.ctrl[:7] = data.qpos[:7]
        data.ctrl[6] += 0.2
        speeds = []
        for _ in range(500):
            mujoco.mj_step(model, data)
            speeds.append(float(data.qvel[dof]))
        flips = np.mean(np.sign(speeds[:-1]) * np.sign(speeds[1:]) < 0)
        assert (flips < 0.1) == arrives
        assert (abs(data.ctrl[6] - data.qpos[6]) < 0.02) == arrives


def test_energy_is_that_of_mujoco_and_of_the_servos_spring() -> None:
    # No gravity, joint damping 0.5 and servo kp 20, kv 1: with ctrl 0.3 and rest at 0 the spring holds 0.5 * 20 * 0.3^2
    # = 0.9 J, all of which is gone once the arm has arrived.
    model = mujoco.MjModel.from_xml_string(HINGE)
    motion = move(model, mujoco.MjData(model), np.array([0.3]), 2000)
    assert motion.energy[0] - motion.energy[-1] == pytest.approx(0.9, rel=2e-3)
    assert motion.kinetic[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_task_may_say_what_it_accepts() -> None:
    class Sunken(TinyTask):
        accepted = {"penetration": "the arm rests in foam"}  # noqa: RUF012

    task = Sunken(arm(height=0.01), decimation=10)
    wrong, accepted = sorted_out(task, checkup(subject_of_task(task)))
    assert wrong == []
    assert {finding.kind for finding in accepted} == {"penetration"}


def test_contacts_that_are_soft_on_purpose_are_no_overlap(tmp_path: Path) -> None:
    soft = arm(height=0.025).replace('name="upper" type', 'solimp="0 0.95 0.05" name="upper" type')
    assert "penetration" not in {f.kind for f in looked_at(soft.replace('size=".02"', 'size=".005"'), tmp_path)}


def test_adhesion_is_not_missed_where_there_is_no_contact(tmp_path: Path) -> None:
    sticky = arm().replace("<actuator>", '<actuator><adhesion name="suction" body="lower" ctrlrange="0 1" gain="5"/>')
    assert "suction" in sticky
    assert looked_at(sticky, tmp_path) == []


def test_a_period_shorter_than_a_step_of_physics_is_that_step(tmp_path: Path) -> None:
    """It took minutes: one command for each microsecond."""
    assert looked_at(arm(), tmp_path, period_s=1e-6) == []


def test_a_look_before_training_changes_no_bit_of_it() -> None:
    bits = []
    for looks in (False, True):
        environment = build(TinyTask(arm(height=0.01), decimation=10, spread=0.1), 3, seed=2)
        torch.manual_seed(5)
        if looks:
            assert {f.kind for f in checkup(subject_of_environment(environment), short=True)} == {"penetration"}
        random = torch.rand(4, 3, 2)
        bits.append(
            [environment.step(a).observed.policy for a in random] + [torch.rand(2), environment.observed.policy]
        )
    assert all(torch.equal(a, b) for a, b in zip(*bits, strict=True))


def test_training_warns_in_one_line_each_and_notes_it_beside_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bundles(monkeypatch)
    (tmp_path / "sunk.py").write_text(
        "from conftest import TinyTask\nfrom defects import arm\n\n\n"
        "class Sunk(TinyTask):\n    def __init__(self) -> None:\n        super().__init__(arm(height=0.01), 10)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = TINY.replace("FetchReach-v4", "sunk:Sunk").split("randomization:")[0]
    (tmp_path / "c.yaml").write_text(text + "train: {env_steps: 40}\nevaluate: {episodes: 1, worlds: [nominal]}\n")
    status, out, err = run("train", "c.yaml", "--run-dir", "r")
    assert status == 0, err
    warnings = [line for line in out.splitlines() if line.startswith("warning: simulation: ")]
    assert len(warnings) == 2
    assert all("overlap by" in line and "simreal check sunk:Sunk" in line for line in warnings)
    document = json.loads((tmp_path / "r" / "health.json").read_text())
    assert [f["kind"] for f in document["findings"]] == ["penetration"] * 2


def test_the_command_says_it_by_its_exit_status_and_in_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.xml").write_text(arm())
    (tmp_path / "weak.xml").write_text(arm(lift='forcerange="-1 1"'))
    assert run("check", "good.xml")[0] == 0
    status, out, _ = run("check", "weak.xml", "--json", "found.json")
    assert status == 1
    assert "saturated: actuator 'lift' (joint 'shoulder'): exerts all of its force (1 N m)" in out
    document = json.loads((tmp_path / "found.json").read_text())
    assert (document["healthy"], [f["kind"] for f in document["findings"]]) == (False, ["saturated"])
    # 9.81 m/s^2 * (1 kg * 0.15 m + 0.3 kg * (0.3 + 0.16) m) = 2.83 N m hold the arm out
    assert "about 2.8" in document["findings"][0]["remedy"]


def test_wrong_input_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.xml").write_text("<mujoco><worldbody><geom/></worldbody></mujoco>")
    refused(run("check", "nowhere.xml"), "nowhere.xml: no such file")
    refused(run("check", "broken.xml"), "broken.xml: MuJoCo cannot compile it")
    refused(run("check", "FetchPsh-v4"), "did you mean 'FetchPush-v4'")
    refused(run("check", "FetchPush-v4", "--period", "0.1"), "--period")
    (tmp_path / "good.xml").write_text(arm())
    for period in ("inf", "nan", "1e9"):
        refused(run("check", "good.xml", "--period", period), "--period")
    refused(run("check", "HalfCheetah-v5", "--json", tmp_path / "no" / "f.json"), "cannot be written")


def test_the_short_look_takes_less_than_half_a_second() -> None:
    import time

    environment = make_environment("HandReach-v3", 1, threads=1)
    environment.reset()
    began = time.process_time()
    checkup(subject_of_environment(environment), short=True)
    assert time.process_time() - began < 0.5
