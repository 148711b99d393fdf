"""How the episodes of a hand with a cube begin."""

from __future__ import annotations

import math

import mujoco
import pytest

from conftest import build
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
