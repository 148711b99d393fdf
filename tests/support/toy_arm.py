"""Bundles of a small arm with random policies, and a controller of a robot of that arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from envs.parts.actions import JointPosition
from envs.parts.observations import Command, JointState, LastAction, LastTarget
from shortcuts import made_once
from simreal.deploy import Controller, Policy
from simreal.export.bundle import export_bundle
from small_arm import SmallArm
from toy_robot import Clock, ToyRobot

NAME, PERIOD = "joint_target", 0.02
DELAYS = {"parameters": [
    {"name": "lag", "quantity": "action_delay", "targets": [], "unit": "ms", "lower": 0, "upper": 20},
    {"name": "slow", "quantity": "observation_delay", "targets": ["joint_vel"], "unit": "ms", "lower": 0, "upper": 40},
]}  # fmt: skip


def arm_bundles(factory: pytest.TempPathFactory, restless: float = 1.0) -> Path:
    """A folder of two bundles: "smooth" begins at 0 and goes 0.7 of the way, "steps" adds to the last target.

    Args:
        factory: of pytest.
        restless: what weights are multiplied by.
    """

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        seen = [JointState(), LastAction(), LastTarget(), Command("wanted", (-1.0,), (1.0,), "m/s")]
        for kind, spec in (
            ("smooth", JointPosition(smoothing=0.7, start="offset")),
            ("steps", JointPosition(scale=0.3, relative="target", start="joint")),
        ):
            policy, golden = nn.Linear(13, 3), torch.randn(2, 13)
            policy.weight.data *= restless
            export_bundle(policy, SmallArm(spec, seen), folder / kind, observations=golden, randomization=DELAYS)

    return made_once(factory, f"arms-{restless:g}", make)


def control(policy: Policy, at: Any = (0.0, 0.0, 0.0), **more: Any) -> tuple[Controller, ToyRobot, Clock]:
    """A controller of a robot of that arm, whose joints are `at`, on a clock that stands still."""
    clock = Clock()
    robot = ToyRobot(policy, clock, {NAME: at})
    more = {"inputs": {"wanted": [0.3]}} | clock.times() | more
    return Controller(policy, robot, **more), robot, clock


def kinds(controller: Controller) -> list[str]:
    """What happened."""
    return [event.kind for event in controller.events]
