"""The ros2_control controller: its core answers as the bundle does, and its source compiles against ROS 2's interfaces.

There is no ROS here: the headers in ros_stubs declare what the controller uses of it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import nn

from command import refused, simreal_command
from envs.parts.actions import JointPosition
from envs.parts.observations import Command, Imu, JointState, LastAction, LastTarget
from simreal.common.errors import UserError
from simreal.common.layers import Dense, Layer
from simreal.common.layers import array as numbers
from simreal.deploy import Policy
from simreal.export.bundle import export_bundle
from simreal.robot.ros2_control.writer import write_controller
from small_arm import SmallArm

STUBS = Path(__file__).parent / "ros_stubs"
MAIN = """
#include <cstdio>
#include "policy_core.hpp"
int main() {
  simreal::PolicyCore core;
  double p[8], v[8], e[8] = {0}, in[8], t[POLICY_TARGET_SIZE];
  simreal::Imu imu;
  const int n = static_cast<int>(sizeof(simreal::JOINTS) / sizeof(simreal::JOINTS[0]));
  for (;;) {
    for (int i = 0; i < n; ++i) if (std::scanf("%lf", &p[i]) != 1) return 0;
    for (int i = 0; i < n; ++i) if (std::scanf("%lf", &v[i]) != 1) return 2;
    for (int i = 0; i < 4; ++i) if (std::scanf("%lf", &imu.orientation[static_cast<std::size_t>(i)]) != 1) return 3;
    for (int i = 0; i < 3; ++i) if (std::scanf("%lf", &imu.gyro[static_cast<std::size_t>(i)]) != 1) return 4;
    for (int i = 0; i < simreal::INPUTS; ++i) if (std::scanf("%lf", &in[i]) != 1) return 5;
    if (!core.step(p, v, e, imu, in, t)) { std::puts("stop"); continue; }
    for (double target : t) std::printf("%.17g ", target);
    std::puts("");
  }
}
"""
CPP = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]


class OneLayer(nn.Module):
    """A policy that is one dense layer."""

    def __init__(self, nobs: int, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(nobs, size)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.net(observation).clamp(-1.0, 1.0)

    def layers(self) -> list[Layer]:
        from simreal.common.layers import Clip

        return [Dense(numbers(self.net.weight), numbers(self.net.bias)), Clip(-1.0, 1.0)]


def run(*command: Any, folder: Path, text: str = "") -> str:
    """What a command prints; it must succeed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([*map(str, command)], cwd=folder, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Path]:
    """A policy, and its controller's folder."""
    folder = tmp_path_factory.mktemp("controller")
    wanted = Command("wanted", (-1.0, -1.0), (1.0, 1.0), "m/s")
    seen = [JointState(stance=0.2), Imu("imu"), LastAction(), LastTarget(), wanted]
    task = SmallArm(JointPosition(smoothing=0.5, start="offset"), seen)
    policy = OneLayer(sum(part.size for part in task.components("policy")), task.action_size)
    export_bundle(policy, task, folder / "bundle", c=folder / "c")
    write_controller(folder / "bundle", folder / "c", folder / "controller")
    return Policy.load(folder / "bundle"), folder / "controller"


def test_its_core_answers_as_the_bundle_does(made: tuple[Policy, Path]) -> None:
    policy, folder = made
    (folder / "main.cpp").write_text(MAIN)
    run("cc", "-std=c99", "-O1", "-c", "policy.c", "-o", "policy.o", folder=folder)
    run("g++", *CPP, "main.cpp", "policy.o", "-o", "main", "-lm", folder=folder)
    generator, rows, expected = np.random.default_rng(0), [], []
    last_action, last_target = np.zeros(3), np.zeros(3)
    for _ in range(6):
        q, v, gyro, wanted = (generator.normal(size=n) for n in (3, 3, 3, 2))
        quat = generator.normal(size=4)
        quat /= np.linalg.norm(quat)
        back, down = np.zeros(4), np.zeros(3)
        mujoco.mju_negQuat(back, quat)
        mujoco.mju_rotVecQuat(down, np.array([0.0, 0.0, -1.0]), back)
        seen = {"joint_pos": q - 0.2, "joint_vel": v, "gyro": gyro, "projected_gravity": down,
                "last_action": last_action, "last_target": last_target, "wanted": wanted}  # fmt: skip
        last_action = policy(seen)
        last_target = policy.targets(last_action)["joint_target"]
        expected.append(last_target)
        rows.append(" ".join(f"{x:.17g}" for x in (*q, *v, *quat, *gyro, *wanted)))
    got = [line.split() for line in run(folder / "main", folder=folder, text="\n".join(rows)).splitlines()]
    np.testing.assert_allclose(np.array(got, dtype=float), expected, rtol=1e-5, atol=1e-6)


def test_its_core_sends_nothing_for_what_is_not_finite(made: tuple[Policy, Path]) -> None:
    _, folder = made
    if not (folder / "main").exists():
        test_its_core_answers_as_the_bundle_does(made)
    good = "0 0 0  0 0 0  1 0 0 0  0 0 0  0 0"
    for bad in (good.replace("1 0 0 0", "nan 0 0 0"), good.replace("1 0 0 0", "0 0 0 0"), "nan" + good[1:]):
        assert run(folder / "main", folder=folder, text=bad).strip() == "stop"


def test_its_source_compiles_against_what_it_uses_of_ros2_control(made: tuple[Policy, Path]) -> None:
    run("g++", *CPP, "-fsyntax-only", f"-I{STUBS}", "controller.cpp", folder=made[1])
    assert '"yaw", "pitch", "elbow"' in (made[1] / "observation.hpp").read_text()


def test_what_ros2_control_cannot_give_and_folders_of_others_are_refused(
    trained_run: Path, made: tuple[Policy, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    said = simreal_command(
        capsys, "export", trained_run, "--output", tmp_path / "b", "--ros2-control", tmp_path / "mine"
    )
    refused(said, "holds 'thesis.tex' and is no ros2_control controller")
    assert not (tmp_path / "b").exists()
    said = simreal_command(capsys, "export", trained_run, "--output", tmp_path / "b", "--ros2-control", tmp_path / "c")
    refused(said, "'grip_pos' (3 values in m")
    assert not (tmp_path / "c").exists()
    with pytest.raises(UserError, match="cannot be written"):
        write_controller(made[1].parent / "bundle", made[1].parent / "c", Path("/proc/no"))
