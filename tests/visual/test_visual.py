"""Worlds that look different: each quantity changes what it says of the named objects, and nothing else."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from conftest import TinyTask, build, fixed_worlds, manual_layer
from envs.engines.visual_state import VisualState
from randomization.catalogue.visual import VISUAL
from randomization.parameters import RandomizationError, build_parameters
from randomization.targets.appearance import camera_names, light_names, surfaces
from randomization.visual.effects import fold, hsv_of, rgb_of, rotated, unit_vector
from randomization.visual.image_filters import NEUTRAL
from randomization.visual.mujoco_scene import SceneRandomizer, place
from randomization.visual.textures import PATTERNS, checker, gradient, library, mixed_sky, noise, nominal_sky, pattern
from randomization.visual.worlds import BatchVisualRandomizer

ROOM = """
<mujoco>
  <option gravity="0 0 0"/>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="0.2 0.4 0.8" rgb2="0.1 0.1 0.1" width="8" height="48"/>
    <texture name="tiles" type="2d" builtin="checker" rgb1="0.2 0.2 0.2" rgb2="0.9 0.9 0.9" width="32" height="32"/>
    <material name="ground" texture="tiles" texrepeat="4 4" rgba="0.8 0.8 0.8 1"/>
    <material name="paint" rgba="0.8 0.4 0.2 1" specular="0.4" shininess="0.6"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="0 0 3" dir="0 0 -1" diffuse="0.6 0.6 0.6" ambient="0.1 0.1 0.1" castshadow="true"/>
    <light pos="2 0 2" dir="-1 0 -1" diffuse="0.2 0.2 0.2" castshadow="false"/>
    <camera name="front" pos="0 -2 1" xyaxes="1 0 0 0 0.4 1" fovy="50"/>
    <geom name="floor" type="plane" size="1 1 0.1" material="ground"/>
    <geom name="hidden" type="sphere" size="0.1" rgba="1 1 1 0"/>
    <body name="arm" pos="0 0 0.4">
      <joint name="hinge" type="hinge" axis="0 1 0"/>
      <geom name="box" type="box" size="0.2 0.2 0.2" material="paint"/>
      <geom name="ball" type="sphere" pos="0.5 0 0" size="0.15" rgba="0.2 0.6 0.4 1"/>
    </body>
  </worldbody>
  <actuator><motor joint="hinge"/></actuator>
</mujoco>
"""
Looks = dict[tuple[str, int], dict[str, Any]]
_GEOM = ("rgba", "specular", "shininess", "reflectance", "emission", "matid", "texid", "texuniform", "texrepeat")
_LIGHT = ("pos", "dir", "diffuse", "ambient", "specular", "castshadow", "type")
_EYE = ("pos", "forward", "up", "frustum_top", "frustum_bottom", "frustum_center", "frustum_near")


def looks(scene: mujoco.MjvScene) -> Looks:
    """Everything of a scene that visual quantities may change, copied: lights by id, geoms by name's index, eyes."""
    found: Looks = {}
    for kind, things, names in (
        ("geom", scene.geoms[: scene.ngeom], _GEOM),
        ("light", scene.lights[: scene.nlight], _LIGHT),
        ("eye", scene.camera, _EYE),
    ):
        for k, thing in enumerate(things):
            found[kind, k] = {name: np.copy(getattr(thing, name)).tolist() for name in names}
    return found


def changes(before: Looks, after: Looks) -> dict[tuple[str, int], set[str]]:
    """Which fields of which things differ; new things are marked by "new"."""
    result = {key: {"new"} for key in after.keys() - before.keys()}
    for key in before:
        differing = {name for name, value in before[key].items() if value != after[key][name]}
        if differing:
            result[key] = differing
    return result


