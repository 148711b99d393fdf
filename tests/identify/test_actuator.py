"""`simreal actuator`: a network learned from logs describes what a motor does that no PD and no DC motor does, and runs
inside of the physics step."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from command import refused, simreal_command
from conftest import TinyTask, build, fixed_worlds
from envs.common.errors import TaskError
from envs.environment import Environment
from envs.parts.actuator_network import FILE, ActuatorNetwork, load_actuator
from envs.registry import make_task
from randomization.parameters import RandomizationError, build_parameters
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Manual
from simreal.identify.actuator.command import actuator_command
from simreal.identify.actuator.training import Shape

STEP_S = 0.002


def hidden_motor(error: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Torque [T] of a motor that acts 8 ms late, saturates smoothly and has dry friction."""
    late = np.concatenate((np.full(4, error[0]), error[:-4]))
    return 8.0 * np.tanh(30.0 * late / 8.0) - 0.5 * speed - 0.8 * np.tanh(speed / 0.1)


def ideal(error: np.ndarray, speed: np.ndarray) -> np.ndarray:
    return 20.0 * error - 1.0 * speed


def write_log(
    path: Path,
    motor: Callable[[np.ndarray, np.ndarray], np.ndarray],
    seconds: float = 16.0,
    names: tuple[str, ...] = ("hinge", "knee"),
    **changed: Any,
) -> Path:
    """Sums of sines on every joint, commands held for 20 ms."""
    rng, time = np.random.default_rng(0), np.arange(0.0, seconds, STEP_S)
    shown: dict[str, list[np.ndarray]] = {"command": [], "position": [], "velocity": [], "effort": []}
    for _ in names:
        w, phase = rng.uniform(1.0, 25.0, (6, 1)), rng.uniform(0.0, 6.0, (6, 1))
        position, velocity = 0.15 * np.sin(w * time + phase).sum(0), 0.15 * (w * np.cos(w * time + phase)).sum(0)
        command = np.repeat((position + 0.3 * np.sin(rng.uniform(1, 9) * time))[::10], 10)[: len(time)]
        for kind, values in zip(shown, (command, position, velocity, motor(command - position, velocity)), strict=True):
            shown[kind].append(values)
    arrays: dict[str, np.ndarray] = {}
    for kind, values in shown.items():
        signal = kind if kind == "command" else f"joint_states:{kind}"
        arrays |= {f"{signal}/time": time, f"{signal}/values": np.array(values).T, f"{signal}/names": np.array(names)}
    arrays = {k: v for k, v in (arrays | changed).items() if v is not None}
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    return path


