"""Pictures by mujoco_warp against MuJoCo's own of the same worlds: cameras, lights, surfaces, image filters."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_visual import ROOM

import simreal
from conftest import TinyTask, fixed_worlds, only
from envs.engines.base import EngineError
from envs.environment import Environment
from randomization.catalogue.visual import VISUAL
from randomization.parameters import RandomizationError, build_parameters
from randomization.visual.worlds import refuse_unseen
from simreal.common.errors import UserError
from simreal.gym.image_observations import Images
from simreal.vision.rendering.scene import Scene

pytestmark = pytest.mark.gpu

Array = NDArray[Any]
WIDTH, HEIGHT = 48, 36
EVEN = ROOM.replace('texture="tiles" texrepeat="4 4"', "")  # tiles are sampled differently: no floor to compare by
# Everything at once, so that all tests share one kernel: mujoco_warp compiles it anew for every number of lights.
ENTRIES: dict[str, dict[str, Any]] = {
    q.name: {"of": "front"} if q.target == "camera" else {} for q in VISUAL if not q.look.unseen
}
ENTRIES["image_blur"] = {"range": [0.0, 0.05]}
NOMINAL = {q.name: q.nominal for q in VISUAL if q.name in ENTRIES}


@pytest.fixture(scope="module")
def warp() -> None:
    """Skips where mujoco_warp is not installed."""
    pytest.importorskip("mujoco_warp")


def world(**values: float) -> list[float]:
    """Lambda where all but the named quantities are nominal."""
    return list((NOMINAL | values).values())


def room(worlds: list[list[float]], entries: Mapping[str, Any] = ENTRIES) -> Environment:
    """The room on the GPU engine; environment i looks as `worlds[i]` says."""
    from envs.engines.gpu.engine import GpuEngine

    task = TinyTask(EVEN, spread=1.0)
    layer = fixed_worlds(task, entries, worlds)
    layer.prepare(task)
    environment = Environment(task, GpuEngine(task.model, len(worlds), "cpu"), layer, 0)
    environment.reset()
    return environment


def both(environment: Environment, camera: str = "front") -> tuple[Array, Array]:
    """What mujoco_warp and what MuJoCo draws of the same environments, [N, height, width, 3]."""
    fast = Images(environment, WIDTH, HEIGHT, camera).take()
    try:
        scene = Scene(environment, WIDTH, HEIGHT, camera)
    except UserError as error:
        pytest.skip(str(error))
    slow = np.stack([scene.picture(i) for i in range(environment.num_envs)])
    scene.close()
    return fast.numpy().astype(float), slow.astype(float)


def alike(one: Array, other: Array) -> float:
    """Correlation of two pictures, or of what changed in them."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.slow
