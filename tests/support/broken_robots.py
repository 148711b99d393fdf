"""Small sound robots, as MJCF and as URDF, and each defect that the doctor knows in one of them, made by an edit."""

from __future__ import annotations

import math
from collections.abc import Callable

_LEG = """
      <body name="{n}_hip" pos="{x} {y} 0">
        <joint name="{n}_abduct" axis="1 0 0" range="-0.8 0.8"/>
        <geom name="{n}_hip" type="capsule" fromto="0 {s}0.01 0 0 {s}0.05 0" size="0.03" mass="0.6"/>
        <body name="{n}_thigh" pos="0 {s}0.07 0">
          <joint name="{n}_swing" axis="0 1 0" range="-0.6 2.5"/>
          <geom name="{n}_thigh" type="capsule" fromto="0 0 -0.03 0 0 -0.16" size="0.02" mass="0.9"/>
          <body name="{n}_calf" pos="0 0 -0.2">
            <joint name="{n}_knee" axis="0 1 0" range="-2.6 -0.6"/>
            <geom name="{n}_shank" type="capsule" fromto="0 0 -0.05 0 0 -0.15" size="0.01" mass="0.15"/>
            <geom name="{n}" type="sphere" pos="0 0 -0.2" size="0.02" mass="0.05"/>
          </body>
        </body>
      </body>"""
_SERVOS = """
    <position name="{n}_abduct" joint="{n}_abduct" kp="40" kv="1" ctrlrange="-0.8 0.8"/>
    <position name="{n}_swing" joint="{n}_swing" kp="40" kv="1" ctrlrange="-0.6 2.5"/>
    <position name="{n}_knee" joint="{n}_knee" kp="40" kv="1" ctrlrange="-2.6 -0.6"/>"""
_PLACES = {"FL": (0.18, 0.05, ""), "FR": (0.18, -0.05, "-"), "RL": (-0.18, 0.05, ""), "RR": (-0.18, -0.05, "-")}
_JOINTS = " ".join(["0 0.8 -1.6"] * 4)
HEIGHT_M = 2 * 0.2 * math.cos(0.8) + 0.02

DOG = f"""<mujoco model="dog">
  <compiler angle="radian"/>
  <option timestep="0.002"/>
  <default>
    <joint damping="0.1" armature="0.01"/>
    <position forcerange="-30 30"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 0.05"/>
    <body name="trunk" pos="0 0 0.4">
      <freejoint/>
      <geom name="trunk" type="box" size="0.2 0.05 0.05" mass="6"/>{
    "".join(_LEG.format(n=n, x=x, y=y, s=s) for n, (x, y, s) in _PLACES.items())
}
    </body>
  </worldbody>
  <actuator>{"".join(_SERVOS.format(n=n) for n in _PLACES)}
  </actuator>
  <keyframe><key name="home" qpos="0 0 {HEIGHT_M:.4f} 1 0 0 0 {_JOINTS}" ctrl="{_JOINTS}"/></keyframe>
</mujoco>"""

ARM = """<mujoco model="arm">
  <compiler angle="radian"/>
  <asset><mesh name="link" vertex="0 -.03 -.03  0 .03 -.03  0 -.03 .03  0 .03 .03  .3 -.03 -.03  .3 .03 -.03
    .3 -.03 .03  .3 .03 .03"/></asset>
  <worldbody>
    <body name="pillar"><geom name="pillar" type="cylinder" size="0.08 0.2" pos="0 0 0.2"/>
      <body name="upper" pos="0 0 0.5">
        <joint name="turn" axis="0 0 1" range="-2.8 2.8" damping="1" armature="0.1"/>
        <geom name="shoulder" type="sphere" size="0.06" mass="2"/>
        <body name="middle" pos="0 0 0.06">
          <joint name="lift" axis="0 -1 0" range="-0.5 2" damping="1" armature="0.1"/>
          <geom name="looks" type="mesh" mesh="link" mass="0" contype="0" conaffinity="0" group="2"/>
          <geom name="middle" type="box" pos="0.15 0 0" size="0.15 0.03 0.03" mass="1.5"/>
          <body name="lower" pos="0.36 0 0">
            <joint name="bend" axis="0 -1 0" range="-2 2" damping="0.5" armature="0.05"/>
            <geom name="lower" type="capsule" fromto="0.02 0 0 0.25 0 0" size="0.02" mass="0.8"/>
            <site name="tip" pos="0.28 0 0"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="turn" joint="turn" kp="200" kv="20" ctrlrange="-2.8 2.8" forcerange="-60 60"/>
    <position name="lift" joint="lift" kp="200" kv="20" ctrlrange="-0.5 2" forcerange="-60 60"/>
    <position name="bend" joint="bend" kp="100" kv="10" ctrlrange="-2 2" forcerange="-30 30"/>
  </actuator>
</mujoco>"""


