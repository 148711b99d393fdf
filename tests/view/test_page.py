"""The page of `simreal view`: sliders and buttons in this process, and all of it in a real browser."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chromium import Chromium, find_chromium
from robots import GO1, needs
from simreal.cli.main import main
from simreal.common.errors import UserError
from view_page import click_robot, focus_slider, loaded

viser = pytest.importorskip("viser")

from simreal.vision.live.page import Page, addresses, serve  # noqa: E402
from simreal.vision.live.shapes import body_shapes  # noqa: E402
from simreal.vision.live.source import find_source  # noqa: E402


@pytest.fixture
def server() -> Iterator[Any]:
    made = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    yield made
    made.stop()


def page_of(server: Any, target: str, tmp_path: Path, **options: Any) -> Page:
    return Page(server, find_source(target, "zero", None, options), 3, tmp_path)


def until(page: Page, true: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        page.loop.once()
        assert time.monotonic() < end


def test_a_slider_changes_the_model_and_a_click_pushes(server: Any, tmp_path: Path) -> None:
    page = page_of(server, "Hopper-v5", tmp_path)
    mass = page.player.environment.engine.field("body_mass")
    before = mass.clone()
    page.loop.once()
    page.sliders["body_mass"].value = 1.1
    until(page, lambda: bool((mass != before).any()))
    np.testing.assert_allclose(mass[0].numpy(), 1.1 * before[0].numpy(), rtol=1e-9)
    page._clicked(1, np.array([0.6, 0.0, -0.8]))
    until(page, lambda: bool(page.player.pushes))
    assert page.player.pushes[0].force.tolist() == [page._force.value, 0.0, 0.0]
    page.loop.later(page._toggle)
    until(page, lambda: not page.loop.playing)
    assert page._pause.label == "Play"


def test_poses_that_did_not_change_are_not_sent_again(server: Any, tmp_path: Path) -> None:
    page = page_of(server, "FetchReach-v4", tmp_path)
    page.drawing.show()
    sent = page.drawing.sent
    assert sent > 10
    page.drawing.show()
    assert page.drawing.sent == sent
    page.player.step()
    page.drawing.show()
    assert sent < page.drawing.sent < 2 * sent  # the base and the table stay where they are
    page.drawing.contacts = True
    page.player.push(1, np.array([5.0, 0.0, 0.0]), 1.0)
    page.drawing.show()


def test_a_new_checkpoint_is_played_and_offered(server: Any, trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("best", "bundle"))
    kept = sorted((run / "checkpoints").glob("step_*"))
    for file in kept:
        shutil.move(file, tmp_path / file.name)
    page = page_of(server, str(run), tmp_path)
    assert tuple(page._chosen.options) == ("newest",)
    shutil.copy(tmp_path / kept[-1].name, run / "checkpoints" / kept[-1].name)
    page._choose()
    assert len(page._chosen.options) == 2
    assert page.player.policy.name == "run"
    assert "trained" in page._strips["body_mass"].content


@pytest.mark.usefixtures("can_render")
def test_a_film_is_written_beside_others(server: Any, tmp_path: Path) -> None:
    page = page_of(server, "InvertedPendulum-v5", tmp_path)
    for name in ("zero-1.mp4", "zero-2.mp4"):
        page._film()
        for _ in range(4):
            page.loop.advance()
        page._film()
        assert (tmp_path / name).stat().st_size > 1000


def test_shapes_are_where_mujoco_has_them() -> None:
    player = find_source("FetchReach-v4", "zero", None, {}).policy.make_task()
    model = player.model
    for body in range(model.nbody):
        for shape in body_shapes(model, body, frozenset()):
            assert np.isfinite(shape.vertices).all()
            assert shape.faces.min() >= 0
            assert shape.faces.max() < len(shape.vertices)
    table = next(b for b in range(model.nbody) if model.body(b).name == "table0")
    (shape,) = body_shapes(model, table, frozenset())
    geom = model.body_geomadr[table]
    np.testing.assert_allclose(np.abs(shape.vertices).max(axis=0), model.geom_size[geom], rtol=1e-6)


def test_what_a_task_paints_as_it_goes_on_is_painted_on_the_page(server: Any, tmp_path: Path) -> None:
    """As the stickers of a Rubik's Cube whose faces turn."""
    page = page_of(server, "InvertedPendulum-v5", tmp_path)
    drawing, player = page.drawing, page.player
    drawing.show()
    body, other = [node for node in drawing._nodes if node.kind == "body"][-2:]
    meshes, kept = [id(mesh) for mesh in body.meshes], [id(mesh) for mesh in other.meshes]
    drawing.show()
    assert [id(mesh) for mesh in body.meshes] == meshes
    model = player.model
    for geom in range(model.body_geomadr[body.index], model.body_geomadr[body.index] + model.body_geomnum[body.index]):
        player.environment.engine.field("geom_rgba")[0, geom] = torch.tensor([0.1, 0.9, 0.2, 1.0])
    drawing.show()
    assert [mesh.color for mesh in body.meshes] == [(25, 229, 51)]
    assert [id(mesh) for mesh in other.meshes] == kept


