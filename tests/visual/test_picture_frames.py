"""Pictures for networks: the fast renderer against the plain one, and folders of frames."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_visual import ALL, ROOM

from conftest import TinyTask, build, fixed_worlds
from randomization.catalogue.visual import VISUAL
from randomization.config import randomization_config
from randomization.parameters import RandomizationError
from randomization.visual.textures import PATTERNS, UNSEEN, pattern
from shortcuts import with_small_chunks
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.vision.datasets import command
from simreal.vision.datasets.folder import PictureFolder
from simreal.vision.datasets.maker import ChunkMaker
from simreal.vision.datasets.plan import Chunking, PicturePlan, worlds_of
from simreal.vision.datasets.workers import ChunkSource
from simreal.vision.rendering.frames import FrameRenderer
from simreal.vision.rendering.offscreen import Offscreen, Quality
from simreal.vision.rendering.scene import Scene

pytestmark = pytest.mark.usefixtures("can_render")
FAST = {k: v for k, v in ALL.items() if k not in ("light_shadow", "material_reflectance", "image_noise")}
PLAN = PicturePlan(
    "FetchReach-v4", ("view",), 24, 16, seed=3,
    randomization={"parameters": {"material_hue": {}, "camera_fov": {}, "body_mass": {"range": [0.5, 2.0]}}},
)  # fmt: skip


def _like_the_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Scene` draw with the settings of `FrameRenderer`: what is left is how it gets there."""
    plain = Offscreen.__init__

    def made(self: Offscreen, *args: Any, **options: Any) -> None:
        plain(self, *args, **options | {"quality": Quality()})
        self.scene.flags[0] = 0
        self.option.sitegroup[:] = 0

    monkeypatch.setattr(Offscreen, "__init__", made)


def test_the_fast_renderer_draws_what_the_plain_one_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    task = TinyTask(ROOM)
    worlds = [
        [q.nominal for q in VISUAL if q.name in FAST],
        [0.5 * (q.default_range[1]) for q in VISUAL if q.name in FAST],
    ]
    environment = build(task, 2, fixed_worlds(task, FAST, worlds))
    environment.step(torch.ones(2, task.action_size))
    rows, lam = torch.arange(2), environment.layer.lam  # pyright: ignore[reportAttributeAccessIssue]
    fast = FrameRenderer(environment, ("view", "front"), 64, 48, environment.layer.parameters, environment.rng)  # pyright: ignore
    found = fast.take(rows, lam)
    assert found.shape == (2, 2, 48, 64, 3)
    _like_the_fast_one(monkeypatch)
    for c, camera in enumerate(("view", "front")):
        scene = Scene(environment, 64, 48, camera)
        for i in range(2):
            np.testing.assert_array_equal(found[i, c], scene.picture(i))
        scene.close()
    assert (found[0] != found[1]).mean() > 0.1
    fast.close()


def test_a_model_that_differs_between_environments_is_drawn_as_it_is() -> None:
    task = TinyTask(ROOM)
    environment = build(task, 2, fixed_worlds(task, {"geom_size": {"of": "box*"}}, [[1.0], [1.5]]))
    renderer = FrameRenderer(environment, ("view",), 48, 48, [], environment.rng)
    small, large = renderer.take(torch.arange(2), torch.zeros(2, 0))
    renderer.close()
    assert (small != large).any()


def test_a_robots_camera_does_not_see_the_goal() -> None:
    plan = replace(PLAN, task="FetchPush-v4", width=64, height=64, randomization={})
    maker = ChunkMaker(plan)
    maker.chunking = Chunking(2, 1, 1)
    one = maker.chunk(0).pictures
    assert maker._environment is not None
    maker._environment.task.goal += 0.1
    rows = torch.arange(2)
    np.testing.assert_array_equal(maker._renderer.take(rows, torch.zeros(2, 0)), one)
    maker.close()


def test_frames_depend_on_seed_and_number_alone() -> None:
    maker = ChunkMaker(PLAN)
    maker.chunking = Chunking(3, 2, 2)
    first, second = maker.chunk(0), maker.chunk(1)
    again = ChunkMaker(PLAN)
    again.chunking = maker.chunking
    other = again.chunk(1)
    np.testing.assert_array_equal(other.pictures, second.pictures)
    for name, values in second.states.items():
        np.testing.assert_array_equal(other.states[name], values)
    np.testing.assert_array_equal(other.worlds, second.worlds)
    assert (first.pictures != second.pictures).any()
    assert len(np.unique(first.worlds[:, 1])) == 6  # every frame has a look of its own ...
    assert len(np.unique(first.worlds[:, 0])) == 3  # ... and every episode its physics
    for one in (maker, again):
        one.close()


