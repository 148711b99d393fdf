"""No quantity is accepted without a word for an object to which it does nothing: the rule that randomize.md states."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import mujoco
import pytest

from conftest import TinyTask
from envs.task import Task
from noop import accepted, silent
from noop_models import INLINE
from randomization.catalogue.table import QUANTITIES

PHYSICS = [q for q in QUANTITIES.values() if q.channel == "physics"]
EFFECTS = [q for q in QUANTITIES.values() if q.channel not in ("physics", "visual")]
# What shows after minutes, or where a motor reaches a limit, which is a matter of luck: see `test_motors`
RARE = {q.name for q in EFFECTS if q.name.startswith("motor_") and "friction" not in q.name and "sti" not in q.name}


@pytest.mark.parametrize("model", INLINE)
def test_whatever_is_accepted_without_a_word_changes_the_motion(model: str) -> None:
    task = TinyTask(INLINE[model], decimation=5, max_episode_steps=100)
    assert {q.name: found for q in PHYSICS if (found := silent(task, q))} == {}


@pytest.mark.parametrize(
    "model", ["planar", *(pytest.param(name, marks=pytest.mark.slow) for name in ("stones", "motors"))]
)
def test_whatever_is_accepted_of_commands_sensors_and_disturbances_shows(model: str) -> None:
    task = TinyTask(INLINE[model], decimation=5, max_episode_steps=100)
    assert {q.name: found for q in EFFECTS if q.name not in RARE and (found := silent(task, q))} == {}


def test_the_models_above_show_every_quantity() -> None:
    tasks: list[Task] = [TinyTask(xml, decimation=5) for xml in INLINE.values()]
    tasks[0].terrain_levels = 2  # as ground with levels has: `test_terrain` shows what it does there
    assert {q.name for q in (*PHYSICS, *EFFECTS) if not any(accepted(task, q) for task in tasks)} == set()


def test_a_silent_no_op_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("idle_because", "only_shown"):
        monkeypatch.setattr(f"randomization.parameters.{name}", lambda *_: "")
    task = TinyTask(INLINE["planar"], decimation=5, max_episode_steps=100)
    assert silent(task, QUANTITIES["gravity"]) == ["y"]
    assert silent(task, QUANTITIES["body_com_y"]) == ["leg", "torso"]


ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
# Whether a limit or a shape is ever reached is a matter of luck in a large model; `test_contacts` and the small models
# above look at those.
SURE = [q for q in PHYSICS if not q.name.startswith("geom_") and "range" not in q.name]


# One of every kind in the default run: free, planar and fixed bases; the others differ from these in their numbers.
QUICK = ("ant", "half_cheetah", "inverted_double_pendulum", "pusher_v5", "reacher", "swimmer", "walker2d_v5")
MODELS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted(path.stem for path in ASSETS.glob("*.xml"))
]


@pytest.mark.parametrize("name", MODELS)
def test_whatever_is_accepted_of_models_that_packages_ship_changes_the_motion(name: str) -> None:
    spec = mujoco.MjSpec.from_file(str(ASSETS / f"{name}.xml"))
    spec.compile()
    task = TinyTask(spec.to_xml(), decimation=5, max_episode_steps=100)
    assert {q.name: found for q in SURE if (found := silent(task, q))} == {}
