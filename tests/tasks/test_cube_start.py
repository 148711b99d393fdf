"""How the episodes of a hand with a cube begin, and when they end at the latest."""

from __future__ import annotations

import math

import mujoco
import pytest
import torch

from conftest import build
from envs.common.errors import UnknownOptionError
from envs.registry import make_task
from robots import skipping_missing


@pytest.mark.parametrize("task_id", ["AllegroCube-v0", "ShadowCube-v0"])
def test_cubes_start_outside_the_hand_at_every_angle(task_id: str) -> None:
    with skipping_missing():
        task = make_task(task_id, goals="spin")
    environment = build(task, 64)
    cube = task.model.geom("cube").id
    yaws = []
    for i in range(64):
        _, data = environment.engine.export_to_mujoco(i)
        mujoco.mj_forward(task.model, data)
        depths = [c.dist for c in data.contact[: data.ncon] if cube in (c.geom1, c.geom2)]
        assert min(depths, default=0.0) > -2e-3
        w, _, _, z = data.qpos[-4:]
        yaws.append(2.0 * math.degrees(math.atan2(z, w)))
    assert min(yaws) < -35.0
    assert max(yaws) > 35.0


def test_episodes_last_as_long_as_they_are_asked_to() -> None:
    with skipping_missing():
        environment = build(make_task("AllegroCube-v0", episode_s=2), 1)
        assert make_task("AllegroCube-v0").max_episode_steps == 1200
    ends = [environment.step(torch.zeros(1, 16)).truncated.item() for _ in range(40)]
    assert ends == [False] * 39 + [True]
    for wrong in (0, 3601):
        with pytest.raises(UnknownOptionError, match=rf"episode_s: expected 1 to 3600 s, got {wrong}"):
            make_task("AllegroCube-v0", episode_s=wrong)