def _link(name: str, mass: float, length: float, width: float, offset: str, mesh: str = "") -> str:
    across, along = mass * width**2 / 6.0, mass * (length**2 + width**2) / 12.0
    looks = f'<visual><geometry><mesh filename="{mesh}"/></geometry></visual>' if mesh else ""
    return f"""
  <link name="{name}">
    <inertial><origin xyz="{offset}"/><mass value="{mass}"/>
      <inertia ixx="{along:.6f}" iyy="{along:.6f}" izz="{across:.6f}" ixy="0" ixz="0" iyz="0"/></inertial>{looks}
    <collision><origin xyz="{offset}"/><geometry><box size="{width} {width} {length}"/></geometry></collision>
  </link>"""


def _joint(name: str, parent: str, child: str, xyz: str, axis: str, lower: float, upper: float) -> str:
    return f"""
  <joint name="{name}" type="revolute"><parent link="{parent}"/><child link="{child}"/><origin xyz="{xyz}"/>
    <axis xyz="{axis}"/><limit lower="{lower}" upper="{upper}" effort="30" velocity="8"/>
    <dynamics damping="0.2" friction="0.1"/></joint>"""


URDF_ARM = f"""<robot name="urdf_arm">{_link("base", 3.0, 0.2, 0.15, "0 0 0.1")}{
    _link("upper", 2.0, 0.24, 0.06, "0 0 0.16")
}{_link("lower", 1.0, 0.24, 0.05, "0 0 0.16")}{_link("hand", 0.3, 0.06, 0.04, "0 0 0.06")}{
    _joint("turn", "base", "upper", "0 0 0.22", "0 0 1", -2.8, 2.8)
}{_joint("lift", "upper", "lower", "0 0 0.3", "0 1 0", -1.6, 1.6)}{
    _joint("bend", "lower", "hand", "0 0 0.3", "0 1 0", -2.0, 2.0)
}
</robot>"""


def _urdf_leg(n: str, x: float, y: float, side: int) -> str:
    foot = f"""
  <link name="{n}_foot">
    <inertial><mass value="0.05"/><inertia ixx="1e-5" iyy="1e-5" izz="1e-5" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><sphere radius="0.02"/></geometry></collision></link>
  <joint name="{n}_foot" type="fixed">
    <parent link="{n}_calf"/><child link="{n}_foot"/><origin xyz="0 0 -0.2"/></joint>"""
    return (
        _link(f"{n}_hip", 0.6, 0.04, 0.05, f"0 {0.03 * side} 0") + _link(f"{n}_thigh", 0.9, 0.14, 0.04, "0 0 -0.1")
        + _link(f"{n}_calf", 0.15, 0.1, 0.02, "0 0 -0.1") + foot
        + _joint(f"{n}_abduct", "trunk", f"{n}_hip", f"{x} {y} 0", "1 0 0", -0.8, 0.8)
        + _joint(f"{n}_swing", f"{n}_hip", f"{n}_thigh", f"0 {0.07 * side} 0", "0 1 0", -0.6, 2.5)
        + _joint(f"{n}_knee", f"{n}_thigh", f"{n}_calf", "0 0 -0.2", "0 1 0", -2.6, -0.6)
    )  # fmt: skip


URDF_DOG = f"""<robot name="urdf_dog">
  <link name="trunk">
    <inertial><mass value="6"/><inertia ixx="0.02" iyy="0.09" izz="0.09" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><box size="0.4 0.1 0.1"/></geometry></collision></link>{
    "".join(_urdf_leg(n, x, y, -1 if s else 1) for n, (x, y, s) in _PLACES.items())
}
</robot>"""

SOUND: dict[str, tuple[str, str]] = {
    "dog.xml": ("mjcf", DOG), "arm.xml": ("mjcf", ARM), "arm.urdf": ("urdf", URDF_ARM), "dog.urdf": ("urdf", URDF_DOG),
}  # fmt: skip


