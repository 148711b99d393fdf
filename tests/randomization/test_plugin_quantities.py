"""Quantities from other packages: what they do; that they are listed, trained, resumed, exported; what is refused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import simreal
from command import Run, refused, simreal_command
from conftest import TinyTask, build, fixed_worlds
from plugin_files import WHEEL, announce, installed_from, unpacked
from randomization.catalogue import table
from randomization.catalogue.checks import check_quantity
from randomization.catalogue.quantity import QUANTITIES, Quantity, RandomizationError
from shortcuts import without_bundles
from simreal.cli.describe import quantity_tables
from simreal.training.run_config import load_config
from tiny import differences

SWING = f"""
from conftest import TinyTask

class Swing(TinyTask):
    def __init__(self):
        super().__init__('''{WHEEL}''', decimation=5, max_episode_steps=25, spread=0.1)
"""
CONFIG = """
task: swing:Swing
num_envs: 8
threads: 1
learner: {algorithm: cem, population: 16}
randomization:
  sampler: adr
  performance: return
  adr: {boundary_probability: 0.8, buffer_size: 2, thresholds: [-1.0e+9, -1.0e+8]}
  parameters:
    gyro_random_walk: {range: [0, 0.5]}
    warm: {quantity: motor_heat, of: motor, range: [0, 0.9]}
    motor_heat_time: {range: [0.5, 60]}
    observation_noise: {of: velocity, range: [0, 0.1]}
train: {env_steps: 1600, log_interval: 800}
evaluate: {episodes: 4, worlds: [trained]}
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Iterator[Path]:
    """The example is installed."""
    with installed_from(unpacked(tmp_path / "site")) as site:
        yield site


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in a folder that holds c.yaml and the task that it names."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "swing.py").write_text(SWING)
    (folder / "c.yaml").write_text(CONFIG)
    return partial(simreal_command, capsys)


def test_they_are_trained_under_adr_resumed_bit_for_bit_and_stated_by_the_bundle(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bundles(monkeypatch, but="whole")
    assert "simreal_gyro_walk" not in sys.modules  # and is imported once a configuration names it
    status, _, err = run("train", "c.yaml", "--run-dir", "whole")
    assert status == 0, err
    assert run("train", "c.yaml", "train.env_steps=808", "--run-dir", "parts")[0] == 0
    assert run("train", "c.yaml", "--run-dir", "parts", "--resume")[0] == 0
    assert [d for d in differences(Path("whole"), Path("parts")) if not d.startswith("/config")] == []
    contract = json.loads(Path("whole/bundle/policy.json").read_text())["randomization"]["parameters"]
    stated = {p["name"]: (p["quantity"], p["unit"], p["targets"]) for p in contract}
    assert stated["gyro_random_walk"] == ("gyro_random_walk", "rad/s/sqrt(s)", ["velocity"])
    assert stated["warm"] == ("motor_heat", "1", ["motor"])
    assert all(p["upper"] > p["lower"] for p in contract)  # ADR has widened every one
    text = Path("whole/config.yaml").read_text()
    assert "# quantity 'gyro_random_walk' is of Python package 'simreal_gyro_walk'\n" in text
    for policy in ("whole", "whole/bundle"):
        status, _, err = run("evaluate", policy, "--world", "trained", "--episodes", "2", "--task", "swing:Swing")
        assert status == 0, err


@pytest.mark.usefixtures("run")
def test_they_are_drawn_from_fixed_ranges() -> None:
    block = yaml.safe_load(CONFIG)["randomization"]["parameters"]
    envs = simreal.make_vec("swing:Swing", num_envs=4, randomization={"parameters": block}, engine="cpu")
    envs.reset(seed=0)
    lam, limits = envs.layer.lam, torch.tensor([entry["range"] for entry in block.values()])
    assert bool(((lam > limits[:, 0]) & (lam < limits[:, 1])).all())
    assert len(lam.unique()) == 16


def test_a_run_whose_package_is_missing_says_which(run: Run, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("c.yaml", ["learner={algorithm: ddpg}"])
    Path("run").mkdir()
    Path("run/config.yaml").write_text(config.to_yaml())
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(installed)])
    for name in ("gyro_random_walk", "motor_heat", "motor_heat_time"):  # as in a process of its own
        del QUANTITIES[name], table._HOMES[name]
    refused(run("evaluate", "run"), "run/config.yaml", "quantity 'gyro_random_walk'", "'simreal_gyro_walk'", "not inst")