class Studio:
    """Scenes of a one-environment world of ROOM; needs no OpenGL."""

    def __init__(self, entries: Mapping[str, Any], world: list[float], camera: str = "view") -> None:
        self.task = TinyTask(ROOM)
        self.environment = build(self.task, 1, fixed_worlds(self.task, entries, [world]))
        self.parameters = build_parameters(self.task, entries)
        self.visual = SceneRandomizer(self.task, self.parameters, self.environment.rng, camera)
        self.scene = mujoco.MjvScene(self.task.model, 100)
        self.view = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self.task.model, self.view)

    def compose(self, world: list[float] | None) -> Looks:
        """What the scene holds in a world; None for no world at all."""
        model, data = self.environment.engine.export_to_mujoco(0)
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, self.view, every, self.scene)
        if world is not None:
            lam = torch.tensor(world, dtype=torch.float64)
            self.sky = self.visual.apply(self.scene, model, lam, 0, 100)
        return looks(self.scene)


def effect_of(quantity: str, value: float, of: str | None, camera: str = "view") -> tuple[Looks, Looks]:
    """The scene without and with one visual parameter."""
    studio = Studio({quantity: {} if of is None else {"of": of}}, [value], camera)
    return studio.compose(None), studio.compose([value])


HEADLIGHT, LAMP, SECOND = ("light", 0), ("light", 1), ("light", 2)  # in the scene
FLOOR, BOX, BALL = ("geom", 0), ("geom", 1), ("geom", 2)
EYES = (("eye", 0), ("eye", 1))


def test_the_names_of_a_model_are_listed_as_patterns_match_them() -> None:
    model = TinyTask(ROOM).model
    assert camera_names(model) == ["front", "view"]
    assert light_names(model) == ["lamp", "light1", "headlight"]
    found = surfaces(model)
    assert [(s.name, s.geoms, s.flat) for s in found] == [
        ("ground", (0,), True), ("paint", (2,), True), ("ball", (3,), False),
    ]  # fmt: skip
    np.testing.assert_allclose(found[2].rgba, [0.2, 0.6, 0.4, 1.0], atol=1e-6)


def test_every_visual_quantity_has_an_effect() -> None:
    assert {q.look.filter for q in VISUAL if not q.look.change} == set(NEUTRAL)


@pytest.mark.parametrize(
    ("quantity", "value", "of", "expected"),
    [
        ("light_position", 0.5, "lamp", {LAMP: {"pos"}}),
        ("light_direction", 0.3, "lamp", {LAMP: {"dir"}}),
        ("light_color", 0.5, "light1", {SECOND: {"diffuse", "specular"}}),
        ("light_diffuse", 2.0, "headlight", {HEADLIGHT: {"diffuse"}}),
        ("light_ambient", 2.0, "lamp", {LAMP: {"ambient"}}),
        ("light_shadow", 1.0, "*", {LAMP: {"castshadow"}, SECOND: {"castshadow"}}),
        ("light_number", 2.0, None, {("light", 3): {"new"}, ("light", 4): {"new"}}),
        ("light_number", 0.4, None, {}),
        ("material_hue", 0.5, "paint", {BOX: {"rgba"}}),
        ("material_saturation", 0.5, "ball", {BALL: {"rgba"}}),
        ("material_value", 0.5, "ground", {FLOOR: {"rgba"}}),
        ("material_gloss", 0.5, "paint", {BOX: {"specular", "shininess"}}),
        ("material_reflectance", 0.5, "*", {FLOOR: {"reflectance"}, BOX: {"reflectance"}}),
        ("material_texture", 1.0, "ball", {BALL: {"matid", "texid", "texrepeat"}}),
        ("background_color", 1.0, None, {}),
        ("image_noise", 0.5, None, {}),
        ("camera_position", 0.5, "front", {}),  # another camera than the one in use
    ],
)  # fmt: skip
def test_a_quantity_changes_what_it_says_and_nothing_else(
    quantity: str, value: float, of: str | None, expected: dict[tuple[str, int], set[str]]
) -> None:
    before, after = effect_of(quantity, value, of)
    assert changes(before, after) == expected


