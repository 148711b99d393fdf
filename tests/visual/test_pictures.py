"""Pictures of worlds: what is drawn, contact sheets, and what `simreal describe --image` says."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_visual import ALL, ROOM

import simreal
from conftest import TinyTask, build, fixed_worlds
from envs.environment import Environment
from randomization.catalogue.visual import VISUAL
from scripted import standing
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.evaluation.worlds import find_world
from simreal.vision.rendering import viewer
from simreal.vision.rendering.contact_sheet import contact_sheet, tiled, visual_block
from simreal.vision.rendering.scene import Scene

BLACK = np.zeros((64, 64, 3), dtype=np.uint8)


def _pictures(environment: Environment, **options: Any) -> list[np.ndarray]:
    scene = Scene(environment, 64, 64)
    pictures = [scene.picture(i, **options) for i in range(environment.num_envs)]
    scene.close()
    return pictures


@pytest.mark.usefixtures("can_render")
def test_the_nominal_world_gives_the_identical_picture() -> None:
    task = TinyTask(ROOM)
    (plain,) = _pictures(build(task, 1))
    nominal = [q.nominal for q in VISUAL]
    (dressed,) = _pictures(build(TinyTask(ROOM), 1, fixed_worlds(task, ALL, [nominal])))
    np.testing.assert_array_equal(dressed, plain)
    assert 20 < plain.mean() < 235


@pytest.mark.usefixtures("can_render")
def test_every_quantity_shows_in_the_picture_and_leaves_the_next_alone() -> None:
    worlds = [[q.nominal for q in VISUAL]]
    for i, q in enumerate(VISUAL):
        value = 0.5 if q.mode == "scale" else q.limits[1] if q.limits[1] <= 0.5 else 0.9
        if q.name == "light_position":  # a lamp far away and its shadow look alike from anywhere: move it far
            value = 3.0
        worlds += [[*worlds[0][:i], value, *worlds[0][i + 1 :]], worlds[0]]
    task = TinyTask(ROOM)
    first, *pictures = _pictures(build(task, len(worlds), fixed_worlds(task, ALL, worlds)))
    for q, changed, last in zip(VISUAL, pictures[::2], pictures[1::2], strict=True):
        np.testing.assert_array_equal(first, last, err_msg=q.name)
        assert (changed != first).mean() > 0.005, q.name


@pytest.mark.usefixtures("can_render")
def test_a_model_without_a_skybox_or_materials_gets_a_background_and_patterns() -> None:
    xml = ROOM[: ROOM.index("<asset>")] + ROOM[ROOM.index("</asset>") + 8 :]
    xml = xml.replace('material="ground"', "").replace('material="paint"', "")
    task = TinyTask(xml)
    entries = {"background_color": {}, "material_texture": {}}
    environment = build(task, 3, fixed_worlds(task, entries, [[0, 0], [1, 0], [0, 1]]))
    black, sky, patterned = _pictures(environment)
    assert black[0, 0].sum() == 0
    assert sky[0, 0].sum() > 0
    assert patterned[0, 0].sum() == 0
    assert (patterned != black).mean() > 0.2


@pytest.mark.usefixtures("can_render")
def test_noise_is_fresh_at_every_step_and_the_same_in_a_second_run() -> None:
    def run() -> list[np.ndarray]:
        task = TinyTask(ROOM)
        environment = build(task, 1, fixed_worlds(task, {"image_noise": {}}, [[0.1]]))
        pictures = _pictures(environment)
        environment.step(torch.zeros(1, 1))
        return pictures + _pictures(environment)

    one, other = run(), run()
    np.testing.assert_array_equal(one, other)
    assert (one[0] != one[1]).mean() > 0.8


@pytest.mark.usefixtures("can_render")
def test_a_vector_environment_renders_its_worlds() -> None:
    block = {"parameters": {"material_hue": {}, "material_saturation": {}, "light_direction": {}}}
    envs = simreal.make_vec("FetchReach-v4", 2, randomization=block, seed=3, render_mode="rgb_array", threads=1)
    envs.reset()
    pictures = envs.render()
    assert pictures is not None
    assert pictures[0].shape == (480, 480, 3)
    assert (pictures[0] != pictures[1]).mean() > 0.02
    envs.close()


@pytest.mark.usefixtures("can_render")
def test_a_camera_of_the_model_can_be_used_and_an_unknown_one_is_answered_with_all() -> None:
    environment = build(TinyTask(ROOM), 1)
    scene = Scene(environment, 32, 32, camera="front")
    assert scene.picture(0).shape == (32, 32, 3)
    scene.close()
    with pytest.raises(UserError, match="there are: front, view"):
        Scene(environment, 32, 32, camera="top")


def test_pictures_are_laid_out_row_by_row_with_gaps() -> None:
    pictures = [np.full((2, 3, 3), k, dtype=np.uint8) for k in range(4)]
    sheet = tiled(pictures, columns=2, gap=1)
    assert sheet.shape == (5, 7, 3)
    np.testing.assert_array_equal(sheet[:, 0, 0], [0, 0, 255, 2, 2])
    np.testing.assert_array_equal(sheet[0, :, 0], [0, 0, 0, 255, 1, 1, 1])


@pytest.mark.usefixtures("can_render")
@pytest.mark.parametrize("task", ["FetchPush-v4", pytest.param("HalfCheetah-v5", marks=pytest.mark.slow), "Reacher-v5"])
def test_worlds_of_the_contact_sheet_are_neither_black_nor_blown_out(task: str) -> None:
    size = 48
    sheet = contact_sheet(task, cell=size)
    assert sheet.shape == (5 * size + 16, 5 * size + 16, 3)
    cells = [sheet[r : r + size, c : c + size] for r in range(0, 257, size + 4) for c in range(0, 257, size + 4)]
    assert len(cells) == 25
    for cell in cells[1:]:
        assert 25 < cell.mean() < 230
        assert (cell.min(axis=2) >= 250).mean() < 0.5
        assert cell.std() > 10
    assert len({cell.tobytes() for cell in cells}) == 25


def test_the_usual_block_has_everything_that_a_task_has() -> None:
    block = visual_block(simreal.make_task("FetchPush-v4"))["parameters"]
    assert block.keys() == {q.name for q in VISUAL}
    assert block["camera_fov"] == {"of": "view", "range": [-4.0, 4.0]}


def _command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    try:
        main([str(a) for a in arguments])
    except SystemExit as exit_:
        return int(exit_.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().out


@pytest.mark.usefixtures("can_render")
def test_describe_writes_a_contact_sheet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    worlds = tmp_path / "worlds.yaml"
    worlds.write_text("randomization: {parameters: {material_hue: {of: 'table*'}, material_saturation: {}}}")
    sheet = tmp_path / "sheet.png"
    status, out = _command(capsys, "describe", "FetchReach-v4", "--image", sheet, "--randomization", worlds)
    assert status == 0
    assert "24 sampled" in out
    assert sheet.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--image", "sheet.txt"), "sheet.txt: expected a file name that ends in one of .png"),
        (("--image", "nowhere/sheet.png"), "the folder nowhere does not exist"),
        (("--image", "sheet.png", "--camera", "head"), "there are: head_camera_rgb, gripper_camera_rgb, lidar"),
        (("--image", "sheet.png", "--randomization", "no.yaml"), "no.yaml: no such file"),
        (("--randomization", "no.yaml"), "give --image FILE.png too"),
    ],
)
def test_describe_answers_a_mistake_with_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, message = _command(capsys, "describe", "FetchReach-v4", *arguments)
    assert status == 2
    assert expected in message
    assert not list(tmp_path.iterdir())


def test_a_parameter_of_an_unknown_camera_ends_the_command_with_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    worlds = tmp_path / "worlds.yaml"
    worlds.write_text("randomization: {parameters: {camera_fov: {of: lidr}}}")
    arguments = ("--image", tmp_path / "sheet.png", "--randomization", worlds)
    status, message = _command(capsys, "describe", "FetchReach-v4", *arguments)
    assert status == 2
    assert message.count("\n") == 1
    assert "no camera matches 'lidr' (did you mean 'lidar'?); FetchReach-v4 has: head_camera_rgb" in message


@pytest.mark.usefixtures("can_render")
def test_marks_are_in_pictures_for_people_only() -> None:
    """Balls and axes are seen where MuJoCo's camera looks at: the middle of the picture."""
    task = TinyTask(ROOM)
    environment = build(task, 1)
    at = np.array(task.model.stat.center)
    plain = {}
    for marks in ([], [simreal.Mark(at, size=0.1)], [simreal.Mark(at, np.array([1.0, 0.0, 0.0, 0.0]), 0.3)]):
        task.draw_goal = lambda model, data, index, marks=marks: marks  # pyright: ignore
        for daylight in (True, False):
            scene = Scene(environment, 64, 64, daylight=daylight)
            picture = scene.picture(0).astype(int)
            scene.close()
            changed = picture != plain.setdefault(daylight, picture)
            assert changed.any() == (daylight and bool(marks))
            if changed.any():
                middle = np.argwhere(changed.any(axis=2)).mean(axis=0)
                assert np.abs(middle - 32).max() < 12