@pytest.mark.slow
def test_processes_render_what_one_renders() -> None:
    alone, beside = ChunkSource(PLAN, 0), ChunkSource(PLAN, 2)
    frames = [list(source.frames(0, 272)) for source in (alone, beside)]  # a chunk, and a step of the next one
    assert [len(chunk.worlds) for chunk in frames[0]] == [256, 16]
    for one, other in zip(*frames, strict=True):
        np.testing.assert_array_equal(one.pictures, other.pictures)
        np.testing.assert_array_equal(one.worlds, other.worlds)
    for source in (alone, beside):
        source.close()


def test_a_stretch_of_frames_is_an_episode() -> None:
    chunking = Chunking(3, 2, 2)
    assert [chunking.episode_of(i) for i in range(12)] == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]


def test_few_pictures_of_an_episode_show_many_episodes() -> None:
    whole, few = ChunkMaker(PLAN), ChunkMaker(replace(PLAN, per_episode=2))
    assert (whole.chunking, few.chunking) == (Chunking(16, 16, 3), Chunking(128, 2, 3))
    few.chunking = Chunking(8, 2, 3)
    chunk = few.chunk(0)
    assert len(np.unique(chunk.worlds[:, 0])) == 8  # physics of as many episodes
    few.close()


def _render(folder: Path, *more: str, frames: int = 40) -> None:
    main(["render", "FetchReach-v4", "--frames", str(frames), "--output", str(folder), "--size", "24x16", "--seed", "3",
          "--workers", "0", "--randomization", str(folder.parent / "worlds.yaml"), *more])  # fmt: skip


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_small_chunks(monkeypatch)
    (tmp_path / "worlds.yaml").write_text("randomization: {parameters: {material_hue: {}, image_noise: {}}}\n")


@pytest.mark.usefixtures("small_chunks")
def test_what_was_stopped_goes_on_and_ends_like_what_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _render(tmp_path / "whole")
    monkeypatch.setattr(command, "_SAVED_EVERY_S", 0.0)
    chunk = ChunkMaker.chunk

    def stops(self: ChunkMaker, number: int, pictures: int | None = None) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return chunk(self, number, pictures)

    with monkeypatch.context() as patch:
        patch.setattr(ChunkMaker, "chunk", stops)
        with pytest.raises(SystemExit):
            _render(tmp_path / "stopped")
    assert json.loads((tmp_path / "stopped" / "progress.json").read_text())["done"] == 32
    with pytest.raises(UserError, match="not finished"):
        PictureFolder.open(tmp_path / "stopped")
    _render(tmp_path / "stopped", "--resume")
    files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.*"))
    assert len(files) > 5
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "stopped" / file).read_bytes(), file
    _render(tmp_path / "fewer", frames=20)
    whole, fewer = (PictureFolder.open(tmp_path / name) for name in ("whole", "fewer"))
    np.testing.assert_array_equal(whole.pictures(np.arange(20)), fewer.pictures(np.arange(20)))
    np.testing.assert_array_equal(whole.state("grip_pos")[:20], fewer.state("grip_pos"))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--camera", "head_camera_rg"], "no camera 'head_camera_rg' (did you mean 'head_camera_rgb'"),
        (["--camera", "view", "--camera", "view"], "each once"),
        (["--states", "nowhere"], "--states: nowhere: no such run"),
        (["--size", "4"], "8 to 1024 pixels"),
        (["--size", "x"], "WIDTHxHEIGHT"),
        (["--randomization", "none.yaml"], "none.yaml: no such file"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_wrong_input_is_told_before_anything_is_written(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        _render(tmp_path / "out", *arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_chunks")
def test_frames_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _render(tmp_path / "out", frames=16)
    before = (tmp_path / "out" / "view.npy").read_bytes()
    for more in ([], ["--resume"]):
        with pytest.raises(SystemExit):
            _render(tmp_path / "out", *more, frames=32)
        assert "holds finished pictures" in capsys.readouterr().err
    assert (tmp_path / "out" / "view.npy").read_bytes() == before


def test_ranges_that_widen_are_of_looks_only() -> None:
    task = TinyTask(ROOM)
    block = randomization_config(
        {"sampler": "adr", "parameters": {"material_hue": {}, "body_mass": {"range": [0.5, 2]}}}
    )
    with pytest.raises(RandomizationError, match="body_mass is no quantity of pictures"):
        worlds_of(task, block)
    found = worlds_of(task, randomization_config({"sampler": "manual", "parameters": dict(block.parameters)}))
    assert [p.name for p in found.parameters] == ["body_mass", "material_hue"]


def test_patterns_that_no_training_is_given_are_others() -> None:
    known = {pattern(k).tobytes() for k in range(PATTERNS)}
    assert len(known | {pattern(UNSEEN + k).tobytes() for k in range(PATTERNS)}) == 2 * PATTERNS