def test_they_are_listed_with_all_others(run: Run) -> None:
    status, out, _ = run("describe", "swing:Swing")
    assert status == 0
    assert "gyro_random_walk" in out
    assert "motor_heat" in out
    block = yaml.safe_load(run("describe", "swing:Swing", "--yaml")[1])["randomization"]["parameters"]
    assert "gyro_random_walk" not in block  # a comment, as everything that refines
    assert "# gyro_random_walk: {of:" in run("describe", "swing:Swing", "--yaml")[1]
    assert "# quantity motor_heat, of simreal_motor_heat\n" in run("envs")[1]
    assert "| `motor_heat` | absolute | 1 | actuator |" in quantity_tables()


class Chirp(simreal.Effect):
    """Adds 1 to actions."""

    def on_action(self, action: Tensor) -> Tensor:
        return action + 1.0


class Deaf(simreal.Effect):
    """Has a hook that nobody calls."""

    def on_measurment(self, measured: Tensor) -> None:
        measured += 1.0


class Late(simreal.Effect):
    """Comes after the delay, which has said what arrives in each physics step."""

    order = 95

    def on_command(self, command: Tensor) -> Tensor:
        return command


def quantity(**more: Any) -> Quantity:
    """A quantity that can be used, but for `more`."""
    plain = {"name": "chirp", "channel": "action", "target": "action", "default_range": (0.0, 0.1)}
    return Quantity(**plain | {"description": "a chirp", "effect": Chirp} | more)


def field(*names: str, **more: Any) -> Quantity:
    """A quantity of the model that can be used, but for `more`."""
    plain = {"name": "mine", "channel": "physics", "target": "joint", "mode": "scale", "default_range": (0.5, 2.0)}
    return Quantity(**plain | {"description": "mine", "writes": names} | more)


INF = math.inf


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (quantity(name="body_mass"), "'body_mass' is taken by simreal; register that of test_plugin_quantities"),
        (quantity(name="motor_heat"), "'motor_heat' is taken by module 'simreal_motor_heat' of an installed package"),
        (quantity(name="two words"), "expected a name of letters"),
        (
            quantity(target="actuators"),
            "target 'actuators' does not exist (did you mean 'actuator'?); there are: body,",
        ),
        (quantity(channel="acton"), "channel 'acton' does not exist (did you mean 'action'?)"),
        (quantity(mode="factor"), "mode 'factor' does not exist"),
        (quantity(effect=Deaf), "Deaf has no hook (did you mean 'on_measurement'?); expected one of: on_action,"),
        (quantity(effect=Late), "effect: Late comes after action_delay (90), expected a lower `order`"),
        (quantity(channel="visual"), "channel 'visual' is for what only pictures show"),
        (quantity(effect=TinyTask), "effect: expected a subclass of simreal.Effect, got"),
        (quantity(effect=None), "expected either `writes`, the fields of the model, or `effect`"),
        (quantity(writes=("body_mass",)), "expected either `writes`"),
        (
            quantity(mode="scale", default_range=(0.5, 2)),
            "mode: an effect is given its own values, expected 'absolute'",
        ),
        (quantity(default_range=(0.2, 0.1)), "default_range: expected (lower, upper), got (0.2, 0.1)"),
        (quantity(default_range=(-0.2, 0.1)), "default_range [-0.2, 0.1] is not within its limits [0, inf]"),
        (quantity(default_range=(0.0, INF)), "default_range [0, inf] is not within"),
        (quantity(limits=(1.0, 2.0), default_range=(1.0, 2.0)), "nominal 0 is not within its limits [1, 2]"),
        (quantity(suits=lambda task, index: True), "suits: say in `expected`"),
        (quantity(description=""), "description: expected one line"),
        (field("dof_dampng"), "no field 'dof_dampng' of numbers that can differ (did you mean 'dof_damping'?)"),
        (field("body_parentid", target="body"), "no field 'body_parentid' of numbers"),
        (field("body_mass"), "body_mass has no row for each joint; of that kind are jnt_"),
        (field("opt.density"), "opt.density has no row for each joint"),
        (field("actuator_gear", target="actuator"), "actuator_gear has no row for each actuator"),
        (field("dof_damping", mode="absolute"), "mode: what writes fields is 'scale', 'add' or 'spread'"),
        (field("dof_damping", nominal=0.5), "nominal: mode 'scale' does nothing at 1, expected that, got 0.5"),
        (field("dof_damping", limits=(-1.0, 3.0)), "limits: a factor is not below 0, got -1"),
        (field("dof_damping", channel="action"), "channel 'physics' and `writes` go together"),
        (field("opt.timestep", target="none", mode="add"), "mode: a timestep is changed by factors"),
        ("chirp", "expected a simreal.Quantity, got 'chirp'"),
    ],
)
def test_what_cannot_be_registered_is_one_line(wrong: Any, said: str) -> None:
    before = dict(QUANTITIES)
    with pytest.raises(RandomizationError) as caught:
        simreal.register_quantity(wrong)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == QUANTITIES


