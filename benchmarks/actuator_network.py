"""An actuator network against a fitted DC motor and an ideal PD, on a hidden motor that neither of them describes.

    python benchmarks/actuator_network.py FOLDER logs       # of the hidden robot: 8 logs, in seconds
    simreal actuator FOLDER/log*.npz --output FOLDER/actuator
    simreal actuator FOLDER/log*.npz --network gru --output FOLDER/gru   # a policy on it is trained where it is there
    python benchmarks/actuator_network.py FOLDER train      # a Go1 on it, on ideal servos; resumes (--steps, --seed)
    python benchmarks/actuator_network.py FOLDER judge      # both in the true world

The hidden motor of a Go1's joints, as a plug-in: its command arrives 12 ms late, its current loop has a time constant
of 4 ms, its torque saturates smoothly and falls with speed where it drives, and dry friction with a Stribeck peak
that grows with load takes its part. None of this is what `simreal actuator` fits, nor what simreal's own motors are.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import simreal
from simreal.cli.main import main as simreal_main
from simreal.evaluation.evaluate import evaluate
from simreal.evaluation.worlds import find_world
from simreal.training.build import make_environment
from simreal.training.run_directory import load_policy

TASK = "Go1Velocity-v0"
DELAY_S, LAG_S, PEAK, KNEE, FASTEST = 0.012, 0.004, 22.0, 17.0, 24.0  # s, s, N m, N m, rad/s
COULOMB, STICTION, STRIBECK, LOAD = 0.5, 0.5, 0.3, 0.06  # N m, N m, rad/s, 1
KP_SHARE, KD = 0.9, 0.6  # of the stated stiffness; N m s/rad


class HiddenMotor(simreal.Effect):
    """Exerts the hidden motor's torque by holding both ends of the actuators' force ranges at it."""

    order = 70
    _state = ("commands", "current")

    def __init__(self, context: simreal.EffectContext) -> None:
        self.task, engine = context.task, context.engine
        model, device = self.task.model, engine.device
        self.step_s = float(model.opt.timestep)
        motors = context.index("hidden_motor").places
        joints = model.actuator_trnid[motors, 0]
        self.motors = torch.tensor(motors, device=device)
        self.angles = torch.as_tensor(model.jnt_qposadr[joints]).long().to(device)
        self.dofs = torch.as_tensor(model.jnt_dofadr[joints]).long().to(device)
        self.names = [model.joint(int(j)).name for j in joints]
        self.kp = KP_SHARE * torch.as_tensor(model.actuator_gainprm[motors, 0]).to(device, engine.dtype)
        context.model_values("actuator_forcerange", [2 * a + end for a in motors for end in (0, 1)])
        self.range = engine.field("actuator_forcerange")
        self.ctrl, self.qpos, self.qvel = (engine.data(name) for name in ("ctrl", "qpos", "qvel"))
        slots = int(DELAY_S / self.step_s) + 2
        self.commands = context.zeros(slots, len(motors)).to(engine.dtype)
        self.current = context.zeros(len(motors)).to(engine.dtype)
        self.fresh = torch.ones(engine.num_envs, dtype=torch.bool, device=device)
        self.seen: list[Tensor] | None = None  # command, angle, speed, torque [4, N, m] of every physics step

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        self.fresh = self.fresh | mask
        self.current = self.current.masked_fill(mask[:, None], 0.0)

    def on_physics_step(self) -> None:
        angle, speed, command = self.qpos[:, self.angles], self.qvel[:, self.dofs], self.ctrl[:, self.motors]
        self.commands = torch.cat((command[:, None], self.commands[:, :-1]), dim=1)
        self.commands = torch.where(self.fresh[:, None, None], command[:, None], self.commands)
        self.fresh = torch.zeros_like(self.fresh)
        late, share = divmod(DELAY_S / self.step_s, 1.0)
        arrived = torch.lerp(self.commands[:, int(late)], self.commands[:, int(late) + 1], share)
        wanted = self.kp * (arrived - angle) - KD * speed
        self.current = torch.lerp(wanted, self.current, float(np.exp(-self.step_s / LAG_S)))
        torque = KNEE * torch.tanh(self.current / KNEE)
        driving = (torque * speed > 0) * (speed.abs() / FASTEST).clamp(max=1.0)
        torque = (torque * (1.0 - driving)).clamp(-PEAK, PEAK)
        rub = COULOMB + STICTION * torch.exp(-(speed / STRIBECK).square()) + LOAD * torque.abs()
        torque = torque - rub * torch.tanh(speed / 0.05)
        if self.seen is not None:
            self.seen.append(torch.stack((command, angle, speed, torque)).clone())
        self.range[:, self.motors] = torque[..., None].expand(-1, -1, 2)


simreal.register_quantity(
    simreal.Quantity(
        name="hidden_motor", channel="action", target="actuator", limits=(0.0, 1.0), default_range=(1.0, 1.0),
        nominal=1.0, description="the motor that nobody has described", effect=HiddenMotor,
    )
)  # fmt: skip
TRUE = {"parameters": {"hidden_motor": {"range": [1.0, 1.0]}}}


def write_logs(folder: Path, robots: int = 8, seconds: float = 20.0, seed: int = 0) -> None:
    """Robots that kick about, told sums of sines about their stance; what their encoders and torque sensors show."""
    env = make_environment(TASK, robots, TRUE, engine="cpu", threads=1, seed=seed)
    env.autoreset = False
    env.reset()
    layer = env.layer
    (motor,) = (e for e in layer._effects.effects.values() if isinstance(e, HiddenMotor))  # pyright: ignore
    motor.seen = []
    rng = np.random.default_rng(seed)
    size = (robots, env.task.action_size, 3)
    frequency, phase = np.exp(rng.uniform(np.log(0.3), np.log(6.0), size)), rng.uniform(0.0, 2 * np.pi, size)
    amplitude = rng.uniform(0.1, 1.0, size) * np.linspace(0.2, 1.0, robots)[:, None, None]
    for step in range(round(seconds / env.task.control_period_s)):
        angle = 2 * np.pi * frequency * step * env.task.control_period_s + phase
        env.step(torch.as_tensor((amplitude * np.sin(angle)).sum(axis=2)))
    shown = torch.stack(motor.seen).numpy()  # [T, 4, N, m]
    shown = shown + rng.normal(size=shown.shape) * np.array([0.0, 5e-4, 0.02, 0.05])[None, :, None, None]
    time, names = np.arange(len(shown)) * motor.step_s, np.array(motor.names)
    kinds = ("command", "joint_states:position", "joint_states:velocity", "joint_states:effort")
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(robots):
        arrays = {}
        for k, kind in enumerate(kinds):
            arrays |= {f"{kind}/time": time, f"{kind}/values": shown[:, k, i], f"{kind}/names": names}
        np.savez(folder / f"log{i}.npz", **arrays)
    print(f"{folder}: {robots} logs of {seconds:g} s, every {1e3 * motor.step_s:g} ms")


def train(folder: Path, steps: int, seed: int) -> None:
    """One policy on each network, one on ideal servos, one on ideal servos in wide worlds; each resumes where it
    was."""
    plain = ["randomization.sampler=none", "randomization.parameters={}"]
    on = lambda network: ["go1_velocity", *plain, f"task_options.actuator={folder / network}"]  # noqa: E731
    arms = {"network": on("actuator"), "ideal": ["go1_velocity", *plain], "wide": ["go1_velocity_wide"]}
    if (folder / "gru").exists():
        arms["gru"] = on("gru")
    for name, extra in arms.items():
        run = folder / f"{name}_{seed}"
        told = ["train", *extra, f"seed={seed}", f"train.env_steps={steps}", "evaluate.episodes=10"]
        simreal_main([*told, "--run-dir", str(run), *(["--resume"] if (run / "config.yaml").exists() else [])])


def judge(folder: Path, episodes: int) -> None:
    """The trained policies in the true world and in their own."""
    world = folder / "true.yaml"
    world.write_text("name: hidden_motor\nrandomization:\n  parameters: {hidden_motor: {range: [1, 1]}}\n")
    table = {}
    for run in sorted(p.parent for p in folder.glob("*/config.yaml")):
        policy = load_policy(run)
        true = replace(policy, task_options={k: v for k, v in policy.task_options.items() if k != "actuator"})
        results = [
            evaluate(p, [find_world(str(w), p)], episodes, None, seed=1_000_003)
            for p, w in ((policy, "nominal"), (true, world))
        ]
        table[run.name] = results
        print(run.name, *results, sep="\n  ")
    (folder / "judged.json").write_text(json.dumps(table, default=str, indent=1))


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("part", choices=("logs", "train", "judge"))
    parser.add_argument("--steps", type=int, default=4_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=200)
    told = parser.parse_args()
    if told.part == "logs":
        write_logs(told.folder)
    elif told.part == "train":
        train(told.folder, told.steps, told.seed)
    else:
        judge(told.folder, told.episodes)


if __name__ == "__main__":
    main()
