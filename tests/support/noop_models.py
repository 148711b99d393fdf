"""Small models that between them have what MuJoCo's models have, for the search for silent no-ops."""

from __future__ import annotations

# Free bodies on the floor and on each other, a mocap body, unnamed and clashing names, a decoration, a fixture.
STONES = """
<mujoco>
  <option timestep="0.002" cone="elliptic"/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1" condim="{condim}" friction="{floor} 0.01 0.002"/>
    <body name="table" pos="0 0 0.05"><geom name="top" type="box" size="0.2 0.2 0.05"/></body>
    <body name="sign" pos="2 2 1"><geom name="paint" size="0.05" contype="0" conaffinity="0"/></body>
    <body name="hand" mocap="true" pos="0.5 0 0.09"><geom name="palm" type="box" size="0.1 0.1 0.1"/></body>
    <body pos="0 0 0.149">
      <freejoint/>
      <geom type="box" size="0.05 0.05 0.05" mass="0.4"/>
      <geom name="hat" size="0.02" pos="0 0 0.05" contype="0" conaffinity="0" mass="0.1"/>
    </body>
    <body name="body4" pos="0.3 0.4 0.099">
      <freejoint/><geom name="geom4" size="0.1" mass="1" solref="0.03 1" solimp="0.8 0.9 0.01"/>
    </body>
    <body name="ball" pos="0.49 0.42 0.099">
      <freejoint/><geom name="ball" size="0.1" mass="1" margin="0.001" {ball}/>
    </body>
  </worldbody>
</mujoco>
"""

# The same kind of contacts, declared.
PAIRS = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1" contype="0" conaffinity="0"/>
    <body pos="0 0 0.099"><freejoint/>
      <geom name="wheel" size="0.1" mass="1" contype="0" conaffinity="0"/>
      <geom name="mark" size="0.2" mass="0" contype="0" conaffinity="0"/>
    </body>
    <body pos="1 0 0.099"><freejoint/>
      <geom name="box" type="box" size="0.1 0.1 0.1" mass="1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <contact>
    <pair geom1="floor" geom2="wheel" condim="6" friction="1 1 0.01 0.01 0.01"/>
    <pair geom1="floor" geom2="box" condim="3" friction="0.5 0.5 0.01 0.01 0.01" solref="-2000 -60" adhesion="0.1"/>
  </contact>
</mujoco>
"""

# Joints and tendons of all kinds with everything they may have, in parts that a factor cannot reach.
JOINTS = """
<mujoco>
  <option timestep="0.002" density="1.2" viscosity="2e-5"/>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <site name="hook" pos="0.3 0 1.3"/>
    <body name="arm" pos="0 0 1">
      <joint name="elbow" axis="0 1 0" range="-60 70" damping="0.5 0.2 0.1" stiffness="1 2 3"
        frictionloss="0.1" armature="0.01"/>
      <geom name="rod" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.5"/>
      <body name="tip" pos="0.3 0 0">
        <joint name="reach" type="slide" axis="1 0 0" range="-0.1 0.2" damping="0 1 0" stiffness="0 0 5"/>
        <geom name="pad" type="box" size="0.02 0.03 0.04" mass="0.2"/>
        <site name="end" pos="0.05 0 0"/>
      </body>
    </body>
    <body name="pendulum" pos="0 1 1">
      <joint name="hip" type="ball" damping="0.05" range="0 40" stiffness="0.3"/>
      <geom name="bob" type="ellipsoid" size="0.05 0.06 0.07" pos="0.05 0.1 -0.3" mass="0.5" fluidshape="ellipsoid"/>
    </body>
    <body name="cart" pos="0 2 1">
      <joint name="rail" type="slide" axis="1 0 0"/>
      <geom name="hull" type="box" size="0.1 0.05 0.05" mass="1"/>
    </body>
    <body name="stand" pos="0 3 1">
      <joint name="screw" type="slide" axis="0 0 1" damping="1e11" armature="1e9" range="-1 1" frictionloss="1"/>
      <geom name="base" type="box" size="0.1 0.1 0.1" mass="2"/>
    </body>
    <body name="floating" pos="0 4 1" gravcomp="1">
      <joint name="swivel" axis="0 1 0"/>
      <geom name="fin" type="box" size="0.2 0.1 0.01" pos="0.2 0 0" mass="0.3"/>
    </body>
    <body name="mimic" pos="0 5 1">
      <joint name="led" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.02" mass="0.2"/>
    </body>
  </worldbody>
  <equality><joint joint1="led" joint2="swivel" polycoef="0 1 0 0 0"/></equality>
  <tendon>
    <spatial name="rope" stiffness="20 5 1" springlength="0.2 0.25" range="0.31 0.35" damping="0.1">
      <site site="hook"/><site site="end"/>
    </spatial>
    <spatial name="limp" springlength="0.2" range="0.28 0.4"><site site="hook"/><site site="end"/></spatial>
    <fixed name="band" stiffness="0 3 0" springlength="0.1"><joint joint="rail" coef="1"/><joint joint="swivel" coef="1"/></fixed>
  </tendon>
