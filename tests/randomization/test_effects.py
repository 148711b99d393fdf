"""All effects together: nothing happens in the calibrated world, and a resumed run equals an uninterrupted one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_disturbance import FREE

from conftest import SLIDER, TinyTask, build, fixed_worlds, manual_layer, snapshot
from envs.manipulation.fetch import FetchTask
from envs.task import Task
from randomization.catalogue.timing_and_noise import EFFECTS
from randomization.parameters import RandomizationError, build_parameters


def possible(task: Task) -> dict[str, Any]:
    """Every effect that a task can have, each with its default range."""
    entries: dict[str, Any] = {}
    for quantity in EFFECTS:
        try:
            build_parameters(task, {quantity.name: {}} | ({quantity.needs: {}} if quantity.needs else {}))
        except RandomizationError:
            continue
        entries[quantity.name] = {}
    return entries


LIMITED = SLIDER.replace('joint="x"/>', 'joint="x" ctrllimited="true" ctrlrange="-1 1"/>')
TASKS = [lambda: TinyTask(LIMITED, spread=0.01), lambda: TinyTask(FREE), lambda: FetchTask("FetchPickAndPlace")]


def test_every_effect_exists_for_some_task() -> None:
    of_levels = {"terrain_difficulty"}  # of ground that has some: see test_terrain
    assert {name for make in TASKS for name in possible(make())} == {q.name for q in EFFECTS} - of_levels


@pytest.mark.parametrize("make", TASKS)
def test_in_the_calibrated_world_every_step_equals_the_plain_environment_bit_for_bit(make: Any) -> None:
    task, plain = make(), make()
    entries = possible(task)
    calibrated = [[q.nominal for q in EFFECTS if q.name in entries]] * 3
    a = build(task, 3, fixed_worlds(task, {q: {"range": _around(q)} for q in entries}, calibrated))
    b = build(plain, 3)
    assert torch.equal(a.observed.policy, b.observed.policy)
    for step in range(12):
        action = torch.sin(torch.arange(3.0 * task.action_size) + step).view(3, -1)
        x, y = a.step(action), b.step(action)
        for name in ("policy", "achieved_goal"):
            first, second = getattr(x.observed, name), getattr(y.observed, name)
            assert first is second is None or torch.equal(first, second)
        assert torch.equal(x.final.policy, y.final.policy)
        assert torch.equal(x.reward, y.reward)
        assert torch.equal(a.engine.data("qvel"), b.engine.data("qvel"))


def _around(name: str) -> list[float]:
    """The default range of an effect, made to hold its calibrated value."""
    quantity = next(q for q in EFFECTS if q.name == name)
    low, high = quantity.default_range
    return [min(low, quantity.nominal), max(high, quantity.nominal)]


@pytest.mark.parametrize("make", TASKS)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(make: Any) -> None:
    def new() -> Any:
        task = make()
        task.max_episode_steps = 7
        return build(task, 4, manual_layer(task, possible(task)), seed=3)

    def act(env: Any, step: int) -> Any:
        return env.step(torch.sin(torch.arange(4.0 * env.task.action_size) + step).view(4, -1))

    one, other = new(), new()
    for step in range(10):
        act(one, step)
    saved = snapshot(one)
    expected = [act(one, step) for step in range(10, 22)]
    act(other, 0)
    other.load_state_dict(saved)
    for step, result in enumerate(expected, start=10):
        again = act(other, step)
        assert torch.equal(again.observed.policy, result.observed.policy)
        assert torch.equal(again.final.policy, result.final.policy)
        assert torch.equal(again.reward, result.reward)
    for field in ("qpos", "qvel", "xfrc_applied"):
        assert torch.equal(one.engine.data(field), other.engine.data(field))


def test_an_episode_is_the_same_whatever_the_other_environments_do() -> None:
    def play(num_envs: int) -> list[torch.Tensor]:
        task = TinyTask(FREE, max_episode_steps=20)
        entries = {name: entry for name, entry in possible(task).items() if not name.startswith("adversary")}
        env = build(task, num_envs, manual_layer(task, entries), seed=1)
        return [env.step(torch.full((num_envs, 1), 0.3)).final.policy[0] for _ in range(15)]

    for a, b in zip(play(1), play(5), strict=True):
        assert torch.equal(a, b)


def test_effects_act_on_the_environments_of_their_world_only_and_do_something() -> None:
    task = FetchTask("FetchPush")
    entries = possible(task)
    low = [0.0 if q.nominal == 0 else q.nominal for q in EFFECTS if q.name in entries]
    high = [q.default_range[1] for q in EFFECTS if q.name in entries]
    env = build(task, 2, fixed_worlds(task, {q: {"range": _around(q)} for q in entries}, [low, high]))
    plain_task = FetchTask("FetchPush")
    plain = build(plain_task, 2)
    a, b = env.observed.policy, plain.observed.policy
    for step in range(5):
        action = torch.sin(torch.arange(8.0) + step).view(2, 4)
        a, b = env.step(action).final.policy, plain.step(action).final.policy
    assert torch.equal(a[0], b[0])
    measured = [name for name in task.slices() if name != "desired_goal"]
    differs = [not torch.equal(a[1, task.slices()[name]], b[1, task.slices()[name]]) for name in measured]
    assert all(differs)