def _swap(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return text


_INERTIAL = (
    URDF_ARM[URDF_ARM.index("<inertial>", URDF_ARM.index('name="lower"')) :].split("</inertial>")[0] + "</inertial>"
)
_LIFT = 'lower="-1.6" upper="1.6" effort="30" velocity="8"'
_MIMIC = '<parent link="lower"/><child link="hand"/>'

# What is wrong: kinds of finding that name it, what they name, and the file.
BROKEN: dict[str, tuple[tuple[str, ...], str, str, Callable[[], str]]] = {
    "a link without inertia": (("inertia",), "lower", "urdf", lambda: _swap(URDF_ARM, (_INERTIAL, ""))),
    "an inertia that no body has": (
        ("inertia",), "lower", "urdf",
        lambda: _swap(URDF_ARM, (_INERTIAL, _INERTIAL.replace('iyy="0.0050', 'iyy="0.0950'))),
    ),
    "an inertia with a wrong sign": (
        ("inertia",), "lower", "urdf", lambda: _swap(URDF_ARM, (_INERTIAL, _INERTIAL.replace('izz="', 'izz="-'))),
    ),
    "a moving link of 0 kg": (
        ("mass",), "lower", "urdf",
        lambda: _swap(URDF_ARM, (_INERTIAL, _INERTIAL.replace('mass value="1.0"', 'mass value="0"'))),
    ),
    "a mimic joint": (
        ("mimic",), "bend", "urdf",
        lambda: _swap(URDF_ARM, (_MIMIC, f'{_MIMIC}<mimic joint="lift" multiplier="0.5"/>')),
    ),
    "no limits": (("limits",), "lift", "urdf", lambda: _swap(URDF_ARM, (f"<limit {_LIFT}/>", ""))),
    "limits in degrees": (
        ("limits",), "lift", "urdf",
        lambda: _swap(URDF_ARM, (_LIFT, 'lower="-92" upper="92" effort="30" velocity="8"')),
    ),
    "an effort of 0": (("effort",), "lift", "urdf", lambda: _swap(URDF_ARM, (_LIFT, _LIFT.replace("30", "0")))),
    "a speed of 0": (("velocity",), "lift", "urdf", lambda: _swap(URDF_ARM, (_LIFT, _LIFT.replace('"8"', '"0"')))),
    "a mesh that is not there": (
        ("mesh",), "package://dog/meshes/trunk.stl", "urdf",
        lambda: _swap(URDF_DOG, ('<box size="0.4 0.1 0.1"/>', '<mesh filename="package://dog/meshes/trunk.stl"/>')),
    ),
    "an inertia in kg cm2": (
        ("inertia",), "trunk", "urdf",
        lambda: _swap(URDF_DOG, ('ixx="0.02" iyy="0.09" izz="0.09"', 'ixx="200" iyy="900" izz="900"')),
    ),
    "no actuators": (
        ("actuators",), "joints", "mjcf",
        lambda: DOG[: DOG.index("<actuator>")] + DOG[DOG.index("<keyframe>") :].replace(f'ctrl="{_JOINTS}"', ""),
    ),
    "radians taken for degrees": (
        ("limits",), "lift", "mjcf", lambda: _swap(ARM, ('angle="radian"', 'angle="degree"')),
    ),
    "limits of a model in degrees": (
        ("limits",), "lift", "mjcf", lambda: _swap(ARM, ('range="-0.5 2" damping', 'range="-30 120" damping')),
    ),
    "legs that overlap at the stance": (
        ("collision",), "thigh", "mjcf",
        lambda: _swap(DOG, ('fromto="0 0 -0.03 0 0 -0.16" size="0.02" mass="0.9"',
                            'fromto="0 0 -0.03 0 0 -0.16" size="0.13" mass="0.9"')),
    ),
    "looks that collide": (
        ("visual",), "middle", "mjcf",
        lambda: _swap(ARM, (' mass="0" contype="0" conaffinity="0" group="2"', ' mass="0.1"')),
    ),
    "damping that no timestep bears": (
        ("damping",), "bend", "mjcf",
        lambda: _swap(ARM, ('damping="0.5" armature="0.05"', 'damping="0" armature="0"'),
                      ('kp="100" kv="10" ctrlrange="-2 2" forcerange="-30 30"',
                       'kp="1000" kv="300" ctrlrange="-2 2" forcerange="-30 30"')),
    ),
    "damping in N m s per degree": (
        ("damping", "rest"), "bend", "mjcf", lambda: _swap(ARM, ('damping="0.5"', 'damping="500"')),
    ),
    "a spring that the timestep cannot bear": (
        ("rest",), "", "mjcf",
        lambda: _swap(ARM, ("<asset>", '<option timestep="0.01" integrator="Euler"/><asset>'),
                      ('name="lift" axis="0 -1 0"', 'name="lift" stiffness="200000" axis="0 -1 0"')),
    ),
    "motors too weak to stay": (
        ("rest",), "lift", "mjcf",
        lambda: _swap(ARM, ('ctrlrange="-0.5 2" forcerange="-60 60"', 'ctrlrange="-0.5 2" forcerange="-2 2"')),
    ),
    "a keyframe beyond the limits": (
        ("keyframe",), "home", "mjcf", lambda: _swap(DOG, (_JOINTS, _JOINTS.replace("-1.6", "1.6"))),
    ),
    "a keyframe of another model": (("keyframe",), "", "mjcf", lambda: _swap(DOG, (f" {_JOINTS}", " 0 0.8 -1.6"))),
    "a keyframe in the ground": (
        ("keyframe",), "home", "mjcf", lambda: _swap(DOG, (f"{HEIGHT_M:.4f}", "0.15")),
    ),
    "nothing that collides": (
        ("collision",), "robot", "mjcf",
        lambda: DOG.replace("<joint damping", '<geom contype="0" conaffinity="0"/><joint damping'),
    ),
    "commands in degrees": (
        ("units",), "lift", "mjcf", lambda: _swap(ARM, ('ctrlrange="-0.5 2"', 'ctrlrange="-30 115"')),
    ),
    "a mass in grams": (("units",), "trunk", "mjcf", lambda: _swap(DOG, ('mass="6"', 'mass="6000"'))),
    "a servo without gain": (("gain",), "bend", "mjcf", lambda: _swap(ARM, ('kp="100" kv="10"', 'kp="0" kv="10"'))),
}  # fmt: skip
