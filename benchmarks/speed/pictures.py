"""Pictures of randomized worlds against nominal ones."""

from __future__ import annotations

from benchmarks.speed.timing import Row, median_seconds
from envs.registry import make_task
from simreal.training.build import make_environment
from simreal.vision.rendering.contact_sheet import visual_block
from simreal.vision.rendering.scene import Scene

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