def test_it_says_where_the_page_is_also_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 51000 10.0.0.5 22")
    first, over = addresses("127.0.0.1", 8080)
    assert first.startswith("http://127.0.0.1:8080 ")
    assert "ssh -N -L 8080:127.0.0.1:8080 " in over
    assert "@10.0.0.5 " in over
    assert "everybody on the network" in addresses("0.0.0.0", 8080)[1]


def test_wrong_input_is_one_line(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_source("InvertedPendulum-v5", "zero", None, {})
    with pytest.raises(UserError, match=r"--port \d+: cannot listen there"):
        serve(source, "127.0.0.1", server.get_port(), 0, tmp_path, 0.0, None)  # type: ignore[arg-type]
    for arguments, said in (
        (["view", "FetchReech-v4"], "did you mean 'FetchReach-v4'"),
        (["view", str(tmp_path / "nothing")], "no such run or bundle"),
        (["view", "FetchReach-v4", "--output", str(tmp_path / "no")], "no such folder"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr("simreal.vision.live.cli.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["view", "FetchReach-v4"])
    assert "pip install 'simreal[view]'" in capsys.readouterr().err


def test_the_command_ends_when_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["view", "InvertedPendulum-v5", "--port", "0", "--seconds", "0.1", "--output", str(tmp_path)])
    assert "over ssh: run  ssh -N -L " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium")
@needs(GO1)
def test_a_person_moves_sliders_and_pushes_the_robot_in_a_browser(server: Any, tmp_path: Path) -> None:
    page = page_of(server, "Go1Velocity-v0", tmp_path)
    page.loop.pause(False)  # a picture of a robot that moves takes seconds to draw by software
    thread = threading.Thread(target=page.loop.run)
    thread.start()
    try:
        with Chromium((1000, 560)) as browser:  # software draws: the less the sooner
            tab = browser.open(f"http://127.0.0.1:{server.get_port()}")
            loaded(tab)
            end = time.monotonic() + 120.0
            mass = page.player.environment.engine.field("body_mass")
            before = mass.clone()
            focus_slider(tab, "body_mass")
            for _ in range(5):
                tab.key("ArrowRight", 39)
            tab.click_text("Play")
            tab.click_text("Step")
            while bool((mass == before).all()):
                assert time.monotonic() < end
                time.sleep(0.05)
            pushed: list[int] = []
            page.player.push = lambda body, force, duration_s: pushed.append(body)  # type: ignore[method-assign]
            click_robot(tab)
            while not pushed:
                assert time.monotonic() < end
                time.sleep(0.05)
            assert page.player.model.body(pushed[0]).name
            tab.screenshot(tmp_path / "page.png")
            assert (tmp_path / "page.png").stat().st_size > 20_000
    finally:
        page.loop.stop()
        thread.join()
