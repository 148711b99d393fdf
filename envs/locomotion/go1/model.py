"""The Unitree Go1 of MuJoCo Menagerie as `go1` simulates it: its legs, stance and motors."""

from __future__ import annotations

from functools import partial

from envs.locomotion.legged.gait import Gait
from envs.locomotion.legged.robot import Foot, LeggedRobot
from envs.platform.menagerie import load_robot

ROBOT = "unitree_go1"

FEET = ("FR", "FL", "RR", "RL")  # front right, front left, rear right, rear left: the order of the machine's interface
LEG_JOINTS = ("hip", "thigh", "calf")  # abduction, hip, knee
JOINTS = tuple(f"{foot}_{joint}_joint" for foot in FEET for joint in LEG_JOINTS)
ACTUATORS = tuple(f"{foot}_{joint}" for foot in FEET for joint in LEG_JOINTS)
FOOT_RADIUS_M = 0.023

# Standing, with the feet under the hips (rad).
STANCE = tuple(value for foot in FEET for value in (0.1 if foot.endswith("L") else -0.1, 0.9, -1.8))
STANCE_HEIGHT_M = 0.278

# The machine's motors (unitree_ros, go1.urdf): rotor inertia, and gears that the knee's linkage makes 1.5 times slower.
_ROTOR_INERTIA = 1.11842e-4  # kg m^2
ARMATURE = tuple(_ROTOR_INERTIA * gear**2 for _ in FEET for gear in (6.0, 6.0, 9.0))  # as joints feel it, kg m^2
EFFORT_NM = (23.7, 23.7, 35.55) * 4
SPEED_RAD_S = (30.1, 30.1, 20.06) * 4
# Gains of the joints' controllers. With less stiffness the machine does not stand when it holds still (25 N m/rad: the
# trunk sags by 10 cm; 20: it falls); published controllers of the Go1 use 20 to 40 N m/rad and 0.5 to 1 N m s/rad.
# Torque = KP (target - q) - KD qvel, within +-EFFORT_NM.
KP = 35.0  # N m/rad
KD = 0.8  # N m s/rad

GO1 = LeggedRobot(
    file=partial(load_robot, ROBOT),
    base="trunk",
    feet=tuple(Foot(name, f"{name}_calf", radius_m=FOOT_RADIUS_M, shapes=(name,)) for name in FEET),
    joints=JOINTS,
    stance=STANCE,
    height_m=STANCE_HEIGHT_M,
    stiffness=(KP,) * 12,
    damping=(KD,) * 12,
    effort=EFFORT_NM,
    scale=(0.4, 0.8, 0.8) * 4,
    speed=SPEED_RAD_S,
    armature=ARMATURE,
)
TROT = Gait(groups=(("FR", "RL"), ("FL", "RR")), clearance_m=0.08)
