"""`simreal actuator --network gru`: an actuator with a memory, against torch's own GRU, in training and in the physics
step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from test_actuator import arm, hidden_motor, played, write_log

from command import refused, simreal_command
from envs.parts.actuator_network import FILE, ActuatorNetwork, gru, load_actuator
from simreal.identify.actuator.command import actuator_command
from simreal.identify.actuator.training import Shape


def recurrent(hidden: int = 3, period_s: float = 0.002, joints: tuple[str, ...] = ("hinge",)) -> ActuatorNetwork:
    """A network with weights at random."""
    generator, groups = torch.Generator().manual_seed(0), len(joints)
    sizes = ((2, 3 * hidden), (hidden, 3 * hidden), (hidden, 1))
    weights = tuple(torch.randn(groups, *size, generator=generator) for size in sizes)
    biases = tuple(torch.randn(groups, 1, size[1], generator=generator) for size in sizes)
    ones = torch.ones(groups, 1, 1)
    shift, scale = torch.tensor([[[0.1, -0.2]]]).repeat(groups, 1, 1), torch.tensor([[[0.5, 2.0]]]).repeat(groups, 1, 1)
    return ActuatorNetwork(joints, period_s, (0,), weights, biases, shift, scale, 2 * ones, 3 * ones, kind="gru")


def test_a_step_of_the_memory_is_that_of_torch() -> None:
    network = recurrent(hidden=5)
    reference = torch.nn.GRU(2, 5, batch_first=True)
    with torch.no_grad():
        numbers = {"weight_ih_l0": network.weights[0][0].T, "weight_hh_l0": network.weights[1][0].T,
                   "bias_ih_l0": network.biases[0][0, 0], "bias_hh_l0": network.biases[1][0, 0]}  # fmt: skip
        reference.load_state_dict(numbers)
        x = torch.randn(4, 7, 2, generator=torch.Generator().manual_seed(1))
        expected, _ = reference(x)
        memory = torch.zeros(1, 4, 5)
        for t in range(7):
            memory = gru(x[None, :, t], memory, network.weights, network.biases)
            torch.testing.assert_close(memory[0], expected[:, t], rtol=1e-5, atol=1e-6)


def test_a_memory_describes_what_a_dc_motor_does_not(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.npz", hidden_motor)
    shape = Shape(period_s=0.004, samples=1, hidden=24, steps=250, kind="gru")
    actuator_command([log], tmp_path / "found", {}, ["*"], [], shape, Console(quiet=True))
    errors = json.loads((tmp_path / "found" / "actuator.json").read_text())["errors"]
    assert errors["network_rms_nm"] < 0.85 * errors["dc_motor_rms_nm"]  # after a sixteenth of the usual steps
    network = load_actuator(tmp_path / "found" / FILE)
    assert (network.kind, network.history, network.period_s) == ("gru", (0,), pytest.approx(0.004))
    # What it says of the log by itself is what training said: the last fifth, run from its first sample on.
    arrays = np.load(log)
    values = {
        k: arrays[f"{k}/values"][-1000:, 0] for k in ("command", "joint_states:position", "joint_states:velocity")
    }
    error = values["command"] - values["joint_states:position"]
    samples = torch.from_numpy(np.column_stack((error, values["joint_states:velocity"]))).float()[::2, None, None]
    memory, shown = network.settled(samples[0]), []
    for sample in samples:
        torque, memory = network.after(sample, memory)
        shown.append(float(torque))
    off = np.array(shown)[20:] - arrays["joint_states:effort/values"][-1000::2, 0][20:]
    assert np.sqrt((off**2).mean()) < 1.5 * errors["network_rms_nm"]


def test_in_the_physics_step_it_sees_one_sample_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """A period of two physics steps: two memories that take turns, each with a sample every other step."""
    network = recurrent(period_s=0.004)
    env = arm(network)
    engine, samples, torques = env.engine, [], []
    force, step = engine.data("actuator_force"), engine.step

    def seen(nstep: int, commands: torch.Tensor | None = None) -> None:
        error = engine.data("ctrl")[0, 0] - engine.data("qpos")[0, 0]
        samples.append(torch.stack((error, engine.data("qvel")[0, 0])).float().view(1, 1, 2))
        step(nstep, commands)
        torques.append(float(force[0, 0]))

    monkeypatch.setattr(engine, "step", seen)
    played(env, 3)
    memories = [network.settled(samples[0])] * 2
    for k, sample in enumerate(samples):
        torque, memories[k % 2] = network.after(sample, memories[k % 2])
        assert torques[k] == pytest.approx(float(torque), rel=1e-5)


def test_a_resumed_environment_has_the_same_bits() -> None:
    env = arm(recurrent())
    played(env, 7)
    state, left = env.state_dict(), played(env, 7)
    again = arm(recurrent())
    again.load_state_dict(state)
    assert torch.equal(left, played(again, 7))


def test_logs_too_short_for_a_memory_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path / "log.npz", hidden_motor, seconds=4.2)
    told = simreal_command(capsys, "actuator", log, "--network", "gru", "--period", "100", "--output", tmp_path / "out")
    refused(told, "too short for a memory")