@pytest.mark.usefixtures("warp")
class TestPictures:
    """With mujoco_warp's renderer, whose kernel takes a minute to compile."""

    def test_they_are_bytes_that_come_from_the_renderers_own_memory(self) -> None:
        environment = room([world(), world()])
        images = Images(environment, WIDTH, HEIGHT, "front")
        taken = images.take()
        assert (taken.shape, taken.dtype) == ((2, HEIGHT, WIDTH, 3), torch.uint8)
        assert taken.device == environment.engine.device
        batch: Any = images._batch
        assert batch._camera.pixels.data_ptr() == batch._camera._context.rgb_data.ptr

    def test_they_show_the_present_state_and_what_was_handed_out_stays(self) -> None:
        environment = room([world(), world()])
        images = Images(environment, WIDTH, HEIGHT, "front")
        before = images.take()
        kept = before.clone()
        environment.engine.data("qpos")[0] += 1.0
        after = images.take()
        assert torch.equal(before, kept)
        assert (after[0] != before[0]).any(dim=-1).float().mean() > 0.01
        assert torch.equal(after[1], before[1])

    def test_they_show_what_the_task_has_painted_in_every_look(self) -> None:
        environment = room([world(), world(), world(material_hue=0.03), world(material_hue=0.03)])
        ball = environment.task.model.ngeom - 1
        painted = environment.engine.field("geom_rgba")
        painted[1::2, ball, :3] = torch.tensor([0.9, 0.1, 0.5])
        fast, slow = both(environment)
        for plain in (0, 2):
            ours, theirs = fast[plain + 1] - fast[plain], slow[plain + 1] - slow[plain]
            assert np.abs(theirs).max() > 50.0
            assert alike(ours, theirs) > 0.8

    def test_taking_them_changes_nothing(self) -> None:
        looked, other = room([world()] * 2), room([world()] * 2)
        for environment in (looked, other):
            environment.engine.data("xpos")
        images = Images(looked, WIDTH, HEIGHT, "front")
        for _ in range(3):
            action = torch.tensor([[0.5], [-0.5]])
            one, two = (environment.step(action.to(environment.engine.device)) for environment in (looked, other))
            images.take()
            assert torch.equal(one.observed.policy, two.observed.policy)
            assert torch.equal(looked.engine.data("xpos"), other.engine.data("xpos"))  # one physics step behind

    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"camera_position": 0.4, "camera_rotation": 0.15, "camera_fov": 12.0},
            {"material_hue": 0.5, "material_saturation": 0.8, "material_value": 0.5},
            {"material_gloss": 0.9},
            {"light_diffuse": 0.4, "light_ambient": 3.0, "light_color": 0.9},
            {"light_direction": 0.7, "light_position": 2.0},
            {"light_number": 3.0},
            {"light_number": -2.0},
            {"light_shadow": 1.0},
            {"background_color": 0.9},
            {"image_hue": 0.2, "image_saturation": 0.5, "image_brightness": 0.1, "image_contrast": 0.7},
            {"image_blur": 0.05},
        ],
        ids=lambda values: "+".join(values) or "nominal",
    )
    def test_worlds_look_as_mujoco_draws_them(self, values: dict[str, float]) -> None:
        fast, slow = both(room([world(), world(**values), world(**values)]))
        # OpenGL lights planes at their corners and softens shadows; a ray tracer does neither.
        for ours, theirs in zip(fast, slow, strict=True):
            assert np.abs(ours.mean(axis=(0, 1)) - theirs.mean(axis=(0, 1))).max() < 15.0
            assert alike(ours, theirs) > 0.9
        for k in (1, 2) if values else ():  # two episodes, in which different things were drawn
            ours, theirs = fast[k] - fast[0], slow[k] - slow[0]
            assert alike(ours, theirs) > 0.7
            assert 0.6 < np.abs(ours).mean() / np.abs(theirs).mean() < 1.6

    def test_the_tasks_own_view_follows_what_it_tracks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tracking = {"type": int(mujoco.mjtCamera.mjCAMERA_TRACKING), "trackbodyid": 1, "distance": 2.0}
        monkeypatch.setattr(TinyTask, "render_camera", tracking)
        environment = room([world()] * 2)
        environment.engine.data("qpos")[1] += 2.0
        fast, slow = both(environment, "view")
        assert all(alike(ours, theirs) > 0.9 for ours, theirs in zip(fast, slow, strict=True))
        assert alike(fast[1], slow[0]) < alike(fast[1], slow[1]) - 0.03

    def test_a_colour_and_a_camera_show_in_the_named_world_only(self) -> None:
        environment = room([world(), world(material_hue=0.5), world(camera_position=0.4), world()])
        environment.engine.data("qpos")[:] = 0.2
        plain, recoloured, moved, last = Images(environment, WIDTH, HEIGHT, "front").take()
        assert torch.equal(plain, last)
        sky = plain[0, 0].int()
        differs = (recoloured != plain).any(dim=-1)
        assert 0.005 < float(differs.float().mean()) < 0.3  # the box and the ball: the floor is grey
        assert torch.equal(recoloured[0, 0].int(), sky)
        assert float((moved != plain).any(dim=-1).float().mean()) > 0.5

    def test_a_pattern_shows_on_the_floor_of_the_named_world_only(self) -> None:
        environment = room([world(), world(material_texture=1.0), world()])
        environment.engine.data("qpos")[:] = 0.2
        plain, patterned, last = Images(environment, WIDTH, HEIGHT, "front").take()
        assert torch.equal(plain, last)
        assert float((patterned != plain).any(dim=-1).float().mean()) > 0.1

    def test_a_reset_changes_the_picture_that_it_names_and_no_other(self) -> None:
        values = {"material_hue": 0.5, "camera_position": 0.3, "light_direction": 0.5}
        environment = room([world(**values)] * 3)
        images = Images(environment, WIDTH, HEIGHT, "front")
        before = images.take()
        environment.reset(mask=only(3, 1))
        after = images.take()
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]

    def test_noise_is_fresh_at_every_step_and_has_its_deviation(self) -> None:
        environment = room([world(), world(image_noise=0.1)])
        environment.engine.data("qpos")[:] = 0.2
        images = Images(environment, WIDTH, HEIGHT, "front")
        plain, noisy = images.take().float()
        inside = (plain > 80) & (plain < 175)  # far from where it is clipped
        assert float((noisy - plain)[inside].std()) == pytest.approx(25.5, rel=0.1)
        environment.step(torch.zeros(2, 1))
        environment.engine.data("qpos")[:] = 0.2
        assert (images.take()[1] != noisy).float().mean() > 0.8


