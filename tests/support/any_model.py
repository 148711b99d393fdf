"""Any MJCF model as a task, and models that hold what models of others hold."""

from __future__ import annotations

import mujoco
from torch import Tensor

from conftest import TinyTask
from envs.task import ActionComponent, Component, compile_spec

MUSCLE = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <site name="o" pos="0 0 .5"/>
    <geom name="wrap" type="sphere" pos="0.05 0 .45" size=".03" contype="0" conaffinity="0"/>
    <body pos="0 0 .4">
      <joint name="j" axis="0 1 0" damping=".2" range="-90 90"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/><site name="i" pos=".2 0 .02"/>
    </body>
  </worldbody>
  <tendon>
    <spatial name="t" stiffness="5" damping=".1" limited="true" range="0.05 .6">
      <site site="o"/><geom geom="wrap"/><site site="i"/>
    </spatial>
  </tendon>
  <actuator>
    <muscle name="mus" tendon="t" force="50" lengthrange=".1 .5" ctrlrange="0 1"/>
    <general name="filt" joint="j" dyntype="filterexact" dynprm=".05" gainprm="2"/>
    <intvelocity name="iv" joint="j" kp="5" actrange="-1 1"/>
  </actuator>
</mujoco>
"""

# Names that need quotes or are wildcards, objects without names beside some with theirs, joints of all types.
NAMES = """
<mujoco>
  <asset><material name="mat[0]" rgba="1 0 0 1"/></asset>
  <worldbody>
    <light name="headlight"/><light/><camera name="view"/><camera/>
    <geom type="plane" size="1 1 .1" material="mat[0]"/>
    <body name="0" pos="0 0 1"><freejoint name="no"/><geom name="off" size=".1" rgba="0 1 0 1"/></body>
    <body name="leg*" pos="1 0 1"><joint name="a: b" damping="1" armature=".1" frictionloss=".1"/><geom size=".1"/>
      <body name='"quoted" #1'><joint type="ball" stiffness="1" range="0 1" limited="true"/><geom size=".1"/></body>
    </body>
    <body pos="2 0 1"><joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/>
      <geom type="box" size=".1 .1 .1"/>
      <body name="body4"><joint/><geom size=".1" pos="1 0 0"/></body>
    </body>
    <body name="weiß 漢" pos="3 0 1"><joint range="0 1e-6" limited="true"/><geom size=".1"/></body>
  </worldbody>
  <actuator><motor joint="a: b"/><position name="actuator0" joint="a: b" kp="0"/></actuator>
  <sensor><jointpos joint="a: b"/></sensor>
</mujoco>
"""

# Values at and beyond the edge of sense, and things that are not there.
EDGES = """
<mujoco>
  <option density="1.2" viscosity="1e-5" wind="1 0 0"/>
  <visual><headlight active="0"/></visual>
  <worldbody>
    <geom type="plane" size="1 1 .1" solimp="2 1 0 .5 2" solref="-1000 -50" friction="0 0 0" condim="1"/>
    <body pos="0 0 1" gravcomp="1"><freejoint/>
      <geom size=".1" solimp="0 1 .001" margin=".01" gap=".01" mass="1"/>
      <geom size=".1" contype="0" conaffinity="0" mass="0"/>
    </body>
    <body mocap="true" pos="0 1 1"><geom size=".1" contype="0" conaffinity="0"/>
      <body><joint/><geom size=".1"/></body></body>
    <body pos="0 2 1"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
      <joint type="hinge" limited="true" range="-1 1"/></body>
    <body name="b" pos="0 3 1"><joint name="motor" axis="0 0 1"/><geom type="box" size=".1 .2 .3"/>
      <joint name="slack" axis="0 0 1" range="-1 1" armature=".01"/><site name="s"/></body>
  </worldbody>
  <tendon><fixed name="f" limited="true" range="0 1"><joint joint="motor" coef="1"/></fixed></tendon>
  <equality><tendon tendon1="f" active="false"/></equality>
  <actuator><motor joint="motor"/><adhesion body="b" ctrlrange="0 1"/><motor tendon="f" forcerange="-1 1"/></actuator>
</mujoco>
"""

OFF = """
<mujoco>
  <option actuatorgroupdisable="1">
    <flag gravity="disable" limit="disable" frictionloss="disable" damper="disable" spring="disable" contact="disable"/>
  </option>
  <worldbody>
    <geom type="plane" size="1 1 .1"/>
    <body pos="0 0 1"><joint name="j" damping="1" stiffness="1" frictionloss="1" range="-1 1"/><geom size=".1"/></body>
  </worldbody>
  <actuator><motor joint="j"/><motor name="off" joint="j" group="1"/></actuator>
</mujoco>
"""
STILL = '<mujoco><worldbody><body pos="0 0 1"><joint/><geom size=".1"/></body></worldbody></mujoco>'


class AnyModel(TinyTask):
    """A file, or an XML text, as a task without controls of its own."""

    id = "any"

    def __init__(self, source: str) -> None:
        spec = mujoco.MjSpec.from_string(source) if source.lstrip().startswith("<") else mujoco.MjSpec.from_file(source)
        self.model = compile_spec(spec)
        self.decimation, self.max_episode_steps, self.spread, self.terminate_above = 2, 10, 0.0, float("inf")
        nu = self.model.nu
        self.command_fields = ("ctrl",) if nu else ()
        self.observation = (
            Component("position", self.model.nq, "rad", "joint"),
            Component("velocity", self.model.nv, "rad/s", "joint"),
            Component("clock", 1, "s", measured=False),
        )
        self.action = (ActionComponent("ctrl", max(nu, 1), "1", (1.0,) * max(nu, 1), (0.0,) * max(nu, 1)),)

    @property
    def compiles_again(self) -> bool:
        return False

    def command(self, action: Tensor) -> Tensor:
        return action[:, : self.model.nu]