def test_the_very_same_quantity_may_be_registered_twice_and_simreals_own_could_be() -> None:
    mine = quantity()
    for _ in range(2):
        simreal.register_quantity(mine)
    with pytest.raises(RandomizationError, match="'chirp' is taken by test_plugin_quantities"):
        simreal.register_quantity(quantity(unit="m"))
    for known in table.every_quantity():
        check_quantity(known)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("", "does not register it"),
        ("import simreal\nsimreal.register_quantity(3)", "expected a simreal.Quantity"),
    ],
)
def test_a_broken_package_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    announce(tmp_path / "broken", "broken_gyro", {"quantities": "broken"}, code)
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    refused(run("train", "c.yaml", "randomization.parameters.broken={}"), said)
    assert not Path("runs").exists()


def test_two_packages_with_one_name_are_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announce(tmp_path / "other", "other_gyro", {"quantities": "gyro_random_walk"}, "raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    refused(run("train", "c.yaml"), "'gyro_random_walk'", "simreal_gyro_walk", "other_gyro")
    refused(
        run("train", "c.yaml", "randomization.parameters={gyro_random_wlk: {}}"), "did you mean 'gyro_random_walk'?"
    )


def test_a_quantity_of_the_model_needs_no_code() -> None:
    simreal.register_quantity(field("dof_damping", "dof_dampingpoly"))
    task = TinyTask(WHEEL)
    env = build(task, 2, fixed_worlds(task, {"mine": {}}, [[2.0], [1.0]]))
    damping = env.engine.field("dof_damping")
    assert damping.tolist() == [[0.8, 0.4, 0.4, 0.4], [0.4, 0.2, 0.2, 0.2]]  # the ball joint has three
    env.engine.data("qvel")[:, 0] = 1.0
    env.engine.step(1)  # Euler, implicit in damping: v' = v / (1 + h d / I) with I = 0.4 m r^2 = 0.08
    expected = [1.0 / (1.0 + 0.004 * d / 0.08) for d in (0.8, 0.4)]
    np.testing.assert_allclose(env.engine.data("qvel")[:, 0], expected, rtol=1e-12)
    simreal.register_quantity(
        field("opt.magnetic", target="axis", mode="add", name="magnetic", unit="T", default_range=(0, 1))
    )
    assert table.find_quantity("magnetic").edits(task.model, 2)[0].elements == (2,)


class Before(simreal.Effect):
    """Turns commands round before they are delayed."""

    order = 40

    def on_command(self, command: Tensor) -> Tensor:
        return -command


def test_effects_of_one_stage_act_in_their_declared_order() -> None:
    simreal.register_quantity(quantity(name="aaa", effect=Before, target="none"))
    simreal.register_quantity(quantity())
    entries = {"aaa": {}, "chirp": {}, "action_latency": {"range": [0, 1]}, "action_delay": {"range": [0, 20]}}
    task = TinyTask(WHEEL, decimation=5)
    env = build(task, 1, fixed_worlds(task, entries, [[0.0, 0.0, 1.0, 20.0]]))
    layer: Any = env.layer
    order = {stage: [type(effect).__name__ for effect in found] for stage, found in layer._effects._on.items()}
    assert order["action"] == ["ActionLatency", "Chirp"]
    assert order["command"] == ["Before", "CommandDelay"]
    shown = []
    for action in (0.1, 0.2, 0.3):
        env.step(torch.full((1, 2), action, dtype=torch.float64))
        shown.append(float(env.engine.data("ctrl")[0, 0]))
    # Late by a step (an action of zero until then), plus 1, turned round, and late by another step
    np.testing.assert_allclose(shown, [0.0, -1.0, -1.1], atol=1e-12)