def test_every_visual_quantity_is_shown_or_refused() -> None:
    assert [q.name for q in VISUAL if q.look.unseen] == ["material_reflectance"]
    parameters = build_parameters(TinyTask(ROOM), {"material_hue": {}, "mirrors": {"quantity": "material_reflectance"}})
    with pytest.raises(RandomizationError) as error:
        refuse_unseen(parameters, TinyTask(ROOM).model, "view")
    assert str(error.value) == (
        "mirrors: pictures of the GPU engine cannot show material_reflectance, since mujoco_warp's renderer mirrors "
        "nothing: leave it out or use the CPU engine"
    )
    refuse_unseen(parameters[:1], TinyTask(ROOM).model, "view")


def test_a_field_of_view_that_follows_from_a_sensor_is_refused() -> None:
    lens = 'sensorsize="0.01 0.01" resolution="8 8" focal="0.02 0.02"'
    task = TinyTask(ROOM.replace('fovy="50"', lens))
    parameters = build_parameters(task, {"camera_fov": {"of": "front"}})
    with pytest.raises(RandomizationError, match="takes the lens of 'front' from the model"):
        refuse_unseen(parameters, task.model, "front")
    refuse_unseen(parameters, task.model, "view")


@pytest.mark.usefixtures("warp")
def test_what_cannot_be_shown_is_refused_when_the_environment_is_made() -> None:
    make = lambda **options: simreal.make_vec(  # noqa: E731
        "HalfCheetah-v5", 1, "gpu", {"parameters": {"material_reflectance": {}}}, **options
    )
    make().close()  # nobody looks
    with pytest.raises(RandomizationError, match="cannot show material_reflectance"):
        make(render_mode="rgb_array")


@pytest.mark.usefixtures("warp")
def test_a_texture_of_six_faces_is_refused_when_the_environment_is_made() -> None:
    faces = '<texture name="tiles" type="cube" builtin="gradient" rgb1="1 0 0" rgb2="0 0 1" width="8" height="48"/>'
    xml = re.sub('<texture name="tiles".*?/>', faces, ROOM).replace('name="paint"', 'name="paint" texture="tiles"')
    task = TinyTask(xml.replace('texture="tiles" texrepeat="4 4"', ""))
    view = mujoco.MjvCamera()
    refuse_undrawable = importlib.import_module("envs.engines.gpu.camera").refuse_undrawable
    with pytest.raises(EngineError, match="material 'paint', whose texture has six faces: use the CPU engine"):
        refuse_undrawable(task.model, view)
    refuse_undrawable(TinyTask(ROOM).model, view)
    with pytest.raises(EngineError, match="six faces"):
        simreal.make_vec("HandManipulateBlock-v1", 1, "gpu", render_mode="rgb_array")


def test_a_vector_environment_hands_out_pictures_of_any_size_as_a_tensor() -> None:
    envs = simreal.make_vec("InvertedPendulum-v5", 2, "cpu", render_mode="rgb_array", render_size=(24, 16), threads=1)
    envs.reset(seed=0)
    try:
        images = envs.images()
    except UserError as error:
        pytest.skip(str(error))
    assert (images.shape, images.dtype) == ((2, 16, 24, 3), torch.uint8)
    rendered = envs.render()
    assert rendered is not None
    np.testing.assert_array_equal(np.stack(rendered), images.numpy())
    envs.close()


def test_a_vector_environment_without_pictures_says_how_to_have_them() -> None:
    envs = simreal.make_vec("InvertedPendulum-v5", 1, "cpu", threads=1)
    assert envs.render() is None
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        envs.images()
    with pytest.raises(UserError, match="at least one pixel"):
        simreal.make_vec("InvertedPendulum-v5", 1, "cpu", render_mode="rgb_array", render_size=(0, 16), threads=1)
