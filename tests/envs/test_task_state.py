"""What `preserved` undoes, and where."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from envs.common.rng import EpisodeRandom
from envs.engines.cpu import CpuEngine
from envs.task import ActionComponent, Component, Outcome, Task
from envs.task_state import preserved

MODEL = """<mujoco><worldbody><body><joint name="j" type="slide"/><geom size="0.1"/></body></worldbody>
<actuator><motor joint="j"/></actuator></mujoco>"""
N = 4
ROWS = torch.tensor([False, True, False, True])


@dataclass
class Filter:
    """A helper object as tasks have them."""

    value: Tensor = field(default_factory=lambda: torch.zeros(N, 2))
    calls: int = 0

    def __call__(self, x: float) -> None:
        self.value, self.calls = self.value + x, self.calls + 1


class Slotted:
    __slots__ = ("__private", "seen")

    def __init__(self) -> None:
        self.seen, self.__private = torch.zeros(N), 0

    def see(self) -> None:
        self.seen += 1.0
        self.__private += 1

    def both(self) -> tuple[list[float], int]:
        return self.seen.tolist(), self.__private


class Keeper(Task):
    """A task that keeps a bit of everything."""

    id, decimation, max_episode_steps = "keeper", 1, 10

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.observation = (Component("x", 1, "m"),)
        self.action = (ActionComponent("force", 1, "N", (1.0,), (0.0,)),)

    def on_attach(self) -> None:
        self.qpos = self.engine.data("qpos")
        self.rebound, self.in_place = torch.zeros(N, 2), torch.zeros(N, 2)
        self.second_axis, self.shared = torch.zeros(3, N), torch.zeros(5)
        self.array, self.number, self.flag, self.word = np.zeros((N, 2)), 0, False, "before"
        self.window: deque[Tensor] = deque([torch.zeros(N) for _ in range(3)], maxlen=3)
        self.each: list[int] = [0] * N
        self.pair, self.names = (torch.zeros(N), 0), {"a": torch.zeros(N)}
        self.filter, self.slotted = Filter(), Slotted()
        self.a, self.b = torch.full((N,), 1.0), torch.full((N,), 2.0)
        self.dice, self.tag = np.random.default_rng(0), {"x"}
        self.helpers: list[Filter] = []
        self.loop: list[Any] = []

    def change(self) -> None:
        self.rebound = self.rebound + 1.0
        self.in_place += 1.0
        self.second_axis[1] = 7.0
        self.shared[2] = 5.0
        self.array[:] += 1.0
        self.number, self.flag, self.word = self.number + 1, True, "after"
        self.window.append(torch.ones(N))
        self.each[:] = [k + 1 for k in self.each]
        self.pair = (self.pair[0] + 1.0, self.pair[1] + 1)
        self.names["a"].add_(1.0)
        self.names["new"] = torch.ones(N)
        self.filter(1.0)
        self.slotted.see()
        self.a, self.b = self.b, self.a.mul_(10.0)
        self.dice.random()
        self.tag.add("y")
        self.made = torch.ones(N)

    def state(self) -> dict[str, Any]:
        return {
            "rebound": self.rebound.tolist(), "in_place": self.in_place.tolist(), "shared": self.shared.tolist(),
            "second_axis": self.second_axis.tolist(), "array": self.array.tolist(), "each": list(self.each),
            "plain": (self.number, self.flag, self.word, set(self.tag)), "a": self.a.tolist(), "b": self.b.tolist(),
            "window": [w.tolist() for w in self.window], "pair": (self.pair[0].tolist(), self.pair[1]),
            "names": {key: value.tolist() for key, value in self.names.items()}, "slotted": self.slotted.both(),
            "filter": (self.filter.value.tolist(), self.filter.calls), "dice": self.dice.bit_generator.state,
            "attributes": sorted(vars(self)),
        }  # fmt: skip

    def reset(self, mask: Tensor) -> None: ...

    def command(self, action: Tensor) -> Tensor:
        return action

    def observe(self) -> Tensor:
        return self.qpos

    def outcome(self, action: Tensor) -> Outcome:
        raise NotImplementedError


@pytest.fixture
def task() -> Keeper:
    task = Keeper()
    task.attach(CpuEngine(task.model, N, threads=1), EpisodeRandom(0, N))
    return task


def test_without_rows_nothing_that_the_block_changes_remains(task: Keeper) -> None:
    task.change()
    before, objects = task.state(), {key: id(value) for key, value in vars(task).items()}
    with preserved(task):
        task.change()
        assert task.state() != before
    assert task.state() == before
    assert {key: id(value) for key, value in vars(task).items()} == objects


def test_without_rows_an_error_in_the_block_leaves_no_trace_either(task: Keeper) -> None:
    def fail() -> None:
        with preserved(task):
            task.change()
            raise KeyError

    before = task.state()
    with pytest.raises(KeyError):
        fail()
    assert task.state() == before


def test_without_rows_what_the_block_writes_to_the_engine_and_draws_at_random_is_undone(task: Keeper) -> None:
    friction = task.engine.field("geom_friction")
    nominal = friction.clone()

    def draws() -> tuple[float, ...]:
        return float(torch.rand(())), np.random.rand(), random.random()  # noqa: NPY002

    def seed() -> None:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)

    seed()
    expected = draws()
    seed()
    with preserved(task):
        task.qpos += 3.0
        task.engine.data("xfrc_applied")[:, 1] = 2.0
        friction.zero_()
        draws()
    assert not task.engine.data("qpos").any()
    assert torch.equal(friction, nominal)
    assert draws() == expected


def test_with_rows_changes_stand_there_and_nowhere_else(task: Keeper) -> None:
    objects = {"in_place": id(task.in_place), "window": id(task.window), "filter": id(task.filter)}
    with preserved(task, ROWS):
        task.change()
    rows = ROWS.float()
    assert torch.equal(task.rebound, rows[:, None].expand(N, 2))
    assert torch.equal(task.in_place, rows[:, None].expand(N, 2))
    assert torch.equal(task.second_axis, torch.stack((0 * rows, 7 * rows, 0 * rows)))
    assert np.array_equal(task.array, rows[:, None].expand(N, 2).numpy())
    assert task.each == [0, 1, 0, 1]
    assert [w.tolist() for w in task.window] == [[0] * N, [0] * N, rows.tolist()]
    assert task.pair[0].tolist() == rows.tolist()
    assert task.names["a"].tolist() == rows.tolist()
    assert task.filter.value[:, 0].tolist() == rows.tolist()
    assert task.slotted.both() == (rows.tolist(), 0)
    assert {"in_place": id(task.in_place), "window": id(task.window), "filter": id(task.filter)} == objects


def test_with_rows_what_belongs_to_no_environment_is_put_back(task: Keeper) -> None:
    dice = task.dice.bit_generator.state
    with preserved(task, ROWS):
        task.change()
    assert (task.number, task.flag, task.word, task.pair[1], task.filter.calls) == (0, False, "before", 0, 0)
    assert task.shared.tolist() == [0.0] * 5
    assert task.tag == {"x"}
    assert task.dice.bit_generator.state == dice


def test_with_rows_buffers_that_change_places_keep_each_environments_values_together(task: Keeper) -> None:
    with preserved(task, ROWS):
        task.change()  # a, b = 1, 2  ->  2, 10
    assert task.a.tolist() == [1.0, 2.0, 1.0, 2.0]
    assert task.b.tolist() == [2.0, 10.0, 2.0, 10.0]


def test_with_rows_what_the_block_makes_stays(task: Keeper) -> None:
    with preserved(task, ROWS):
        task.change()
    assert task.made.tolist() == [1.0] * N
    assert task.names["new"].tolist() == [1.0] * N


def test_with_rows_a_window_that_is_not_full_yet_keeps_its_length(task: Keeper) -> None:
    task.window = deque([torch.full((N,), 1.0), torch.full((N,), 2.0)], maxlen=3)
    with preserved(task, ROWS):
        task.window.append(torch.full((N,), 3.0))
    assert [w.tolist() for w in task.window] == [[1.0, 2.0, 1.0, 2.0], [2.0, 3.0, 2.0, 3.0]]


def test_with_rows_each_environments_own_object_counts(task: Keeper) -> None:
    task.helpers = [Filter() for _ in range(N)]
    with preserved(task, ROWS):
        for helper in task.helpers:
            helper.calls += 1
    assert [helper.calls for helper in task.helpers] == [0, 1, 0, 1]


@pytest.mark.parametrize("way", ["numpy", "data", "view"])
def test_changes_that_torch_does_not_count_are_undone(task: Keeper, way: str) -> None:
    for rows in (None, ROWS):
        with preserved(task, rows):
            if way == "numpy":
                task.in_place.numpy()[...] = 9.0
            elif way == "data":
                task.in_place.data[...] = 9.0
            else:
                task.in_place[:, 1].fill_(9.0)
        expected = 0.0 * task.in_place if rows is None else 9.0 * ROWS[:, None].float().expand(N, 2)
        if rows is not None and way == "view":
            expected = expected * torch.tensor([0.0, 1.0])
        assert torch.equal(task.in_place, expected)


def test_views_of_the_engine_are_not_the_tasks_own(task: Keeper) -> None:
    with preserved(task, ROWS):
        task.engine.data("qpos")[:] = 4.0
    assert task.qpos.tolist() == [[4.0]] * N


def test_a_task_that_leads_back_to_itself_is_walked_once(task: Keeper) -> None:
    task.filter.owner = task  # pyright: ignore[reportAttributeAccessIssue]
    loop: list[Any] = [task.filter]
    loop.append(loop)
    task.loop = loop
    with preserved(task, ROWS):
        task.filter(1.0)
    assert task.filter.value[:, 0].tolist() == ROWS.float().tolist()
