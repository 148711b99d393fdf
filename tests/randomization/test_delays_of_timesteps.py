"""MuJoCo's own delays of actuators and sensors stay what they are when a world steps with another timestep."""

from __future__ import annotations

from typing import Any

import mujoco
import pytest
import torch

from conftest import TinyTask, build, manual_layer
from envs.engines.backlash_joints import BacklashJointEngine
from envs.engines.cpu import CpuEngine
from envs.engines.histories import delays, shortened_delay
from envs.environment import Environment
from randomization.parameters import RandomizationError
from simreal.evaluation.model_variants import ModelVariant, ModelVariantError

# Delays of 20 ms at a physics step of 2 ms: histories of 10 samples. A sensor that samples every 10 ms needs 2. The
# last actuator's history is too short for the 30 ms that it states: MuJoCo delays it by 5 samples, 10 ms.
DELAYED = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"/>
  <worldbody>
    <body name="arm">
      <joint name="hinge" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="1"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="hinge"/>
    <motor name="late" joint="hinge" delay="0.02" nsample="10"/>
    <motor name="short" joint="hinge" delay="0.03" nsample="5"/>
  </actuator>
  <sensor>
    <clock delay="0.02" nsample="10"/>
    <clock name="slow" delay="0.02" nsample="2" interval="0.01"/>
  </sensor>
</mujoco>
"""


class Recompiled(TinyTask):
    """TinyTask, compiled through `compile_spec` from the beginning."""

    def __init__(self, xml: str = DELAYED) -> None:
        super().__init__(xml, decimation=20, max_episode_steps=100)
        self.compile_full(())


def arrival_s(model: mujoco.MjModel, actuator: int) -> float:
    """When a command of 0.1 s reaches an actuator, s later."""
    data = mujoco.MjData(model)
    while data.time < 1.0:
        sent_s = data.time
        data.ctrl[actuator] = float(sent_s >= 0.1 - 1e-9)
        mujoco.mj_step(model, data)
        if data.actuator_force[actuator] > 0.5:
            return sent_s - 0.1
    raise AssertionError("it never arrived")


def age_s(model: mujoco.MjModel, sensor: int) -> float:
    """How old the reading of a sensor of time is after half a second."""
    data = mujoco.MjData(model)
    while data.time < 0.5 - 1e-9:
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    return data.time - data.sensordata[sensor]


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("backlash", [False, True])
def test_delays_stay_under_another_timestep(factor: float, backlash: bool) -> None:
    task = Recompiled()
    blocks: dict[str, Any] = {"physics": {"timestep_factor": factor}} if factor != 1.0 else {}
    if backlash:
        blocks["model"] = {"backlash": {"play": 0.01}}
    model = ModelVariant.model_validate(blocks).apply(task, Recompiled)
    assert model.opt.timestep == task.model.opt.timestep == pytest.approx(0.002 * factor)
    assert arrival_s(model, 0) == pytest.approx(0.0, abs=1e-9)
    assert arrival_s(model, 1) == pytest.approx(0.02)
    # whole steps that are at least as long as 10 ms
    assert arrival_s(model, 2) == pytest.approx(0.012 if factor == 2.0 else 0.01)
    assert age_s(model, 0) == pytest.approx(0.02)
    assert 0.02 - 1e-9 <= age_s(model, 1) < 0.031


def test_delays_stay_in_worlds_of_random_timesteps() -> None:
    task = Recompiled()
    layer = manual_layer(task, {"timestep": {"range": [0.5, 0.5]}})
    environment = build(task, 2, layer)
    model, _ = environment.engine.export_to_mujoco(1)
    assert model.opt.timestep == 0.001
    assert arrival_s(model, 1) == pytest.approx(0.02)
    assert arrival_s(task.model, 1) == pytest.approx(0.02)  # where a world's factor is 1
    assert shortened_delay(task.model, 0.001) is None
    assert environment.step(torch.ones(2, 3)).observed.policy.isfinite().all()


def test_a_timestep_that_would_cut_a_delay_short_is_refused_where_the_model_cannot_be_compiled_again() -> None:
    expected = (
        "actuator late is delayed by 0.02 s, .* 0.001 s its history of 10 samples reaches back 0.01 s: .*nsample=20"
    )
    task = TinyTask(DELAYED)
    with pytest.raises(ModelVariantError, match=expected):
        ModelVariant.model_validate({"physics": {"timestep": 0.001}}).apply(task, lambda: TinyTask(DELAYED))
    layer = manual_layer(task, {"timestep": {"range": [0.5, 1.0]}})  # not prepared
    with pytest.raises(RandomizationError, match="timestep: " + expected):
        Environment(task, CpuEngine(task.model, 2, threads=1), layer, 0)


def test_enough_samples_are_left_alone() -> None:
    xml = DELAYED.replace('nsample="10"', 'nsample="40"').replace('delay="0.03" nsample="5"', "")
    task = TinyTask(xml)
    model = ModelVariant.model_validate({"physics": {"timestep_factor": 0.25}}).apply(task, lambda: TinyTask(xml))
    assert [d.samples for d in delays(model)] == [40, 40, 2]
    assert arrival_s(model, 1) == pytest.approx(0.02)


def test_a_world_of_random_timesteps_and_a_finer_one_compose() -> None:
    task = Recompiled()
    physics = {"physics": {"timestep_factor": 0.5}, "model": {"backlash": {"play": 0.01}}}
    model = ModelVariant.model_validate(physics).apply(task, Recompiled, shortest=0.5)
    engine = BacklashJointEngine(CpuEngine(model, 2, threads=1))
    assert [shortened_delay(m, 0.0005) for m in (task.model, engine.model)] == [None, None]
