"""Motors on the GPU engine do what they do on the CPU engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("mujoco_warp")

from conftest import TinyTask, fixed_worlds
from envs.engines.base import Engine, EngineError
from envs.engines.cpu import CpuEngine
from envs.engines.gpu.engine import GpuEngine
from envs.environment import Environment
from gpu_worlds import DEVICE

pytestmark = pytest.mark.gpu

ROTOR = """
<mujoco>
  <option timestep="0.001" gravity="0 0 0"/>
  <worldbody>
    <body name="a">
      <joint name="a" axis="0 0 1" armature="0.02" damping="0.05"/><geom size="0.01" mass="1e-6"/>
    </body>
  </worldbody>
  <actuator><position name="a" joint="a" kp="20" kv="0.5" {limit}/></actuator>
</mujoco>
"""
LIMIT = 'forcerange="-2 2"'


def speeds(kind: type[Engine], limit: str) -> torch.Tensor:
    entries: dict[str, Any] = {
        "motor_no_load_speed": {"range": [5, 50]}, "supply_sag": {"range": [0, 20]},
        "motor_continuous_torque": {"range": [0.3, 1]}, "motor_thermal_time": {"range": [0.2, 60]},
        "motor_stiction": {}, "gear_efficiency": {}, "gear_backdrive_efficiency": {}, "encoder_resolution": {},
    }  # fmt: skip
    worlds = [[5.0, 10.0, 0.3, 0.2, 0.1, 0.7, 0.6, 0.002], [50.0, 0.0, 1.0, 60.0, 0.0, 1.0, 1.0, 0.0]]
    task = TinyTask(ROTOR.format(limit=limit), decimation=10, max_episode_steps=1000)
    engine = kind(task.model, 2, *((1,) if kind is CpuEngine else (DEVICE,)))  # pyright: ignore[reportCallIssue]
    env = Environment(task, engine, fixed_worlds(task, entries, worlds))
    env.reset()
    shown = []
    for action in (1.0, -1.0, 0.3):
        for _ in range(10):
            env.step(torch.full((2, 1), action, dtype=engine.dtype, device=engine.device))
            shown.append(engine.data("qvel")[:, 0].double().cpu().clone())
    return torch.stack(shown)


def test_motors_are_the_same_on_both_engines() -> None:
    cpu, gpu = (speeds(kind, LIMIT) for kind in (CpuEngine, GpuEngine))
    assert float(cpu[:, 0].sub(cpu[:, 1]).abs().max()) > 1.0  # the two worlds differ
    torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=2e-3)


def test_a_motor_without_a_limit_in_its_model_is_refused_there() -> None:
    torque = '<motor name="a" joint="a" gear="2" ctrllimited="true" ctrlrange="-1 1"/>'
    task = TinyTask(ROTOR.replace('<position name="a" joint="a" kp="20" kv="0.5" {limit}/>', torque))
    layer = fixed_worlds(task, {"motor_no_load_speed": {}}, [[5.0]])
    with pytest.raises(EngineError, match=r"^engine: 'actuator_forcelimited' cannot differ between simulations"):
        Environment(task, GpuEngine(task.model, 1, DEVICE), layer)
