"""Pictures of randomized worlds against nominal ones, and many small ones against MuJoCo's own renderer."""

from __future__ import annotations

import time

import mujoco

from benchmarks.speed.timing import Row, median_seconds
from envs.registry import make_task
from simreal.training.build import make_environment
from simreal.vision.datasets.plan import PicturePlan
from simreal.vision.datasets.workers import ChunkSource
from simreal.vision.rendering.contact_sheet import visual_block
from simreal.vision.rendering.scene import Scene, view_of

_PICTURE = 128  # pixels along an edge


def bench_rendering(task_id: str, repeats: int) -> Row:
    """Pictures of randomized looks against nominal ones. Raises UserError where nothing can be rendered.

    Shadows and mirrors are as in the model: in software each costs more than all else, whoever asks for it.
    """
    block = visual_block(make_task(task_id))
    for name in ("light_shadow", "material_reflectance"):
        block["parameters"].pop(name, None)
    environment = make_environment(task_id, 8, block, engine="cpu", seed=1, threads=1)
    scene = Scene(environment, _PICTURE, _PICTURE)
    environment.reset()
    ours, reference = (lambda: _take_all(scene, False)), (lambda: _take_all(scene, True))
    for warm_up in (ours, reference):
        warm_up()
    mine, theirs = median_seconds([ours, reference], repeats)
    scene.close()
    name = f"{task_id}, pictures of {_PICTURE} x {_PICTURE}"
    return Row(name, "without visual randomization", theirs / mine, 8 / mine, 8 / theirs)


def _take_all(scene: Scene, nominal: bool) -> None:
    for index in range(8):
        scene.picture(index, nominal)


_FRAME = 96  # pixels along an edge


def bench_frames(task_id: str, seconds: float) -> list[Row]:
    """Frames of `simreal render`, physics and looks included, against those of MuJoCo's own `Renderer` of that size, as
    it comes: nominal looks, and no physics. Raises UserError where nothing can be rendered.

    Random looks are all but those that ask for shadows and mirrors, as above.
    """
    block = visual_block(make_task(task_id))
    for name in ("light_shadow", "material_reflectance"):
        block["parameters"].pop(name, None)
    theirs = _of_mujoco(task_id, seconds)
    rows = []
    for workers, looks, what in ((0, {}, "one process"), (None, {}, "all processors"), (None, block, "random looks")):
        mine = _of_ours(PicturePlan(task_id, ("view",), _FRAME, _FRAME, randomization=looks), workers, seconds)
        name = f"{task_id}, frames of {_FRAME} x {_FRAME}, {what}"
        rows.append(Row(name, "mujoco.Renderer", mine / theirs, mine, theirs))
    return rows


def _of_ours(plan: PicturePlan, workers: int | None, seconds: float) -> float:
    """Frames per second once all workers have begun."""
    source = ChunkSource(plan, workers)
    chunks = source.frames(0, 1_000_000_000)
    for _ in range(1 + source.ahead):
        next(chunks)
    began, frames = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        frames += len(next(chunks).worlds)
    took = time.perf_counter() - began
    source.close()
    return frames / took


def _of_mujoco(task_id: str, seconds: float) -> float:
    """Frames per second of `mujoco.Renderer` as it comes."""
    environment = make_environment(task_id, 1, engine="cpu", seed=1, threads=1)
    environment.reset()
    model, data = environment.engine.export_to_mujoco(0)
    camera = view_of(environment, "view")
    with mujoco.Renderer(model, _FRAME, _FRAME) as renderer:
        frames, began = -3, time.perf_counter()
        while frames < 0 or time.perf_counter() < began + seconds:
            renderer.update_scene(data, camera)
            renderer.render()
            frames += 1
            began = time.perf_counter() if frames == 0 else began
        return frames / (time.perf_counter() - began)