def test_a_camera_is_displaced_by_its_distance_and_turned_by_its_angle() -> None:
    before, after = effect_of("camera_position", 0.3, "view")
    assert changes(before, after) == {eye: {"pos"} for eye in EYES}
    for eye in EYES:
        moved = np.subtract(after[eye]["pos"], before[eye]["pos"])
        assert np.linalg.norm(moved) == pytest.approx(0.3, rel=1e-5)
    before, after = effect_of("camera_rotation", 0.2, "view")
    assert changes(before, after) == {eye: {"forward", "up"} for eye in EYES}
    old, new = (np.array([eye["forward"], eye["up"]]) for eye in (before[EYES[0]], after[EYES[0]]))
    np.testing.assert_allclose(new @ new.T, np.eye(2), atol=1e-6)  # still orthonormal
    old, new = (np.vstack((m, np.cross(m[0], m[1]))) for m in (old, new))
    angle = np.arccos((np.trace(new.T @ old) - 1.0) / 2.0)
    assert angle == pytest.approx(0.2, rel=1e-4)


def test_the_field_of_view_widens_by_degrees() -> None:
    before, after = effect_of("camera_fov", 10.0, "view")  # the model's free camera has 45 degrees
    for eye in EYES:
        half = (after[eye]["frustum_top"] - after[eye]["frustum_bottom"]) / 2.0
        assert np.degrees(2.0 * np.arctan(half / before[eye]["frustum_near"])) == pytest.approx(55.0, rel=1e-5)


def test_a_light_keeps_its_distance_and_angle() -> None:
    before, after = effect_of("light_position", 0.5, "lamp")
    assert np.linalg.norm(np.subtract(after[LAMP]["pos"], before[LAMP]["pos"])) == pytest.approx(0.5, rel=1e-5)
    _, after = effect_of("light_direction", 0.3, "lamp")
    assert np.dot(after[LAMP]["dir"], [0, 0, -1]) == pytest.approx(np.cos(0.3), rel=1e-5)
    before, after = effect_of("light_diffuse", 1.5, "lamp")
    np.testing.assert_allclose(after[LAMP]["diffuse"], [0.9] * 3, rtol=1e-5)  # 1.5 * 0.6


def test_a_directional_light_that_casts_a_shadow_follows_the_camera_so_that_its_shadow_is_drawn() -> None:
    entries, world = {"light_direction": {"of": "lamp"}}, [0.3]
    studio = Studio(entries, world)
    studio.task.model.light_type[0] = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    studio.environment = build(studio.task, 1, fixed_worlds(studio.task, entries, [world]))
    before, after = studio.compose(None), studio.compose(world)
    assert changes(before, after) == {LAMP: {"dir", "pos"}}
    # From the light, straight ahead, by the model's extent, lies the point of the line of sight nearest its centre.
    model, lamp, eye = studio.task.model, after[LAMP], after[EYES[0]]
    focus = np.add(lamp["pos"], model.stat.extent * np.array(lamp["dir"]))
    along = focus - eye["pos"]
    np.testing.assert_allclose(np.cross(along, eye["forward"]), 0.0, atol=1e-5)
    assert np.dot(focus - model.stat.center, eye["forward"]) == pytest.approx(0.0, abs=1e-5)


def test_added_lights_come_from_above_and_a_negative_number_switches_the_models_off() -> None:
    _, after = effect_of("light_number", 8.0, None)
    added = [after["light", k] for k in range(3, 11)]
    assert all(light["dir"][2] <= -0.35 + 1e-6 for light in added)
    np.testing.assert_allclose([np.linalg.norm(light["dir"]) for light in added], 1.0, rtol=1e-5)
    _, after = effect_of("light_number", -1.0, None)
    assert sorted(sum(after[k]["diffuse"]) > 0 for k in (LAMP, SECOND)) == [False, True]
    _, after = effect_of("light_number", -100.0, None)
    assert [sum(after[k]["diffuse"]) > 0 for k in (HEADLIGHT, LAMP, SECOND)] == [True, False, False]


