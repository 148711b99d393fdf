"""Go1Velocity-v0: a Unitree Go1 walks as a velocity command says, on flat, rough or graded ground.

What it observes, does and succeeds in is that of `envs.locomotion.legged.velocity`, at 50 Hz, with the twelve joints in
the order FR, FL, RR, RL; hip, thigh, calf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import mujoco

from envs.locomotion.go1.model import GO1, ROBOT, TROT
from envs.locomotion.legged.ground import ROUGHNESS_M, Terrain
from envs.locomotion.legged.model import build_model
from envs.locomotion.legged.rewards import GO1_WEIGHTS
from envs.locomotion.legged.velocity import LeggedVelocity
from envs.platform.menagerie import robot_path

REWARD_WEIGHTS = GO1_WEIGHTS


class Go1VelocityTask(LeggedVelocity):
    """A Go1 that follows velocity commands.

    Args:
        terrain: "flat", "rough", or with levels "slopes", "stairs", "stones".
        roughness_m: height of the bumps of rough ground.
        command_limits: largest forward, lateral (m/s) and turning velocity (rad/s) commanded.
        success_errors: largest mean errors of an episode that succeeds, m/s and rad/s.
        reward_weights: other weights than `REWARD_WEIGHTS`, per second.
        figures: report what the gait is like, beside the terms of the reward.
        difficulty: of ground with levels, from 0 to 1; None: any.
        curriculum: levels rise with success and fall with falls.

    Raises:
        ModelUnavailableError: the robot's model cannot be had.
        ValueError: an unknown terrain or reward.
    """

    id = "Go1Velocity-v0"
    weights = REWARD_WEIGHTS
    lowest_share, start_rad, start_lift = 0.0, 0.1, 0.0
    draws = ("go1", "go1_command")
    evaluation_options: ClassVar = {"figures": True}

    def __init__(
        self,
        terrain: Terrain = "flat",
        roughness_m: float = ROUGHNESS_M,
        command_limits: tuple[float, float, float] = (1.0, 0.5, 1.0),
        success_errors: tuple[float, float] = (0.25, 0.35),
        reward_weights: Mapping[str, float] | None = None,
        figures: bool = False,
        difficulty: float | None = None,
        curriculum: bool = False,
    ) -> None:
        self.figures = figures
        super().__init__(
            GO1, TROT, terrain, roughness_m, command_limits, success_errors, reward_weights,
            difficulty=difficulty, curriculum=curriculum,
        )  # fmt: skip
        self.render_camera = self.render_camera | {"distance": 1.8}

    def compiled(self, full: Sequence[int] = ()) -> mujoco.MjModel:
        return build_model(GO1, self.terrain, self.roughness_m, full, version=str(robot_path(ROBOT)))