@pytest.mark.usefixtures("can_render")
def test_a_label_fits_into_a_narrow_picture() -> None:
    environment = build(TinyTask(ROOM), 1)
    text = "world a_name_that_is_longer_than_the_picture, episode 1\nno success, 0.123 m from the goal"
    scene = Scene(environment, 320, 96, daylight=True)
    plain, short, long = (scene.picture(0, label=label).astype(int) for label in ("", "w", text))
    screen = scene._offscreen
    fitted = screen._fitted(text)
    assert "".join(fitted.split()) == "".join(text.split())  # nothing is cut off
    assert all(0 < screen._width(line) <= 304 for line in fitted.split("\n"))
    scene.close()
    columns = (long != plain).any(axis=(0, 2))
    assert 200 < columns.sum() < 320  # to the right of the words the picture is as it was
    assert not columns[-2:].any()
    assert (short != plain).any()


@pytest.mark.usefixtures("can_render")
def test_a_video_says_how_long_it_takes_and_bears_the_name_of_its_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count()
    monkeypatch.setattr(viewer, "time", SimpleNamespace(monotonic=lambda: float(next(now))))  # a second per look
    labels: list[str] = []
    monkeypatch.setattr(Scene, "picture", lambda self, i, label="": (labels.append(label), BLACK)[1])
    (tmp_path / "some_file.yaml").write_text("name: slowly\ndescription: fast\n")
    said: list[str] = []
    policy = standing("FetchReach-v4")
    count = viewer.save_video(
        policy, tmp_path / "v.gif", str(tmp_path / "some_file.yaml"), 1, 7, (64, 64), say=said.append
    )
    assert said[0] == "playing 1 episode of FetchReach-v4 in world slowly ..."
    assert said[1] == "3 steps drawn in 3 s, at most 47 to go: about 47 s"
    assert said[2].startswith("13 steps drawn in 13 s")
    assert (count, len(labels)) == (51, 51)
    assert labels[0] == "world slowly, episode 1"


@pytest.mark.usefixtures("can_render")
def test_no_more_pictures_are_drawn_than_the_file_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scene, "picture", lambda self, i, label="": BLACK)
    policy = standing("Hopper-v5")
    nominal = find_world("nominal", policy)
    frames, fps = viewer.film(policy, nominal, 1, 7, (32, 32), most_fps=25.0)
    every, most = viewer.film(policy, nominal, 1, 7, (32, 32), most_fps=1000.0)
    assert most == pytest.approx(1.0 / 0.008)
    assert fps == pytest.approx(1.0 / (0.008 * 5))  # 125 control steps per second: every fifth
    assert len(frames) == 1 + (len(every) - 1) // 5
