"""MuJoCo's own delays of actuators and sensors, after a reset: as if the robot had stood so for long."""

from __future__ import annotations

import re

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TinyTask, build, only
from envs.engines.cpu import CpuEngine
from envs.engines.histories import control_samples, sensor_samples
from envs.environment import Environment
from envs.task import ActionComponent

MODEL = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <body name="arm">
      <joint name="j" type="hinge" axis="0 0 1" damping="1"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="weak" joint="j" gear="1e-9"/>
    <position name="servo" joint="j" kp="20" delay="0.03" nsample="4"/>
    <pid name="pid" joint="j" kp="1e-9" delay="0.02" nsample="2"/>
  </actuator>
  <sensor>
    <framequat objtype="xbody" objname="arm" delay=".02" nsample="3"/>
    <jointpos joint="j" delay="0.05" nsample="6"/>
    <jointpos joint="j" interval="0.03 -0.01" delay="0.02" nsample="3"/>
    <jointpos joint="j"/>
    <actuatorfrc actuator="servo"/>
  </sensor>
</mujoco>
"""
N, Q0 = 3, 0.7


class Started(TinyTask):
    """Episodes start at rest at Q0 + 0.1 * environment, where the servo holds.

    Args:
        settles: physics steps that the reset makes.
    """

    def __init__(self, settles: int = 0) -> None:
        super().__init__(MODEL, decimation=1, max_episode_steps=1000)
        self.settles = settles

    def reset(self, mask: Tensor) -> None:
        angle = Q0 + 0.1 * torch.arange(self.engine.num_envs, dtype=torch.float64)
        for name, column in (("qpos", 0), ("ctrl", 1)):
            values = self.engine.data(name)
            values[:, column] = torch.where(mask, angle, values[:, column])
        if self.settles:
            self.engine.advance_some(self.settles, mask)

    def command(self, action: Tensor) -> Tensor:
        return self.engine.data("ctrl").clone()


ANGLES = [Q0, Q0 + 0.1, Q0 + 0.2]


@pytest.mark.parametrize("settles", [0, 7])
def test_a_delayed_servo_that_holds_its_start_does_not_move(settles: int) -> None:
    env = build(Started(settles), N)
    action = torch.zeros(N, env.task.action_size)
    for step in range(12):
        if step == 6:
            env.reset(only(N, 1))
        env.step(action)
        np.testing.assert_allclose(env.engine.data("qpos")[:, 0], ANGLES, atol=1e-7)
        np.testing.assert_allclose(env.engine.data("sensordata")[:, 7], 0.0, atol=1e-5)


def test_delayed_sensors_show_the_start_from_the_first_observation_on() -> None:
    env = build(Started(), N)
    sensors = env.engine.data("sensordata")
    for step in range(12):
        if step == 6:
            env.reset(only(N, 1))
        half = torch.tensor(ANGLES, dtype=torch.float64) / 2.0
        np.testing.assert_allclose(sensors[:, 0], half.cos(), atol=1e-7)
        np.testing.assert_allclose(sensors[:, 3], half.sin(), atol=1e-7)
        for column in (4, 5, 6):
            np.testing.assert_allclose(sensors[:, column], ANGLES, atol=1e-7)
        env.step(torch.zeros(N, env.task.action_size))


def test_a_later_command_arrives_as_late_as_the_model_says() -> None:
    env = build(Started(), 1)
    engine = env.engine
    engine.data("ctrl")[:, 1] = 0.0
    forces = []
    for _ in range(6):
        engine.step(1)
        forces.append(float(engine.data("sensordata")[0, 7]))
    # read before it is written: 3 steps of 0.01 s, then 20 * (0 - 0.7) N m
    np.testing.assert_allclose(forces[:3], 0.0, atol=1e-5)
    assert forces[3] == pytest.approx(-14.0, abs=1e-4)


def test_histories_of_other_environments_go_on() -> None:
    env = build(Started(), N)
    env.engine.data("ctrl")[:, 1] += 0.2
    env.engine.step(2)
    before = env.engine.data("history").clone()
    env.reset(only(N, 1))
    after = env.engine.data("history")
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


def test_samples_lie_where_mujocos_own_functions_write_them() -> None:
    model = mujoco.MjModel.from_xml_string(MODEL)
    data = mujoco.MjData(model)
    ours = torch.from_numpy(data.history[None].copy())
    controls, sensordata = torch.arange(1.0, model.nu + 1)[None], torch.arange(10.0, 10.0 + model.nsensordata)[None]
    device = torch.device("cpu")
    for samples, values in ((control_samples(model, device), controls), (sensor_samples(model, device), sensordata)):
        samples.fill(ours, values, torch.tensor([True]))
    for i in range(len(model.actuator_history)):
        count, size, start = model.actuator_history[i, 0], model.actuator_ctrlnum[i], model.actuator_ctrladr[i]
        if count:
            values = np.tile(controls[0, start : start + size].double().numpy(), (int(count), 1))
            mujoco.mj_initCtrlHistory(model, data, i, None, values)
    for i in range(model.nsensor):
        count, size, start = model.sensor_history[i, 0], model.sensor_dim[i], model.sensor_adr[i]
        if count:
            values = np.tile(sensordata[0, start : start + size].double().numpy(), (int(count), 1))
            phase = data.history[model.sensor_historyadr[i]]
            mujoco.mj_initSensorHistory(model, data, i, None, values, phase)
    assert ours[0].tolist() == data.history.tolist()


def test_a_model_without_delays_pays_nothing() -> None:
    engine = CpuEngine(TinyTask().model, 2, 1)
    engine.reset()
    engine.start_histories(torch.ones(2, dtype=torch.bool))
    assert engine.handed_out() == []


@pytest.mark.gpu
def test_the_gpu_engine_starts_histories_alike() -> None:
    pytest.importorskip("mujoco_warp")
    from envs.engines.gpu.engine import GpuEngine

    task = Started()
    task.model = mujoco.MjModel.from_xml_string(re.sub(r"<pid .*?/>", "", MODEL))  # which the GPU does not have
    task.action = (ActionComponent("ctrl", 2, "rad", (1.0,) * 2, (0.0,) * 2),)
    env = Environment(task, GpuEngine(task.model, N, "cpu"))
    env.reset()
    sensors, half = env.engine.data("sensordata"), torch.tensor(ANGLES) / 2.0
    for step in range(5):
        if step == 3:
            env.reset(only(N, 1))
        np.testing.assert_allclose(sensors[:, 0], half.cos(), atol=1e-6)
        np.testing.assert_allclose(sensors[:, 4], ANGLES, atol=1e-6)
        np.testing.assert_allclose(env.engine.data("qpos")[:, 0], ANGLES, atol=1e-5)
        env.step(torch.zeros(N, 2))
