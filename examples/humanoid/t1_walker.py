"""A Booster T1 as holosoma trains it, so that policies of theirs play in simreal's worlds. See docs/engines.md.

The robot is in that package; gains and limits are those of t1_29dof_waist_wrist in its config_values/robot.py (0.0.3).
"""

import importlib.util
from pathlib import Path

import mujoco
import torch
from torch import Tensor

import simreal

SIDES = ("left", "right")
ARM = {"Shoulder_Pitch": (0.2, 0.2), "Shoulder_Roll": (-1.35, 1.35), "Elbow_Yaw": (-0.5, 0.5)}  # rad, left and right
ARM_JOINTS = ("Shoulder_Pitch", "Shoulder_Roll", "Elbow_Pitch", "Elbow_Yaw", "Wrist_Pitch", "Wrist_Yaw", "Hand_Roll")
# Of each joint: angle when it stands, stiffness and damping (N m/rad, N m s/rad), largest torque (N m), speed (rad/s).
LEG = (("Hip_Pitch", -0.2, 200.0, 5.0, 45.0, 12.5), ("Hip_Roll", 0.0, 200.0, 5.0, 30.0, 10.9),
       ("Hip_Yaw", 0.0, 200.0, 5.0, 30.0, 10.9), ("Knee_Pitch", 0.4, 200.0, 5.0, 60.0, 11.7),
       ("Ankle_Pitch", -0.25, 50.0, 3.0, 12.0, 18.8), ("Ankle_Roll", 0.0, 50.0, 3.0, 12.0, 12.4))  # fmt: skip
JOINTS = (
    *((name, 0.0, 5.0, 0.5, 7.0, 12.56) for name in ("AAHead_yaw", "Head_pitch")),
    *((f"{side.title()}_{name}", ARM.get(name, (0.0, 0.0))[i], 20.0, 0.5, 18.0, 18.84)
      for i, side in enumerate(SIDES) for name in ARM_JOINTS),
    ("Waist", 0.0, 200.0, 5.0, 30.0, 10.88),
    *((f"{side.title()}_{name}", *numbers) for side in SIDES for name, *numbers in LEG),
)  # fmt: skip


def t1() -> mujoco.MjSpec:
    found = importlib.util.find_spec("holosoma")  # imports nothing: its data is enough
    for folder in (found and found.submodule_search_locations) or ():
        file = Path(folder, "data/robots/t1/t1_29dof.xml")
        if file.is_file():
            return mujoco.MjSpec.from_file(str(file))
    raise simreal.TaskError("t1_walker: no robot of holosoma; expected pip install --no-deps holosoma==0.0.3")


class T1Walker(simreal.LeggedVelocity):
    """Walk as a velocity command says, with legs, waist, arms and head, at 50 Hz."""

    def __init__(self, command_limits: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
        names, stance, stiffness, damping, effort, speed = zip(*JOINTS, strict=True)
        feet = tuple(simreal.Foot(side, f"{side}_foot_link", (0.01, 0.0, -0.03), radius_m=0.01) for side in SIDES)
        robot = simreal.LeggedRobot(
            t1, "Trunk", feet, names, stance, 0.67, stiffness, damping, effort, (2.5,) * 29, speed, (0.03,) * 29
        )
        super().__init__(robot, simreal.Gait((("left",), ("right",)), period_s=1.0), command_limits=command_limits)
        elements = ("sin_left", "sin_right", "cos_left", "cos_right")
        phases = simreal.Component("phases", 4, "1", "world", elements, measured=False, description="of the feet")
        self.observation, self.mirror = (*self.observation, phases), None

    def observe(self) -> Tensor:
        seen = super().observe()
        sin, cos = seen[:, -2:-1], seen[:, -1:]  # gait_clock: the left foot's; the right one is half a period behind
        stands = torch.linalg.vector_norm(self.command_velocity, dim=1, keepdim=True) < 0.01
        phases = torch.cat((sin, -sin, cos, -cos), dim=1)
        return torch.cat((seen, torch.where(stands, phases.new_tensor([0.0, 0.0, -1.0, -1.0]), phases)), dim=1)
