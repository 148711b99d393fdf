"""Pictures and videos through other libraries' recorders."""

from __future__ import annotations

from typing import Any

import pytest

import simreal


@pytest.mark.usefixtures("can_render")
def test_stable_baselines3_gets_a_picture_of_each_environment() -> None:
    pytest.importorskip("stable_baselines3")
    from simreal.gym.sb3 import as_sb3

    made: dict[str, Any] = {"max_episode_steps": 5, "threads": 1}
    envs: Any = as_sb3(simreal.make_vec("Hopper-v5", 2, render_mode="rgb_array", render_size=(48, 32), **made))
    envs.reset()
    assert [picture.shape for picture in envs.get_images()] == [(32, 48, 3)] * 2
    assert envs.render(mode="rgb_array").shape[2] == 3  # tiled
    assert envs.metadata["render_fps"] == 125
    assert as_sb3(simreal.make_vec("Hopper-v5", 2, **made)).get_images() == [None, None]