def trained(folder: Path, log: Path, shape: Shape, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"signals": {}, "joints": ["*"], "stands_for": []} | options
    actuator_command([log], folder, shape=shape, out=Console(quiet=True), **settings)
    return json.loads((folder / "actuator.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("actuator")
    log = write_log(folder / "log.npz", hidden_motor)
    trained(folder / "found", log, Shape(period_s=0.005, samples=3, hidden=16, steps=1000))
    return folder / "found"


def test_a_network_describes_what_a_dc_motor_and_a_pd_do_not(found: Path) -> None:
    errors = json.loads((found / "actuator.json").read_text())["errors"]
    assert errors["network_rms_nm"] < 0.5 * errors["dc_motor_rms_nm"] < 0.5 * errors["ideal_pd_rms_nm"]
    assert errors["held_back_s"] == pytest.approx(3.2, rel=0.01)


def test_an_ideal_pd_is_found_as_one_and_the_file_says_what_was_trained(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.npz", ideal)
    told = trained(tmp_path / "found", log, Shape(samples=1, steps=1, each=True))
    assert told["fitted"]["ideal_pd"]["knee"] == pytest.approx({"kp": 20.0, "kd": 1.0}, rel=1e-6)
    assert told["errors"]["ideal_pd_rms_nm"] < 1e-9
    network = load_actuator(tmp_path / "found")
    assert (network.joints, network.history) == (("hinge", "knee"), (0,))
    assert network.period_s == pytest.approx(0.004)  # of the 5 ms that were asked for, of samples every 2 ms
    assert not network.shared


def test_the_network_is_the_formula_of_its_numbers(found: Path) -> None:
    network = load_actuator(found / FILE)
    x = np.random.default_rng(0).normal(size=(1, 7, 6)).astype(np.float32)
    soft = lambda v: v / (1.0 + np.abs(v))  # noqa: E731
    w, b = ([np.asarray(v) for v in values] for values in (network.weights, network.biases))
    z = (x - network.mean.numpy()) / network.scale.numpy()
    out = (soft(soft(z @ w[0] + b[0]) @ w[1] + b[1]) @ w[2] + b[2]) * network.torque_scale.numpy()
    np.testing.assert_allclose(
        network.torque(torch.from_numpy(x)),
        out[..., 0].clip(-float(network.limit), float(network.limit)),
        rtol=1e-4,
        atol=1e-5,
    )


def linear(weights: list[float], period_s: float = 0.004, joints: tuple[str, ...] = ("hinge",)) -> ActuatorNetwork:
    """torque = weights * (errors, velocities)."""
    one, half = torch.ones(1, 1, 1), len(weights) // 2
    return ActuatorNetwork(
        joints, period_s, tuple(range(half)), (torch.tensor(weights).float().view(1, -1, 1),), (0 * one,),
        torch.zeros(1, 1, 2 * half), torch.ones(1, 1, 2 * half), one, 100 * one,
    )  # fmt: skip


def arm(network: ActuatorNetwork | None, worlds: list[list[float]] | None = None, **entries: Any) -> Environment:
    task = TinyTask(decimation=5, max_episode_steps=1000)  # a servo of kp 20, kv 1; 2 ms
    task.actuator = network
    if worlds is None:
        return build(task, 1, DomainRandomizer(Manual([])))
    return build(task, len(worlds), fixed_worlds(task, entries, worlds))


def played(env: Environment, steps: int = 20) -> torch.Tensor:
    shown = []
    for k in range(steps):
        env.step(torch.full((env.num_envs, 1), float(np.sin(k)), dtype=torch.float64))
        shown.append(env.engine.data("qpos")[:, 0].clone())
    return torch.stack(shown)


def test_a_network_that_is_the_servo_moves_as_the_servo_does() -> None:
    torch.testing.assert_close(played(arm(linear([20.0, -1.0]))), played(arm(None)), rtol=0.0, atol=1e-6)


def test_its_history_is_kept_in_physics_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    env = arm(linear([0.0, 20.0, 0.0, 0.0]))  # the error one period, two physics steps, ago
    engine, errors, torques = env.engine, [], []
    force = engine.data("actuator_force")
    step = engine.step

    def seen(nstep: int, commands: torch.Tensor | None = None) -> None:
        errors.append(float(engine.data("ctrl")[0, 0] - engine.data("qpos")[0, 0]))
        step(nstep, commands)
        torques.append(float(force[0, 0]))

    monkeypatch.setattr(engine, "step", seen)
    played(env, 6)
    assert len(errors) == 30
    np.testing.assert_allclose(torques, [20.0 * e for e in [errors[0]] * 2 + errors[:-2]], rtol=1e-6)


def test_what_scales_a_servo_scales_the_network() -> None:
    env = arm(linear([20.0, 0.0]), [[0.5], [1.0]], actuator_strength={"range": [0.5, 1]})
    force = env.engine.data("actuator_force")
    env.task.decimation = 1
    env.step(torch.ones(2, 1, dtype=torch.float64))
    assert force[:, 0].tolist() == pytest.approx([10.0, 20.0], rel=1e-6)
    limp = arm(linear([20.0, 0.0]), [[1.0]], actuator_failure={"range": [0, 1]})
    assert played(limp, 5).abs().max() == 0.0


def test_commands_come_late_by_the_delay_of_the_world() -> None:
    late, prompt = (played(arm(linear([20.0, -1.0]), [[d]], action_delay={"range": [0, 10]})) for d in (10.0, 0.0))
    torch.testing.assert_close(late[1:], prompt[:-1], rtol=0.0, atol=1e-9)  # 10 ms are one control step


def test_a_resumed_environment_has_the_same_bits() -> None:
    env = arm(linear([10.0, 10.0, -1.0, 0.0]))
    played(env, 7)
    state, left = env.state_dict(), played(env, 7)
    again = arm(linear([10.0, 10.0, -1.0, 0.0]))
    again.load_state_dict(state)
    assert torch.equal(left, played(again, 7))


def test_quantities_of_a_drive_that_a_network_replaces_are_refused() -> None:
    task = TinyTask()
    task.actuator = linear([20.0, -1.0])
    with pytest.raises(RandomizationError, match=r"servo is driven by the task's actuator network, in which gear_eff"):
        build_parameters(task, {"gear_efficiency": {"of": "servo"}})


def test_a_configuration_holds_the_network_itself(found: Path) -> None:
    packed = load_actuator(found).packed()
    assert load_actuator(packed).about["logs"] == ["log.npz"]
    with pytest.raises(TaskError, match=r"^actuator: its content is not what its sha256 says"):
        load_actuator(packed | {"content": packed["content"][:-8]})
    with pytest.raises(TaskError, match=r"'hinge', and the model drives none of that name[^\n]*FR_hip"):
        make_task("Go1Velocity-v0", actuator=str(found))
    with pytest.raises(TaskError, match="leaves no controls to the engine"):
        make_task("gymnasium:Reacher-v5", actuator=str(found))
    with pytest.raises(TaskError, match="no such file"):
        make_task("HalfCheetah-v5", actuator=str(found.parent / "founf"))


def test_physics_steps_longer_than_its_period_are_refused() -> None:
    with pytest.raises(TaskError, match=r"its samples are 1 ms apart, expected at least a physics step of the task, 2"):
        arm(replace(linear([20.0, -1.0]), period_s=0.001))


KNEES = {"command/names": np.array(["a", "b"])}


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({f"command/{k}": None for k in ("time", "values", "names")}, (), "no command of joints; expected a signal"),
        ({"command/time": np.arange(8000)[::-1] * STEP_S}, (), "time goes backwards"),
        (KNEES, (), "have no joint in common"),
        ({"command/values": np.zeros((8000, 2))}, (), "command of hinge is constant"),
        ({"command/time": np.arange(8000) * 1e-4}, (), "are there together for 0.8 s, expected at least 4 s"),
        ({}, ("--joints", "nee"), "no joint matches 'nee' (did you mean 'knee'?)"),
        ({}, ("--torque", "joint_states:efort"), "no signal 'joint_states:efort' (did you mean"),
        ({}, ("--period", "1"), "has a sample every 2 ms; expected --period of at least that"),
        ({}, ("--each", "--for", "*"), "--for: is of one network that joints share"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(
    changed: dict[str, Any], options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "log.npz", ideal, **changed)
    refused(simreal_command(capsys, "actuator", log, "--output", tmp_path / "out", *options), said)
    assert not (tmp_path / "out").exists()