def test_hue_of_a_surface_shifts_within_its_spread() -> None:
    import colorsys

    shifts = []
    for seed in range(20):
        studio = Studio({"material_hue": {"of": "ball"}}, [0.1])
        studio.environment.reset(seed=seed)
        rgba = studio.compose([0.1])[BALL]["rgba"]
        hue, saturation, value = colorsys.rgb_to_hsv(*rgba[:3])
        # (0.2, 0.6, 0.4): hue 5/12, saturation 2/3, value 0.6
        assert (saturation, value) == (pytest.approx(2 / 3, rel=1e-4), pytest.approx(0.6, rel=1e-4))
        shifts.append(hue - 5 / 12)
    assert max(map(abs, shifts)) <= 0.1 + 1e-6
    assert max(shifts) > 0.04
    assert min(shifts) < -0.04


ALL = {q.name: ({"of": "view"} if q.target == "camera" else {}) for q in VISUAL}


def test_the_nominal_world_leaves_the_scene_as_it_is() -> None:
    nominal = [q.nominal for q in VISUAL]
    studio = Studio(ALL, nominal)
    assert changes(studio.compose(None), studio.compose(nominal)) == {}
    assert studio.sky is None


@pytest.mark.parametrize("worlds", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_worlds_leave_no_trace(worlds: int) -> None:
    studio = Studio(ALL, [q.nominal for q in VISUAL])
    before = studio.compose(None)
    fields = ("geom_rgba", "mat_rgba", "light_pos", "light_dir", "light_diffuse", "cam_pos", "tex_data")
    model = studio.task.model
    held = {name: getattr(model, name).copy() for name in fields}
    random = np.random.default_rng(0)
    low, high = np.array([q.default_range for q in VISUAL]).T
    for _ in range(worlds):
        studio.compose(random.uniform(low, high).tolist())
    assert changes(before, studio.compose([q.nominal for q in VISUAL])) == {}
    for name, values in held.items():
        np.testing.assert_array_equal(getattr(model, name), values)


def test_an_episode_looks_the_same_whatever_the_number_of_environments() -> None:
    entries = {"light_direction": {}, "material_hue": {}, "camera_position": {"of": "view"}}

    def dressed(num_envs: int, episodes: int, index: int) -> Looks:
        task = TinyTask(ROOM)
        environment = build(task, num_envs, manual_layer(task, entries), seed=4)
        for _ in range(episodes):
            environment.reset()
        layer: Any = environment.layer
        visual = SceneRandomizer(task, layer.parameters, environment.rng, "view")
        camera, scene = mujoco.MjvCamera(), mujoco.MjvScene(task.model, 100)
        mujoco.mjv_defaultFreeCamera(task.model, camera)
        model, data = environment.engine.export_to_mujoco(index)
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
        visual.apply(scene, model, layer.lam[index], index, 100)
        return looks(scene)

    third = dressed(1, 3, 0)  # episodes 0, 1, 2, 3 of the only environment
    assert changes(third, dressed(4, 0, 3)) == {}
    assert changes(third, dressed(1, 2, 0)) != {}


def test_a_scene_of_one_world_gets_the_numbers_that_a_batch_of_all_worlds_gets() -> None:
    task = TinyTask(ROOM)
    worlds = [[q.nominal for q in VISUAL], *([share * q.default_range[1] for q in VISUAL] for share in (0.6, 1.0))]
    worlds[2][[q.name for q in VISUAL].index("light_number")] = -1.0
    entries = {**ALL, "material_texture": {"range": [0, 1]}}
    environment = build(task, 3, fixed_worlds(task, entries, worlds))
    parameters, lam = build_parameters(task, entries), torch.tensor(worlds, dtype=torch.float64)
    one = SceneRandomizer(task, parameters, environment.rng, "view")
    every = BatchVisualRandomizer(task, parameters, environment.rng, "view")
    state = VisualState.nominal(task.model, None, spare_lights=every.spare_lights).expanded(3)
    scene, view = mujoco.MjvScene(task.model, 100), mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(task.model, view)
    found: list[tuple[Looks, Any]] = []
    for i in range(3):
        model, data = environment.engine.export_to_mujoco(i)
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, view, mujoco.mjtCatBit.mjCAT_ALL, scene)
        place(VisualState(**{name: value[i : i + 1] for name, value in vars(state).items()}), scene, model)
        sky = one.apply(scene, model, lam[i], i, 100)
        found.append((looks(scene), sky))
    every.apply(state, lam, 100)
    for i, (scene_looks, sky) in enumerate(found):
        for geom, k in ((0, FLOOR), (2, BOX), (3, BALL)):
            assert scene_looks[k]["rgba"] == state.rgba[i, geom].tolist()
            assert scene_looks[k]["shininess"] == float(state.shininess[i, geom])
            assert scene_looks[k]["reflectance"] == float(state.reflectance[i, geom])
            pattern_id = int(state.texture[i, geom])
            assert scene_looks[k]["texid"] == pattern_id + (PATTERNS if geom and pattern_id >= 100 else 0)
        shown = [light for name, light in scene_looks.items() if name[0] == "light" and sum(light["diffuse"])]
        active = [k for k in (2, 0, 1, *range(3, 11)) if state.light_active[i, k]]  # as in the scene
        assert [light["diffuse"] for light in shown] == state.light_diffuse[i, active].tolist()
        assert [light["dir"] for light in shown] == state.light_dir[i, active].tolist()
        np.testing.assert_allclose(scene_looks[EYES[0]]["pos"], state.eye_pos[i], rtol=1e-6)
        assert scene_looks[EYES[0]]["up"] == state.eye_axes[i, :, 1].tolist()
        assert sky is None if i == 0 else sky.top.tolist() == state.sky_top[i].tolist()
    pictures = torch.randint(0, 256, (3, 12, 16, 3), dtype=torch.uint8)
    together = every.postprocess(pictures, lam)
    for i in range(3):
        np.testing.assert_array_equal(one.postprocess(pictures[i].numpy(), lam[i], i), together[i])
    assert torch.equal(together[0], pictures[0])
    assert not torch.equal(together[1], pictures[1])


