"""Disturbances act in the world, whatever the frames of a model's bodies: a model that is turned and whose joints are
turned back moves in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from conftest import TinyTask, build, fixed_worlds
from randomization.targets.names import object_places
from randomization.targets.objects import horizontal_dofs

N, STEPS = 48, 12
TURNS = {
    "as it is": (1.0, 0.0, 0.0, 0.0),
    "y up": (0.5**0.5, 0.5**0.5, 0.0, 0.0),
    "upside down": (0.0, 1.0, 0.0, 0.0),
    "askew": (0.8, -0.2, 0.4, 0.4),
}
FREE = """<mujoco><option timestep="0.002" gravity="0 0 0"/>
  <worldbody><body name="trunk"><freejoint/><geom size=".1" mass="2"/></body></worldbody></mujoco>"""
PUSHES = {"push_velocity": {"range": [0, 9]}, "push_interval": {"range": [0.05, 9]}}


def into_frame(turn: Sequence[float], vector: Sequence[float]) -> str:
    """A vector of the world in a frame that is turned, as MJCF writes it."""
    back, result = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(back, np.asarray(turn) / np.linalg.norm(turn))
    mujoco.mju_rotVecQuat(result, np.asarray(vector, dtype=float), back)
    return " ".join(f"{v:.17g}" for v in result)


def planar(
    turn: Sequence[float], *axes: Sequence[float], parent: Sequence[float] = (1, 0, 0, 0), more: str = ""
) -> str:
    """A body in a turned frame, beneath a static one that is turned too, that slides along axes of the world."""
    both = np.zeros(4)
    mujoco.mju_mulQuat(both, np.asarray(parent, dtype=float), np.asarray(turn, dtype=float))
    back = np.zeros(4)
    mujoco.mju_negQuat(back, both / np.linalg.norm(both))  # the shape lies in the world as it always does
    slides = "".join(f'<joint type="slide" axis="{into_frame(both.tolist(), axis)}"/>' for axis in axes)
    quat = lambda q: " ".join(f"{v:.17g}" for v in q)  # noqa: E731
    return f"""<mujoco><option timestep="0.002" gravity="0 0 0"/><worldbody>
      <body name="mount" quat="{quat(parent)}"><body name="trunk" quat="{quat(turn)}">{slides}{more}
      <geom type="box" size=".1 .2 .3" quat="{quat(back)}" mass="2" contype="0"/></body></body></worldbody></mujoco>"""


def moved(xml: str, body: str, entries: dict[str, Any], world: list[float]) -> torch.Tensor:
    """Where a body goes within a few control steps, [N, 3] in the world."""
    task = TinyTask(xml, max_episode_steps=1000)
    env = build(task, N, fixed_worlds(task, entries, [world] * N))
    index = int(mujoco.mj_name2id(task.model, mujoco.mjtObj.mjOBJ_BODY, body))
    start = env.engine.data("xipos")[:, index].clone()
    for _ in range(STEPS):
        env.step(torch.zeros(N, task.action_size))
    return env.engine.data("xipos")[:, index] - start


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize(
    ("axes", "reach"),
    [
        ([(0, 0, 1), (0, 1, 0)], (0, 1)),
        ([(1, 0, 0), (0, 0, 1)], (1, 0)),
        ([(1, 0, 1), (1, 0, -1)], (1, 0)),  # only together along the ground
        ([(1, 0, 0), (1, 1, 0)], (1, 1)),
        ([(0, 1, 0), (1, 2, 3), (0, 0, 1)], (1, 1)),
        ([(1, 0, 0)], (1, 0)),
    ],
)
@pytest.mark.parametrize("parent", [TURNS["as it is"], TURNS["askew"]], ids=["", "beneath a turned mount"])
def test_a_push_goes_along_the_ground_as_far_as_the_slides_reach(
    turn: tuple[float, ...], axes: list[tuple[float, ...]], reach: tuple[int, int], parent: tuple[float, ...]
) -> None:
    expected = moved(FREE, "trunk", PUSHES, [1.0, 0.1])
    assert float(expected[:, :2].abs().min(dim=0).values.min()) > 0  # pushed in every direction
    assert not expected[:, 2].any()
    found = moved(planar(turn, *axes, parent=parent), "trunk", PUSHES, [1.0, 0.1])
    expected = expected * torch.tensor([*reach, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize(
    ("entries", "world"),
    [
        ({"force_size": {"range": [0, 9]}, "force_probability": {"range": [0, 1]}}, [2.0, 0.5]),
        ({"base_acceleration": {"range": [0, 9]}}, [3.0]),
        ({"gravity": {"of": "z"}}, [-0.4]),
        ({"wind": {"of": "y"}, "air_density": {}}, [2.0, 1.2]),
    ],
    ids=["forces", "base", "gravity", "wind"],
)
def test_what_acts_in_the_world_does_not_ask_how_frames_are_turned(
    turn: tuple[float, ...], entries: dict[str, Any], world: list[float]
) -> None:
    every = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    plain = moved(planar(TURNS["as it is"], *every), "trunk", entries, world)
    assert float(plain.abs().max()) > 1e-6
    torch.testing.assert_close(moved(planar(turn, *every), "trunk", entries, world), plain, atol=1e-9, rtol=0)


@pytest.mark.parametrize("turn", [TURNS["as it is"], TURNS["askew"]], ids=["as it is", "askew"])
def test_of_bodies_that_are_welded_together_one_is_pushed_once(turn: tuple[float, ...]) -> None:
    quat = " ".join(map(str, turn))
    frame = f"""<mujoco><option timestep="0.002" gravity="0 0 0"/><worldbody>
      <body name="base" quat="{quat}"><freejoint/>
      <body name="base_link" pos=".1 0 0"><geom size=".1" mass="2"/><body name="imu"><geom size=".01" mass=".1"/></body>
      </body></body></worldbody></mujoco>"""
    assert list(object_places(TinyTask(frame), "floating body")) == ["base_link"]
    found = moved(frame, "base_link", PUSHES, [1.0, 0.1])
    torch.testing.assert_close(found, moved(FREE, "trunk", PUSHES, [1.0, 0.1]), atol=1e-9, rtol=0)


def dofs(xml: str, body: str = "trunk") -> list[tuple[int, tuple[float, float]]]:
    model = mujoco.MjModel.from_xml_string(xml)
    return horizontal_dofs(model, mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, body))


def test_what_cannot_be_pushed_along_the_ground_is_not_offered() -> None:
    same = TURNS["as it is"]
    assert dofs(planar(same, (1, 0, 1))) == []  # a steep rail
    assert dofs(planar(same, (0, 0, 1))) == []  # a lift
    assert (
        dofs(planar(same, more='<joint axis="0 0 1"/><joint type="slide" axis="1 0 0"/>')) == []
    )  # turns with a hinge
    assert dofs(planar(same)) == []  # does not move
    assert dofs(planar(same, (1, 0, 0), (0, 0, 1))) == [(0, (1.0, 0.0))]
    handle = planar(same, (1, 0, 0)).replace('<body name="mount"', '<body name="mount" mocap="true"')
    assert dofs(handle) == []  # turns with a handle
