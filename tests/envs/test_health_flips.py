"""Joints whose speed flips from physics step to physics step: what is named does not follow commands, what is not does.

The xArm7 of MuJoCo Menagerie has no rotors' inertia; MuJoCo alone, at a twentieth of the timestep, says how it moves.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.platform.menagerie import ModelUnavailableError, load_robot
from envs.registry import build_task
from envs.validation.health.checkup import checkup
from envs.validation.health.finding import Finding
from envs.validation.health.subject import Subject, subject_of_task

HOME = np.array([0.0, -0.247, 0.0, 0.909, 0.0, 1.15644, 0.0])  # rad


def xarm(armature: dict[str, float], timestep: float = 0.002) -> mujoco.MjModel:
    try:
        spec = load_robot("ufactory_xarm7", scene=True)
    except ModelUnavailableError as error:
        pytest.skip(str(error))
    for joint, value in armature.items():
        spec.joint(joint).armature = value
    spec.option.timestep = timestep
    return spec.compile()


def looked_at(model: mujoco.MjModel, short: bool = False) -> dict[str, Finding]:
    data = mujoco.MjData(model)
    data.qpos[:] = HOME
    mujoco.mj_forward(model, data)
    found = checkup(Subject("xarm", model, [data], 0.05), short)
    assert {finding.kind for finding in found} <= {"sign_flips"}
    return {finding.of.removeprefix("joint '").rstrip("'"): finding for finding in found}


def speeds(model: mujoco.MjModel) -> np.ndarray:
    """[40, 7] at 20 Hz, of targets that go 40 % of the way to random ones, as a policy with smoothing sends them."""
    random, data, noted = np.random.default_rng(0), mujoco.MjData(model), []
    data.qpos[:], data.ctrl[:] = HOME, HOME
    for _ in range(40):
        data.ctrl[:] += 0.4 * (HOME + random.uniform(-0.6, 0.6, 7) - data.ctrl)
        mujoco.mj_step(model, data, round(0.05 / model.opt.timestep))
        noted.append(data.qvel.copy())
    return np.array(noted)


def wrong_speed(armature: dict[str, float]) -> np.ndarray:
    """How far speeds [7] are from those with a timestep of 0.1 ms, as a share of them (root of mean squares)."""
    fine = speeds(xarm(armature, 1e-4))
    return np.sqrt(np.square(speeds(xarm(armature)) - fine).mean(axis=0) / np.square(fine).mean(axis=0))


def test_joints_that_flip_under_a_policy_are_named_with_a_cure_that_holds() -> None:
    cured = {"joint5": 0.05, "joint7": 0.05}
    found = looked_at(xarm(cured))
    assert set(found) == {"joint1", "joint6"}  # joint3 turns about nearly the same axis as joint1, and flips with it
    wrong = wrong_speed(cured)
    assert (wrong[[0, 2, 5]] > 0.5).all()
    assert (wrong[[1, 3, 4, 6]] < 0.3).all()

    cures = {joint: finding.armature for joint, finding in found.items() if finding.armature is not None}
    assert set(cures) == set(found)
    assert looked_at(xarm(cured | cures)) == {}
    assert (wrong_speed(cured | cures) < 0.3).all()


@pytest.mark.parametrize("cured", [{"joint5": 0.02, "joint7": 0.02}, {f"joint{i}": 0.05 for i in range(1, 8)}])
def test_the_short_form_names_the_same_joints(cured: dict[str, float]) -> None:
    assert looked_at(xarm(cured), short=True) == looked_at(xarm(cured))
    assert (looked_at(xarm(cured)) == {}) == (len(cured) == 7)


def test_a_few_flips_after_a_step_do_no_harm() -> None:
    """With rotors of 0.05 kg m^2 joints 5 and 7 still flip in a tenth of the steps; they move as at a fine timestep."""
    rotors = {f"joint{i}": 0.05 for i in range(1, 8)}
    assert looked_at(xarm(rotors)) == {}
    assert wrong_speed(rotors).max() < 0.05


def test_the_example_of_an_arm_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    xarm({})
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    task = build_task("arm_reach:ArmReach", importlib.import_module("arm_reach").ArmReach, {})
    assert checkup(subject_of_task(task)) == []
