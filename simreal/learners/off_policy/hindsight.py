"""Finds out which parts of a transition depend on its goal (reward, termination, observation), to relabel all of them.

A task states its reward for other goals; the rest is found out by experiment. Two copies of the environments make
equal steps, one of them with its goals replaced: just reached, nearly reached, far away. What differs between the two
depends on the goal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.environment import Environment, StepResult
from envs.task import Task

GoalValue = Callable[[Tensor, Tensor], Tensor]
"""A value [...] for achieved and desired goals [..., G]."""

ENVS = 4  # environments of an experiment
_STEPS = 48
_ALIKE = 1e-5  # relative difference of what is the same but for rounding


def never(achieved: Tensor, _desired: Tensor) -> Tensor:
    """No goal ends an episode: False [...]."""
    return torch.zeros(achieved.shape[:-1], dtype=torch.bool, device=achieved.device)


@dataclass(frozen=True)
class Hindsight:
    """What relabelling a transition with another goal changes.

    Attributes:
        reward: of goals; what else a task's reward has does not change.
        terminated: [...] bool, whether reaching the goal ends the episode; ends for other reasons stay.
        derive: recomputes, in observations [B, nobs] of the policy group, what follows from the goal; None: nothing.
        columns: of the policy group that do.
        blocks_privileged: the first component of the privileged group that does; that group is not relabelled.
    """

    reward: GoalValue
    terminated: GoalValue = never
    derive: Callable[[Tensor], Tensor] | None = None
    columns: tuple[int, ...] = ()
    blocks_privileged: str | None = None

    def check_privileged(self, what: str) -> None:
        """Raise ValueError where the setting `what` has critics read a privileged group that follows from the goal."""
        if self.blocks_privileged is not None:
            raise ValueError(
                f"{what}: component {self.blocks_privileged!r} of the privileged group follows from the goal, which "
                "hindsight replaces; set her_k to 0, or have critics read what the policy does"
            )

    def rederived(self, observation: Tensor) -> Tensor:
        """Columns `columns` of observations [B, nobs] whose desired goal, their last values, was replaced."""
        assert self.derive is not None
        return self.derive(observation.clone())[:, list(self.columns)].to(observation)


def following(task: Task) -> dict[str, slice]:
    """The components of the policy group that are derived from the desired goal, directly or by way of others."""
    names = {"desired_goal"}
    parts = task.components("policy")
    for _ in parts:
        names |= {part.name for part in parts if names & set(part.derived_from)}
    return {name: where for name, where in task.slices().items() if name in names - {"desired_goal"}}


def find_out(task: Task, one: Environment, other: Environment) -> Hindsight:
    """What follows from the goal in a task.

    Args:
        task: that will learn.
        one, other: environments of the same task, world and seed, which nobody needs afterwards.

    Raises:
        ValueError: what follows from the goal does not show, or the task states otherwise; one line with advice.
    """
    engine = task.engine

    def derive(observation: Tensor) -> Tensor:
        return task.derive(observation.to(engine.device, engine.dtype))

    columns = tuple(i for where in following(task).values() for i in range(where.start, where.stop))
    pairs = _compare(one, other)
    if pairs is not None:
        _check_reward(task, pairs)
        _check_observation(task, pairs, derive, columns)
    terminated, blocks = _rule(task, pairs), None if pairs is None else _privileged_that_follows(task, pairs)
    return Hindsight(task.goal_reward, terminated, derive if columns else None, columns, blocks)


@dataclass(frozen=True)
class _Pairs:
    """K steps that differ between the two copies only in what follows from their goals."""

    achieved: Tensor  # [K, G]
    goal: Tensor  # [K, G] the environments' own
    policy: Tensor  # [K, nobs]
    privileged: Tensor  # [K, nprivileged]
    reward: Tensor  # [K]
    terminated: Tensor  # [K]
    other_goal: Tensor  # this and what follows: of the copy whose goals were replaced
    other_policy: Tensor
    other_privileged: Tensor
    other_reward: Tensor
    other_terminated: Tensor
    kept: Tensor  # [K] bool, the replaced goal was still there after the step


def _compare(one: Environment, other: Environment) -> _Pairs | None:
    """Make steps in both. None: the goals of the task cannot be replaced, or steps cannot be repeated."""
    one.reset()
    other.reset()
    generator = torch.Generator().manual_seed(0)
    rows: list[tuple[Tensor, ...]] = []
    for step in range(_STEPS):
        action = torch.rand(one.num_envs, one.task.action_size, generator=generator, dtype=torch.float64) * 2.0 - 1.0
        before = one.task.goal.clone()
        a = one.step(action)
        assert a.final.achieved_goal is not None
        goal = _goal_to_try(a.final.achieved_goal, before, step)
        try:
            other.task.goal.copy_(goal)
            b = other.step(action)
        except TypeError:
            return None
        assert b.final.achieved_goal is not None
        assert b.final.desired_goal is not None
        sound = (a.final.achieved_goal == b.final.achieved_goal).all(dim=1) & ~a.diverged & ~b.diverged
        kept = (b.final.desired_goal == goal).all(dim=1)
        row = (a.final.achieved_goal, before, a.final.policy, _privileged(a), a.reward, a.terminated, goal,
               b.final.policy, _privileged(b), b.reward, b.terminated, kept)  # fmt: skip
        rows.append(tuple(value[sound] for value in row))  # copies
        one.reset(b.done & ~a.done)
        other.reset(a.done & ~b.done)
    pairs = _Pairs(*(torch.cat(column) for column in zip(*rows, strict=True)))
    return pairs if bool(pairs.kept.any()) else None


def _privileged(result: StepResult) -> Tensor:
    """The privileged group [N, nprivileged], with no value in tasks that have none."""
    found = result.final.privileged
    return result.final.policy[:, :0] if found is None else found


def _goal_to_try(achieved: Tensor, natural: Tensor, step: int) -> Tensor:
    """Goals [N, G]: what was achieved, step after step; the environment's own; between the two; another one's."""
    near = achieved + (natural - achieved) * 0.5 ** (step % 16)
    far = natural.roll(1, 0) if step % 2 else achieved
    tries = torch.stack((achieved, natural, near, far))
    return tries[torch.arange(len(achieved)) % len(tries), torch.arange(len(achieved))]


def _check_reward(task: Task, pairs: _Pairs) -> None:
    """Raise ValueError if a reward follows the goal in another way than `goal_reward` says."""
    own, others = (task.goal_reward(pairs.achieved, goal) for goal in (pairs.goal, pairs.other_goal))
    expected = pairs.reward - own + others
    size = torch.stack((pairs.reward, pairs.other_reward, own, others)).abs().amax(dim=0)
    wrong = (pairs.other_reward - expected).abs() > _ALIKE * size
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise _refusal(
            task,
            f"with another goal its reward is {float(pairs.other_reward[i]):.3g} where goal_reward says "
            f"{float(expected[i]):.3g}",
            "let goal_reward say all that follows from the goal",
        )


def _check_observation(task: Task, pairs: _Pairs, derive: Callable[[Tensor], Tensor], columns: tuple[int, ...]) -> None:
    """Raise ValueError if a component follows the goal without saying so, or otherwise than `derive` says."""
    size, kept = task.goal_size, pairs.kept
    seen, plain = pairs.other_policy[kept], pairs.policy[kept]
    expected = plain.clone()
    expected[:, -size:] = pairs.other_goal[kept].to(expected)
    if columns:
        try:
            derived = derive(expected.clone()).to(expected)
        except (RuntimeError, IndexError) as error:
            reason = f"its derive does not take {len(expected)} observations: {str(error).splitlines()[0]}"
            raise _refusal(task, reason, "compute from the observations given alone") from None
        expected[:, list(columns)] = derived[:, list(columns)]
    scale = torch.maximum(seen.abs().amax(dim=0), expected.abs().amax(dim=0))
    wrong = ((seen - expected).abs() > _ALIKE * scale).any(dim=0)
    if not bool(wrong.any()):
        return
    column = int(wrong.nonzero()[0])
    name = next(name for name, where in task.slices().items() if where.start <= column < where.stop)
    if name == "desired_goal":
        raise _refusal(task, "its component 'desired_goal' is not its goal", "observe `goal` there")
    if column in columns:
        raise _refusal(task, f"its component {name!r} follows the goal otherwise than derive says", "correct `derive`")
    advice = f"name 'desired_goal' in the derived_from of {name!r} and compute it in `derive`"
    raise _refusal(task, f"its component {name!r} follows the goal and does not say so", advice)


def _privileged_that_follows(task: Task, pairs: _Pairs) -> str | None:
    """The first component of the privileged group that differs where goals do."""
    plain, seen = pairs.privileged[pairs.kept], pairs.other_privileged[pairs.kept]
    scale = torch.maximum(seen.abs().amax(dim=0), plain.abs().amax(dim=0))
    wrong = ((seen - plain).abs() > _ALIKE * scale).any(dim=0)
    if not bool(wrong.any()):
        return None
    column, start = int(wrong.nonzero()[0]), 0
    for part in task.components("privileged"):
        start += part.size
        if column < start:
            return part.name
    raise AssertionError("the privileged group has more values than its components")


def _rule(task: Task, pairs: _Pairs | None) -> GoalValue:
    """Which goals end an episode: as the task states, or as the experiment shows. Raises ValueError."""
    advice = "implement goal_terminated(achieved, desired)"
    stated = _stated(task)
    if stated is not None:
        if pairs is not None and not _agrees(stated, pairs):
            raise _refusal(task, "its goal_terminated says otherwise than its outcome does", "correct goal_terminated")
        return stated
    if pairs is None:
        raise _refusal(task, "whether reaching a goal ends an episode cannot be tried out", advice)
    for rule in (never, task.goal_success):
        if _agrees(rule, pairs):
            return rule
    raise _refusal(task, "which goals end an episode does not follow from goal_success", advice)


def _stated(task: Task) -> GoalValue | None:
    """`goal_terminated` of a task that has it."""
    zeros = torch.zeros(1, task.goal_size, dtype=task.engine.dtype, device=task.engine.device)
    if task.goal_terminated(zeros, zeros) is None:
        return None

    def terminated(achieved: Tensor, desired: Tensor) -> Tensor:
        value = task.goal_terminated(achieved, desired)
        assert value is not None
        return value

    return terminated


def _agrees(rule: GoalValue, pairs: _Pairs) -> bool:
    """Whether a rule explains which replaced goals ended an episode that would have gone on with its own."""
    open_ended = ~pairs.terminated
    try:
        said = rule(pairs.achieved, pairs.other_goal)
    except TypeError:  # a task without goal_success
        return False
    return torch.equal(said[open_ended], pairs.other_terminated[open_ended])


def _refusal(task: Task, reason: str, advice: str) -> ValueError:
    return ValueError(f"hindsight cannot relabel {task.id}: {reason}; {advice}, or set learner.her_k to 0")