</mujoco>
"""  # noqa: E501

# Actuators of all kinds, with force limits in all places.
MOTORS = """
<mujoco>
  <option timestep="0.002"/>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <body><joint name="j0" axis="0 1 0" actuatorfrcrange="-3 3" damping="0.1"/><geom name="g0" type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
      <body pos=".3 0 0"><joint name="j1" axis="0 1 0" damping="0.1"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
        <site name="tip" pos=".3 0 0"/></body></body>
    <body pos="0 1 0"><joint name="j2" axis="0 1 0" damping="0.1"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
    <body pos="0 2 0"><joint name="j3" type="slide" axis="1 0 0" damping="0.5" actuatorfrcrange="-4 4"/><geom size=".1"/></body>
    <body pos="0 3 0"><joint name="j4" axis="0 1 0" damping="0.1"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
    <body pos="0 4 0"><joint name="j5" axis="0 1 0" damping="0.1" range="-40 40"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
    <body pos="0 5 0"><joint name="driven" axis="0 1 0" armature="0.01" damping="0.2"/><joint name="slack" axis="0 1 0" range="-5 5"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
    <body pos="0 6 0"><joint name="off" axis="0 1 0" damping="0.1"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
    <body name="foot" pos="0 7 0.099"><freejoint/><geom name="sole" size="0.1" contype="1" conaffinity="1"/></body>
    <geom name="floor" type="plane" size="20 20 1" contype="1" conaffinity="1"/>
  </worldbody>
  <tendon>
    <fixed name="cord" actuatorfrcrange="-2 2"><joint joint="j2" coef="1"/><joint joint="j1" coef="0.5"/></fixed>
  </tendon>
  <actuator>
    <position name="servo" joint="j0" kp="20" kv="1" ctrlrange="-1.5 1.5"/>
    <motor name="pair" joint="j0" gear="2" damping="0.1" armature="0.01" forcerange="-3 3"/>
    <velocity name="wheel" joint="j1" kv="0.5" forcerange="-1 1"/>
    <general name="pull" tendon="cord" gainprm="5"/>
    <general name="thrust" site="tip" gear="0 0 1 0 0 0" gainprm="2"/>
    <pid name="pid" joint="j3" kp="100" ki="30" kv="5" imax="1"/>
    <muscle name="muscle" joint="j5" lengthrange="-1.5 1.5" force="20"/>
    <motor name="lag" joint="j4" delay="0.01" nsample="20" gear="-1"/>
    <position name="geared" joint="driven" kp="20" dampratio="1"/>
    <adhesion name="glue" body="foot" gain="5" ctrlrange="0 1"/>
    <motor name="idle" joint="off" group="3"/>
  </actuator>
</mujoco>
"""  # noqa: E501

# A planar robot: nothing leaves the plane y = 0.
PLANAR = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="20 20 1" condim="3"/>
    <body name="torso" pos="0 0 0.0495">
      <joint name="x" type="slide" axis="1 0 0"/><joint name="z" type="slide" axis="0 0 1"/>
      <joint name="turn" axis="0 1 0"/>
      <geom name="trunk" type="capsule" fromto="-0.2 0 0 0.2 0 0" size="0.05"/>
      <body name="leg" pos="0.2 0 0">
        <joint name="hip" axis="0 1 0" damping="0.1" range="-60 60"/>
        <geom name="shin" type="capsule" fromto="0.2 0 0 0.5 0 0" size="0.05" friction="2 0.1 0.1"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="hip" joint="hip" gear="20" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
INLINE: dict[str, str] = {
    "stones": STONES.format(condim=6, floor=1, ball=""),
    "low floor": STONES.format(condim=3, floor=0.4, ball='priority="1" condim="4"'),
    "pairs": PAIRS,
    "joints": JOINTS,
    "motors": MOTORS,
    "planar": PLANAR,
}
FLAGS = ("constraint", "equality", "frictionloss", "limit", "contact", "spring", "damper", "gravity", "actuation")