def test_what_a_task_has_painted_is_recoloured_from_the_colour_that_it_has() -> None:
    """As the stickers of a Rubik's Cube, which move: not from the model's own colour."""
    studio = Studio({"material_hue": {"of": "ball"}, "material_value": {"of": "ball"}}, [0.0, 0.0])
    rgba = studio.environment.engine.field("geom_rgba")
    rgba[0, 3, :3] = torch.tensor([0.9, 0.1, 0.5])
    for world in ([0.0, 0.0], [0.04, 0.0], [0.0, 0.05], [0.04, 0.05]):
        plain, shown = studio.compose(None)[BALL]["rgba"], studio.compose(world)[BALL]["rgba"]
        np.testing.assert_allclose(plain[:3], [0.9, 0.1, 0.5], atol=1e-6)
        before, after = (np.array(colorsys.rgb_to_hsv(*colour[:3])) for colour in (plain, shown))
        moved = np.abs(after - before)
        assert moved[0] <= world[0] + 1e-6
        assert moved[2] <= world[1] + 1e-6
        assert (moved[[0, 2]] > 1e-4).tolist() == [value > 0.0 for value in world]
        assert moved[1] < 1e-6
    repainted = studio.compose([0.04, 0.05])[BOX]["rgba"]
    assert repainted == studio.compose(None)[BOX]["rgba"]


def test_hue_saturation_and_value_are_those_of_colorsys() -> None:
    g = torch.Generator().manual_seed(0)
    colours = torch.cat((torch.rand(200, 3, generator=g, dtype=torch.float64), torch.eye(3).double(),
                         1.0 - torch.eye(3).double(), torch.full((2, 3), 0.3).double(), torch.zeros(1, 3).double(),
                         torch.ones(1, 3).double()))  # fmt: skip
    expected = np.array([colorsys.rgb_to_hsv(*colour) for colour in colours.tolist()])
    np.testing.assert_allclose(hsv_of(colours), expected, atol=1e-12)
    np.testing.assert_allclose(rgb_of(hsv_of(colours)), colours, atol=1e-12)


