"""A robot arm from its MJCF to a policy: a UFactory xArm7 brings its flange to a random point. See docs/arm.md."""

import torch
from torch import Tensor

import simreal

HOME = (0.0, -0.247, 0.0, 0.909, 0.0, 1.15644, 0.0)  # rad
SCALE = (0.9, 0.7, 0.5, 0.7, 0.5, 0.7, 0.5)  # rad
LOW, HIGH = (0.30, -0.25, 0.15), (0.55, 0.25, 0.50)  # m, where goals are


class ArmReach(simreal.ComposedTask):
    """Bring the flange of an xArm7 to a random point, at 20 Hz.

    Args:
        tolerance: distance at which the point counts as reached, m.
        smoothing: share of the way to a new target that the command goes in a control step.
    """

    decimation, max_episode_steps = 25, 60  # 25 * 0.002 s; 3 s

    def __init__(self, tolerance: float = 0.02, smoothing: float = 0.4) -> None:
        self.tolerance = tolerance
        spec = simreal.load_robot("ufactory_xarm7", scene=True)  # or mujoco.MjSpec.from_file("my_arm.xml")
        for joint in spec.joints:
            joint.armature = 0.1  # kg m2, of rotors: without them servos are unstable at this timestep (simreal check)
        tool = simreal.BodyPose("attachment_site", name="tool")
        self.compose(
            simreal.compile_spec(spec),
            actions=simreal.JointPosition(SCALE, offset=HOME, smoothing=smoothing),
            observations=[simreal.JointState(), simreal.LastTarget(), tool, simreal.Goal("attachment_site")],
        )

    def start(self, mask: Tensor) -> None:
        joints = self.tensor(HOME) + 0.3 * (2.0 * self.rng.episode_uniform("start", 7) - 1.0)
        low, high = self.tensor(LOW), self.tensor(HIGH)
        self.write(mask, qpos=joints, goal=low + (high - low) * self.rng.episode_uniform("goal", 3))

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm(achieved - desired, dim=-1)
        return -distance - 0.1 * (distance > self.tolerance)

    def goal_success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return torch.linalg.vector_norm(achieved - desired, dim=-1) < self.tolerance
