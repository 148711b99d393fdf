"""An arm of three joints and a rail, composed of parts that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import torch
from torch import Tensor

from envs.parts.actions import ActionSpec, EndEffectorDelta, JointPosition
from envs.parts.composed import ComposedTask
from envs.parts.observations import (
    BodyPose,
    Command,
    Goal,
    Imu,
    JointState,
    LastAction,
    LastTarget,
    ObservationSpec,
)
from envs.task import Outcome

ARM = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 0.1" pos="0 0 -1"/>
    <body name="shoulder" pos="0 0 0.1" euler="0 0 20">
      <joint name="yaw" axis="0 0 1" damping="0.5" range="-120 120"/>
      <geom name="hub" size="0.04"/>
      <body name="upper" pos="0 0 0.1">
        <joint name="pitch" axis="0 1 0" damping="0.5" range="-120 120"/>
        <geom name="arm" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02"/>
        <body name="lower" pos="0.3 0 0" euler="0 30 0">
          <joint name="elbow" axis="0 1 0" damping="0.5" range="-120 120"/>
          <geom name="forearm" type="capsule" fromto="0 0 0 0.2 0 0" size="0.02"/>
          <site name="tool" pos="0.22 0 0" euler="0 90 0"/>
          <site name="imu" pos="0.1 0 0" euler="40 0 0"/>
        </body>
      </body>
    </body>
    <body name="ball" pos="0.3 0.3 0.2"><freejoint name="ball"/><geom name="ball" size="0.03"/></body>
  </worldbody>
  <actuator>
    <position name="m_yaw" joint="yaw" kp="40" kv="4" ctrlrange="-2 2" forcerange="-20 20"/>
    <position name="m_pitch" joint="pitch" kp="60" kv="6" ctrlrange="-1.5 1.5" forcerange="-30 30"/>
    <position name="m_elbow" joint="elbow" kp="30" kv="3" gear="2" ctrlrange="-4 4" forcerange="-10 10"/>
  </actuator>
  <sensor><accelerometer name="acc" site="imu"/></sensor>
</mujoco>
"""
VELOCITY = ARM.replace("<position", "<velocity").replace('kp="40" ', "").replace('kp="60" ', "").replace('kp="30" ', "")
MOTORS = """  <actuator>
    <motor name="m_yaw" joint="yaw" gear="3" ctrlrange="-1 1"/>
    <motor name="m_pitch" joint="pitch" gear="-4" ctrlrange="-2 1"/>
    <motor name="m_elbow" joint="elbow" gear="2" ctrlrange="-1 1"/>
  </actuator>"""
TORQUE = ARM[: ARM.index("  <actuator>")] + MOTORS + ARM[ARM.index("  <sensor>") - 1 :]
START = (0.3, -0.4, 0.6)


class SmallArm(ComposedTask):
    """The arm, which begins near `START`.

    Args:
        actions, observations: its parts.
        xml: the model.
    """

    id, decimation, max_episode_steps = "SmallArm-v0", 4, 6

    def __init__(
        self,
        actions: ActionSpec | Sequence[ActionSpec] = JointPosition(),  # noqa: B008  # frozen
        observations: ObservationSpec | Sequence[ObservationSpec] = JointState(),  # noqa: B008
        xml: str = ARM,
    ) -> None:
        self.compose(mujoco.MjModel.from_xml_string(xml), actions, observations)

    def start(self, mask: Tensor) -> None:
        qpos = self.engine.data("qpos").clone()
        qpos[:, :3] = self.tensor(START) + 0.4 * (self.rng.episode_uniform("start", 3) - 0.5)
        self.write(mask, qpos=qpos)

    def outcome(self, action: Tensor) -> Outcome:
        if self.goal_size:
            return super().outcome(action)
        reward = -self.engine.data("qpos")[:, :3].square().sum(dim=1)
        self.change_commands()
        return Outcome(reward, torch.zeros_like(reward, dtype=torch.bool), reward > -0.1)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return -torch.linalg.vector_norm(achieved - desired, dim=-1)

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return torch.linalg.vector_norm(achieved - desired, dim=-1) < 0.05


class Everything(SmallArm):
    """The arm with every kind of part."""

    def __init__(self) -> None:
        command = Command("wanted", (-1.0,), (1.0,), "m/s", every_s=0.04)
        tool = EndEffectorDelta("tool", 0.03, turn_scale=0.1, relative="joint", smoothing=0.5)
        sight = [
            BodyPose("ball", rotation="quat"),
            BodyPose("tool", rotation="6d"),
            Imu("imu"),
            Imu("ball", prefix="ball_"),
        ]
        super().__init__(
            tool, [JointState(), LastAction(), LastTarget(), command, *sight, Goal("tool", frame="shoulder")]
        )