def test_environments_that_are_not_shown_pay_nothing() -> None:
    task = TinyTask(ROOM)
    environment = build(task, 3, manual_layer(task, ALL))
    assert environment.state_dict()["engine"]["fields"] == {}  # no field of the model was made per environment


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"camera_fov": {"of": "frnt"}}, "no camera matches 'frnt' (did you mean 'front'?); Tiny-v0 has: front, view"),
        ({"light_position": {"of": "headlight"}}, "headlight is no light with a position of its own"),
        ({"light_ambient": {"of": "light1"}}, "light1 is no light with an ambient part"),
        ({"material_reflectance": {"of": "ball"}}, "ball is no surface of a plane or a box"),
        ({"material_hue": {"of": "hidden"}}, "Tiny-v0 has: ground, paint, ball"),
        ({"camera_position": {"range": [-1, 1]}}, "camera_position.range: [-1, 1] is not within [0, inf]"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_with_what_there_is(entries: Mapping[str, Any], message: str) -> None:
    with pytest.raises(RandomizationError) as error:
        build_parameters(TinyTask(ROOM), entries)
    assert message in str(error.value)


def test_patterns_leave_out_what_a_quantity_cannot_change() -> None:
    (ambient,) = build_parameters(TinyTask(ROOM), {"light_ambient": {}})
    assert ambient.targets == ("lamp", "headlight")
    (shadow,) = build_parameters(TinyTask(ROOM), {"light_shadow": {}})
    assert shadow.targets == ("lamp", "light1")


def test_directions_are_even_and_turns_are_right_handed() -> None:
    real = lambda *numbers: torch.tensor(numbers, dtype=torch.float64)  # noqa: E731
    np.testing.assert_allclose(unit_vector(real(0.5, 0.25)), [0.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(unit_vector(real(1.0, 0.3)), [0.0, 0.0, 1.0], atol=1e-12)
    quarter = rotated(real(1.0, 0.0, 0.0), real(0.0, 0.0, 1.0), torch.tensor(np.pi / 2))
    np.testing.assert_allclose(quarter, [0.0, 1.0, 0.0], atol=1e-7)
    assert fold(real(-0.25, 0.5, 1.25)).tolist() == [0.25, 0.5, 0.75]


def test_procedural_patterns_are_what_their_names_say() -> None:
    np.testing.assert_array_equal(checker(4, 2), [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(gradient(3)[:, 0], [0.0, 0.5, 1.0])
    tile = noise(64, 4, np.random.default_rng(0))
    assert (tile.min(), tile.max()) == (0.0, 1.0)
    seam = np.abs(tile[0] - tile[-1]).max()
    assert seam <= np.abs(np.diff(tile, axis=0)).max() + 1e-9  # repeats without a seam
    model = library()
    assert model.ntex == 2 * PATTERNS + 1
    np.testing.assert_array_equal(model.tex_data[: 64 * 64 * 3].reshape(64, 64, 3), pattern(0))
    assert all(pattern(k).min() > 50 for k in range(PATTERNS))  # never black, whatever the surface's colour


def test_a_background_mixes_the_models_own_with_a_gradient() -> None:
    sky = nominal_sky(TinyTask(ROOM).model)
    assert sky.shape == (6 * 32, 32, 3)
    np.testing.assert_array_equal(mixed_sky(sky, 0.0, np.ones(3), np.zeros(3)), sky)
    half = mixed_sky(sky, 0.5, np.ones(3), np.zeros(3))
    up = slice(2 * 32, 3 * 32)  # all of the top colour
    np.testing.assert_allclose(half[up], 0.5 * sky[up] + 127.5, atol=0.51)
