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
from conftest import FixedWorlds, TinyTask, build, fixed_worlds
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from noop import silent
from noop_models import INLINE
from plugin_files import announce, unpacked
from randomization.catalogue import table
from randomization.catalogue.checks import check_quantity
from randomization.catalogue.quantity import QUANTITIES, Quantity, RandomizationError
from randomization.parameters import build_parameters
from shortcuts import without_bundles
from simreal.cli.describe import quantity_tables
from simreal.training.run_config import load_config
from tiny import differences

# A flywheel: a motor of 5 N m per unit of control that saturates at 2 N m, behind a gear of 3; beside it a ball.
WHEEL = """
<mujoco>
  <option timestep="0.004" gravity="0 0 0"/>
  <worldbody>
    <body name="wheel"><joint name="axle" axis="0 0 1" damping="0.4"/><geom size="0.1" mass="20"/></body>
    <body name="ball" pos="1 0 0"><joint name="socket" type="ball" damping="0.2"/><geom size="0.1" mass="1"/></body>
  </worldbody>
  <actuator>
    <general name="motor" joint="axle" gainprm="5" gear="3" forcelimited="true" forcerange="-2 2"/>
    <motor name="free" joint="socket" gear="0 0 1 0 0 0"/>
  </actuator>
</mujoco>
"""
DT = 0.02
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
def nothing_else() -> Iterator[None]:
    """As if no other package had registered quantities, before and after."""
    known, homes = dict(QUANTITIES), dict(table._HOMES)
    yield
    QUANTITIES.clear()
    QUANTITIES.update(known)
    table._HOMES.clear()
    table._HOMES.update(homes)
    for name in ("simreal_gyro_walk", "simreal_motor_heat", "other_gyro", "broken_gyro", "swing"):
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example is installed."""
    site = unpacked(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    return site


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


def worlds(entries: dict[str, Any], chosen: list[list[float]], steps: int = 1000) -> Environment:
    task = TinyTask(WHEEL, decimation=5, max_episode_steps=steps)
    return build(task, len(chosen), fixed_worlds(task, entries, chosen))


def push(env: Environment, amount: float) -> Tensor:
    """One control step with the wheel's motor at some share of its control; what the environments show."""
    action = torch.zeros(env.num_envs, 2, dtype=torch.float64, device=env.device)
    action[:, 0] = amount
    return env.step(action).observed.policy


def bias(env: Environment, shown: Tensor) -> Tensor:
    """What the shown velocities [N, 4] have beyond the true ones; the ball's quaternion is among the positions."""
    return shown[:, 5:9] - env.engine.data("qvel")


def test_the_variance_of_a_gyros_bias_grows_with_the_square_of_its_coefficient_and_with_time() -> None:
    n, entries = 4000, {"gyro_random_walk": {"of": "velocity", "range": [0, 1]}}
    env = worlds(entries, [[0.3]] * n + [[0.0]] * 3)
    assert not bias(env, env.observed.policy).any()  # it starts at 0
    seen = [bias(env, push(env, 0.0)) for _ in range(25)]
    for steps in (1, 5, 25):
        walked = seen[steps - 1][:n]
        variance = 0.3**2 * steps * DT
        assert bool(((walked.var(0) / variance - 1.0).abs() < 4.5 * math.sqrt(2.0 / n)).all())
        assert bool((walked.mean(0).abs() < 4.5 * math.sqrt(variance / n)).all())
        assert float((torch.corrcoef(walked.T) - torch.eye(4)).abs().max()) < 4.5 / math.sqrt(n)  # each value its own
        assert not seen[steps - 1][n:].any()
    # A walk: what is added later is independent of where it is, so that cov(b(5), b(25)) = var(b(5))
    early, late = seen[4][:n, 0], seen[24][:n, 0]
    assert float((early * late).mean()) == pytest.approx(0.09 * 5 * DT, abs=4.5 * 0.09 * DT * math.sqrt(150 / n))
    assert not bias(env, env.reset().policy).any()


def test_a_bias_does_not_walk_while_other_episodes_begin() -> None:
    env = worlds({"gyro_random_walk": {"range": [0, 1]}}, [[0.3]] * 3)
    env.steps[:] = torch.tensor([0, 998, 0])
    before = [bias(env, push(env, 0.0)).clone() for _ in range(4)]
    assert not before[1][1].any()  # the second environment has begun again
    alone = worlds({"gyro_random_walk": {"range": [0, 1]}}, [[0.3]] * 3)
    for step in range(4):
        torch.testing.assert_close(bias(alone, push(alone, 0.0))[[0, 2]], before[step][[0, 2]], rtol=0, atol=1e-12)


HEAT = {"motor_heat": {"of": "motor", "range": [0, 1]}, "motor_heat_time": {"range": [0.1, 100]}}


