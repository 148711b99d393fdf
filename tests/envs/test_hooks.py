"""When a task's hooks act: once per control step and once at an environment's own reset, whatever else goes on."""

from __future__ import annotations

from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from conftest import build, fixed_worlds, manual_layer, only
from envs.environment import Environment
from envs.task import ActionComponent, Component, Outcome, Task
from randomization.catalogue.quantity import Quantity
from randomization.catalogue.timing_and_noise import EFFECTS

# A free body that a task pushes, an arm on a servo, a floor.
MODEL = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1"/>
    <body name="ball" pos="0 0 0.1"><freejoint/><geom size="0.1" mass="1"/></body>
    <body name="arm" pos="0 1 1">
      <joint name="hinge" type="hinge" axis="0 0 1" damping="1"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
    </body>
  </worldbody>
  <actuator><position name="servo" joint="hinge" kp="20" ctrlrange="-2 2" forcerange="-50 50"/></actuator>
</mujoco>
"""
N = 3


class Remembering(Task):
    """Keeps a filter in `command`, the last action in `decided`, a history in `observe` and what
    goes with it, a force of its own in `xfrc_applied`.

    Args:
        early: environments whose episodes end after two steps.
        in_place: write to the same tensors instead of making new ones.
    """

    id, decimation, max_episode_steps = "remembering", 4, 6
    goal_size = 1

    def __init__(self, early: tuple[int, ...] = (), in_place: bool = False) -> None:
        self.early, self.in_place = early, in_place
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.observation = (
            Component("angle", 1, "rad", "joint"),
            Component("smooth", 1, "rad", "joint"),
            Component("last_action", 1, "1", measured=False),
            Component("history", 3, "1", measured=False),
            Component("ball", 3, "m"),
            Component("looks", 2, "1", measured=False),
            Component("secret", 1, "1", group="privileged"),
            Component("desired_goal", 1, "rad", measured=False),
        )
        self.action = (ActionComponent("target", 1, "rad", (1.0,), (0.0,)),)

    def on_attach(self) -> None:
        n, zeros = self.engine.num_envs, torch.zeros
        self.qpos, self.xfrc = self.engine.data("qpos"), self.engine.data("xfrc_applied")
        self.target, self.last, self.history = (zeros(n, size, dtype=torch.float64) for size in (1, 1, 3))
        self.steps, self.secret, self.smooth, self.reached = (zeros(n, 1, dtype=torch.float64) for _ in range(4))
        self.endings = torch.zeros(n, dtype=torch.bool)
        self.endings[list(self.early)] = True

    def reset(self, mask: Tensor) -> None:
        for kept in (self.target, self.last, self.history, self.steps, self.secret, self.smooth, self.reached):
            kept[mask] = 0.0
        self.xfrc[:, 1, 0] = torch.where(mask, 0.3, self.xfrc[:, 1, 0])

    def decided(self, action: Tensor) -> None:
        self.last = self._kept(self.last, 0.5 * self.last + action)

    def command(self, action: Tensor) -> Tensor:
        self.target = self._kept(self.target, self.target + 0.3 * (action.double() - self.target))
        return self.target

    def after_step(self) -> None:
        self.steps = self._kept(self.steps, self.steps + 1.0)

    def observe(self) -> Tensor:
        self.history = self._kept(self.history, torch.cat((self.history[:, 1:], self.steps), dim=1))
        angle, looks = self.qpos[:, 7:], torch.cat((self.secret, self.reached), dim=1)
        self.smooth = self._kept(self.smooth, 0.5 * self.smooth + 0.5 * angle)
        return torch.cat((angle, self.smooth, self.last, self.history, self.qpos[:, :3], looks, self.goal), dim=1)

    def observe_privileged(self) -> Tensor:
        self.secret = self._kept(self.secret, self.secret + 1.0)
        return self.secret

    def achieved_goal(self) -> Tensor:
        self.reached = self._kept(self.reached, self.reached + 1.0)
        return self.reached

    def outcome(self, action: Tensor) -> Outcome:
        ends = self.endings & (self.steps[:, 0] >= 2)
        return Outcome(self.qpos[:, 7], ends, self.qpos[:, 7] > 0.1)

    def _kept(self, old: Tensor, new: Tensor) -> Tensor:
        return old.copy_(new) if self.in_place else new


def played(env: Environment, steps: int = 14) -> list[Tensor]:
    """Everything that the environments show and remember, step by step."""
    shown = [env.observed.policy]
    for k in range(steps):
        action = torch.sin(torch.arange(env.num_envs)[:, None] + 0.7 * k)
        result = env.step(action)
        task: Any = env.task
        shown += [result.final.policy, result.observed.policy, result.reward, result.done.double()]
        for group in ("privileged", "achieved_goal"):
            value = getattr(result.observed, group)
            assert value is not None
            shown.append(value[:, :1])
        shown += [task.target.clone(), task.last.clone(), task.history.clone(), task.secret.clone()]
        shown += [env.engine.data(name).clone() for name in ("qpos", "qvel", "xfrc_applied", "ctrl")]
    return shown


def assert_same(a: list[Tensor], b: list[Tensor], rows: list[int] | None = None) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x if rows is None else x[rows], y if rows is None else y[rows])


@pytest.mark.parametrize("in_place", [False, True])
def test_other_environments_resets_leave_no_trace(in_place: bool) -> None:
    calm, restless = (build(Remembering(early, in_place), N) for early in ((), (1,)))
    assert_same(played(calm), played(restless), rows=[0, 2])


@pytest.mark.parametrize("in_place", [False, True])
def test_hooks_that_observe_act_once_at_an_environments_own_reset_and_once_per_step(in_place: bool) -> None:
    env = build(Remembering((1,), in_place), N)
    task: Any = env.task
    assert task.history.tolist() == [[0.0, 0.0, 0.0]] * N
    assert task.secret[:, 0].tolist() == [1.0] * N
    env.step(torch.zeros(N, 1))
    result = env.step(torch.zeros(N, 1))
    assert result.done.tolist() == [False, True, False]
    assert task.history.tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 1.0, 2.0]]
    assert task.secret[:, 0].tolist() == [3.0, 1.0, 3.0]
    assert task.reached[:, 0].tolist() == [3.0, 1.0, 3.0]
    env.reset(only(N, 2))  # by the caller
    assert task.history.tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert task.secret[:, 0].tolist() == [3.0, 1.0, 1.0]


def test_an_environment_plays_the_same_alone_as_among_others() -> None:
    alone, among = build(Remembering(), 1), build(Remembering((1,)), N)
    assert_same([x[:1] for x in played(alone)], [x[:1] for x in played(among)])


def entries_of(quantity: Quantity) -> dict[str, Any]:
    """A quantity switched on with nothing in it, and what it needs likewise."""
    targets = {"component": {"of": "angle"}, "actuator": {"of": "servo"}, "action": {"of": "target"}}
    targets |= {"floating body": {"of": "ball"}, "moving body": {"of": ["ball", "arm"]}}
    nothing = [quantity.nominal, quantity.nominal]
    entries = {quantity.name: {"range": nothing, **targets.get(quantity.target, {})}}
    if quantity.needs:
        needed = next(q for q in EFFECTS if q.name == quantity.needs)
        entries = entries_of(needed) | {quantity.name: {"range": list(quantity.default_range)}}
        entries[quantity.name] |= targets.get(quantity.target, {})
    return entries


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("quantity", [q for q in EFFECTS if q.name != "terrain_difficulty"], ids=lambda q: q.name)
def test_an_effect_of_nothing_changes_nothing_bit_for_bit(quantity: Quantity, in_place: bool) -> None:
    plain, task = build(Remembering((1,), in_place), N), Remembering((1,), in_place)
    assert_same(played(plain), played(build(task, N, manual_layer(task, entries_of(quantity)))))


def test_until_the_first_command_arrives_the_command_of_an_action_of_zero_holds() -> None:
    # The filter starts at 0 and an action of zero leaves it there, although the first action moves it to 0.3.
    task = Remembering()
    env = build(task, 1, fixed_worlds(task, {"action_delay": {"range": [0, 20]}}, [[20.0]]))
    env.step(torch.ones(1, 1))
    assert env.engine.data("ctrl").tolist() == [[0.0]]
    env.step(torch.ones(1, 1))
    assert env.engine.data("ctrl").tolist() == [[pytest.approx(0.3)]]


class ForceInCommand(Remembering):
    """Writes to the engine in `command`, beside what it returns."""

    def command(self, action: Tensor) -> Tensor:
        self.engine.data("xfrc_applied")[:, 2, 2] = 5.0 * action[:, 0]
        return super().command(action)


def test_what_command_writes_to_the_engine_is_of_the_action_and_not_of_an_action_of_zero() -> None:
    task = ForceInCommand()
    env = build(task, 1, manual_layer(task, {"action_delay": {"range": [0, 0]}}))
    env.step(torch.ones(1, 1))
    assert float(env.engine.data("xfrc_applied")[0, 2, 2]) == 5.0


class Windy(Remembering):
    """A wind on the ball: written at the start of an episode (`steady`), or at every control step, growing."""

    steady = True

    def reset(self, mask: Tensor) -> None:
        super().reset(mask)
        self.xfrc[:, 1, 0] = torch.where(mask, 2.0, self.xfrc[:, 1, 0])

    def decided(self, action: Tensor) -> None:
        super().decided(action)
        if not self.steady:
            self.xfrc[:, 1, 0] = 2.0 + self.steps[:, 0]


@pytest.mark.parametrize("steady", [True, False])
def test_random_forces_add_to_the_forces_of_the_task(steady: bool) -> None:
    # of 1 m/s2 on the ball of 1 kg, a new one at every step
    entries = {"force_size": {"of": "ball", "range": [0, 1]}, "force_probability": {"range": [0, 1]}}
    applied = []
    for size in (0.0, 1.0):
        task = Windy()
        task.steady = steady
        env = build(task, N, fixed_worlds(task, entries, [[size, 1.0]] * N))
        rows = []
        for _ in range(5):
            env.step(torch.zeros(N, 1))
            rows.append(task.xfrc[:, 1, 0].clone())
        applied.append(torch.stack(rows))
    nothing, some = applied
    assert nothing.tolist() == [[2.0 if steady else 2.0 + k] * N for k in range(5)]
    assert bool((some != nothing).all())
    assert float((some - nothing).abs().amax()) < 6.0  # 6 deviations: forces of earlier steps do not pile up
