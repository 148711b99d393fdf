"""An arm of two joints, sound or with one physical defect."""

from __future__ import annotations

_ARM = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="{timestep}" integrator="{integrator}"/>
  <worldbody>
    <light pos="0 0 3"/>
    <geom name="floor" type="plane" size="2 2 .1"/>
    <body name="upper" pos="0 0 {height}">
      <joint name="shoulder" axis="0 1 0" range="-2 2" damping="0.5" armature="0.05" stiffness="{stiffness}"/>
      <geom name="upper" type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass="1"/>
      <body name="lower" pos=".3 0 0">
        <joint name="elbow" axis="0 1 0" range="-2 2" damping="{damping}" armature="{armature}"
          frictionloss="{friction}"/>
        <geom name="lower" type="capsule" fromto="0.07 0 0 {reach} 0 0" size=".02" mass="{mass}"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="lift" joint="shoulder" kp="200" kv="20" ctrlrange="-2 2" {lift}/>
    {bend}
  </actuator>
</mujoco>
"""


def arm(
    timestep: float = 0.002,
    integrator: str = "implicitfast",
    height: float = 1.0,
    stiffness: float = 0.0,
    damping: float = 0.2,
    armature: float = 0.02,
    friction: float = 0.0,
    reach: float = 0.25,
    mass: float = 0.3,
    lift: str = "",
    bend: str = '<position name="bend" joint="elbow" kp="50" kv="4" ctrlrange="-2 2"/>',
) -> str:
    """The arm as MJCF."""
    return _ARM.format(**locals())


def _bend(kind: str, rest: str) -> str:
    return f'<{kind} name="bend" joint="elbow" {rest}/>'


# Kind of finding, what it names, a word of its remedy, and the model.
DEFECTS: dict[str, tuple[str, str, str, str]] = {
    "no rotor behind strong damping": (
        "sign_flips", "elbow", "armature",
        arm(damping=0.0, armature=0.0, reach=0.1, mass=0.05,
            bend=_bend("position", 'kp="800" kv="80" ctrlrange="-2 2" forcerange="-20 20"')),
    ),
    "weak motor": ("saturated", "lift", "forcerange", arm(lift='forcerange="-1 1"')),
    "servo too weak for the arm": (
        "does_not_arrive", "lift", "kp", arm().replace('kp="200" kv="20"', 'kp="3" kv="1"'),
    ),
    "dry friction": ("does_not_arrive", "bend", "frictionloss", arm(friction=60.0)),
    "damping far beyond stiffness": (
        "does_not_arrive", "bend", "damping", arm(bend=_bend("position", 'kp="50" kv="400" ctrlrange="-2 2"')),
    ),
    "gear of a truck": (
        "too_fast", "elbow", "gear",
        arm(damping=0.0, armature=0.0, bend=_bend("motor", 'gear="200" ctrlrange="-1 1"')),
    ),
    "arm in the floor": ("penetration", "floor", "start", arm(height=0.01)),
    "undamped servo": (
        "control_period", "bend", "kv", arm(damping=0.02, bend=_bend("position", 'kp="500" ctrlrange="-2 2"')),
    ),
    "motor that pushes along": (
        "energy", "bend", "kv",
        arm(damping=0.05, bend=_bend("general", 'gainprm="1" biastype="affine" biasprm="0 0 .5" ctrlrange="-1 1"')),
    ),
    "damping below zero that a second of rest does not show": (
        "energy", "elbow", "positive", arm(damping=-0.02, bend=_bend("position", 'kp="50" ctrlrange="-2 2"')),
    ),
    "spring too stiff for the timestep": (
        "energy", "shoulder", "timestep", arm(timestep=0.01, integrator="Euler", stiffness=20_000.0),
    ),
    "motor without effect": (
        "does_not_arrive", "bend", "gear", arm(bend=_bend("motor", 'gear="0" ctrlrange="-1 1"')),
    ),
}  # fmt: skip