def test_heat_follows_the_solution_of_its_equation_while_torque_holds_and_while_it_cools() -> None:
    env = worlds(HEAT, [[0.5, 2.0], [0.5, 0.3]])
    limits, time = env.engine.field("actuator_forcerange"), np.array([2.0, 0.3])
    for steps in range(1, 51):
        push(env, 0.2)  # 1 N m, half of the peak: h = 0.25 (1 - exp(-t / T)) of what has passed before this step
        heat = 0.25 * (1.0 - np.exp(-(steps - 1) * DT / time))
        np.testing.assert_allclose(limits[:, 0, 1], 2.0 * (1.0 - 0.5 * heat), rtol=1e-12)
        np.testing.assert_allclose(limits[:, 0, 0], -limits[:, 0, 1], rtol=0)
        assert env.engine.data("qfrc_actuator")[0, 0] == 3.0  # 1 N m times the gear: within the limit
    push(env, 0.0)
    hot = 0.25 * (1.0 - np.exp(-50 * DT / time))
    for steps in range(1, 51):
        push(env, 0.0)
        np.testing.assert_allclose(limits[:, 0, 1], 2.0 - hot * np.exp(-steps * DT / time), rtol=1e-12)


def test_a_warm_motor_gives_no_more_than_its_heat_leaves() -> None:
    # At full control 2 N m are the limit, 6 N m at the joint. In the end h = (1 - h / 2)^2, so h = 4 - 2 sqrt(3) and
    # what is left is 6 (1 - h / 2) = 6 (sqrt(3) - 1) = 4.392 N m.
    env = worlds(HEAT, [[0.5, 0.4], [0.0, 0.4]], steps=500)
    torque = env.engine.data("qfrc_actuator")[:, 0]
    felt = []
    for _ in range(400):
        push(env, 1.0)
        felt.append(torque.clone())
    assert felt[0].tolist() == [6.0, 6.0]
    assert float(felt[-1][0]) == pytest.approx(6.0 * (math.sqrt(3.0) - 1.0), abs=1e-9)
    assert float(felt[-1][1]) == 6.0
    # By the trapezoid rule with a tenth of the step; the effect holds a step's torque, so that it lags by half a step
    heat = 0.0
    for _ in range(200):
        slope = lambda h: ((1.0 - 0.5 * h) ** 2 - h) / 0.4  # noqa: E731
        first = slope(heat)
        heat += 0.5 * (DT / 10) * (first + slope(heat + DT / 10 * first))
    assert float(felt[20][0]) == pytest.approx(6.0 * (1.0 - 0.5 * heat), rel=0.01)
    for _ in range(101):
        push(env, 0.0)
    assert env.engine.field("actuator_forcerange")[:, 0].tolist() == [[-2.0, 2.0]] * 2  # whole again


def test_heat_acts_together_with_what_else_changes_a_motors_limit_and_leaves_no_trace() -> None:
    entries = HEAT | {"actuator_force_range": {"of": "motor", "range": [0.5, 1]}, "actuator_fade": {"of": "motor"}}
    env = worlds(entries, [[0.5, 0.4, 0.8, 0.3], [0.0, 0.4, 0.8, 0.3]], steps=40)
    limit = env.engine.field("actuator_forcerange")[:, 0, 1]
    layer: Any = env.layer
    for step in range(39):
        push(env, 1.0)
        whole = 2.0 * 0.8 * (1.0 - 0.3 * step / 40)
        left = 1.0 - 0.5 * layer._effects.effects["motor_heat"].heat[0, 0]
        torch.testing.assert_close(limit, torch.tensor([whole * float(left), whole]).double())
        assert left < 1.0 or step == 0
    env.reset()
    assert limit.tolist() == [1.6, 1.6]


def test_neither_is_accepted_without_a_word_where_it_does_nothing() -> None:
    for name, model in (("gyro_random_walk", INLINE["planar"]), ("gyro_random_walk", WHEEL), ("motor_heat", WHEEL)):
        task = TinyTask(model, decimation=5, max_episode_steps=100)
        assert silent(task, table.find_quantity(name)) == []
    with pytest.raises(RandomizationError, match="is no angular velocity"):
        build_parameters(TinyTask(WHEEL), {"gyro_random_walk": {"of": "position"}})
    with pytest.raises(RandomizationError, match="free is no actuator with a force range of its own"):
        build_parameters(TinyTask(WHEEL), {"motor_heat": {"of": "free"}})
    with pytest.raises(RandomizationError, match="motor_heat_time: does nothing without motor_heat: add that"):
        build_parameters(TinyTask(WHEEL), {"motor_heat_time": {}})


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


@pytest.mark.gpu
def test_on_the_gpu_engine_they_do_the_same() -> None:
    pytest.importorskip("mujoco_warp")
    from envs.engines.gpu.engine import GpuEngine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shown: list[Tensor] = []
    for kind in (lambda model: CpuEngine(model, 3, 1), lambda model: GpuEngine(model, 3, device)):
        task = TinyTask(WHEEL, decimation=5, max_episode_steps=8)
        chosen = [[0.5, 0.3, 0.01], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0]]
        layer = fixed_worlds(task, HEAT | {"gyro_random_walk": {}}, chosen)
        layer.prepare(task)
        env = Environment(task, kind(task.model), layer)
        assert isinstance(layer.sampler, FixedWorlds)
        layer.sampler.worlds = layer.sampler.worlds.to(env.device)
        env.reset()
        rows = [torch.cat((push(env, 1.0), env.engine.field("actuator_forcerange")[:, 0]), 1) for _ in range(12)]
        shown.append(torch.stack(rows).double().cpu())
    torch.testing.assert_close(shown[1], shown[0], rtol=1e-4, atol=1e-5)
    assert float(shown[0][6, 1, -1]) < 1.5  # warm


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
