"""Whether a task keeps to what `Task` promises: looked at once, when it is made and at its first reset and step.

A wrong shape would otherwise come to light as a broadcast that is silently wrong, or deep within a learner.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import mujoco
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.messages import nearest
from envs.engines.base import COMMAND_FIELDS, model_problems
from envs.task import ActionComponent, Component, Group, Outcome, Task
from envs.task_state import preserved
from envs.validation.contract_model import check_against_model, problem
from envs.validation.contract_probe import check_truth
from envs.validation.contract_start import shown_positions
from envs.validation.first_look import blaming


def check_class(task_id: str, found: Any) -> Any:
    """What `module:Class` names, if it is a class of tasks. Raises TaskError."""
    if not (isinstance(found, type) and issubclass(found, Task)):
        kind = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise TaskError(f"task: {task_id}: expected a subclass of simreal.Task, got {kind}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise TaskError(f"task: {task_id}: {found.__name__} does not define {missing}")
    return found


def check_task(task_id: str, task: Any) -> Task:
    """A task whose attributes are complete; its `id` is `task_id` where it has none. Raises TaskError."""
    if not isinstance(task, Task):
        raise TaskError(f"task: {task_id}: expected a simreal.Task, got {type(task).__name__}")
    if not isinstance(getattr(task, "id", None), str):
        task.id = task_id
    expected: dict[str, type] = {
        "model": mujoco.MjModel, "observation": tuple, "action": tuple, "decimation": int, "max_episode_steps": int,
    }  # fmt: skip
    for name, kind in expected.items():
        value = getattr(task, name, None)
        if not isinstance(value, kind):
            got = "nothing" if value is None else type(value).__name__
            raise problem(task, name, f"expected {kind.__name__}", got)
    for name in ("decimation", "max_episode_steps"):
        if getattr(task, name) < 1:
            raise problem(task, name, "expected at least 1", str(getattr(task, name)))
    if type(task).make_engine is Task.make_engine:  # others step simulations of their own
        for obstacle in model_problems(task.model):
            raise TaskError(f"task: {task.id}: model: {obstacle}")
    _check_components(task)
    for name in task.command_fields:
        if name not in COMMAND_FIELDS:
            raise problem(task, "command_fields", f"expected some of {', '.join(COMMAND_FIELDS)}", repr(name))
    check_against_model(task)
    for part in task.action:
        for key in ("initial_target", "relative"):
            if isinstance(name := getattr(part, key), str) and (key, name) != ("relative", "target"):
                shown_positions(task, part, name, key)
    return task


def _check_components(task: Task) -> None:
    for name, parts, kind in (("observation", task.observation, Component), ("action", task.action, ActionComponent)):
        for part in parts:
            if not isinstance(part, kind):
                raise problem(task, name, f"expected {kind.__name__}s", type(part).__name__)
            if not isinstance(part.name, str) or not part.name:
                raise problem(task, name, "expected components with names", repr(part.name))
            if part.size < 1:
                raise problem(task, f"{name} {part.name!r}", "expected a size of at least 1", str(part.size))
            _check_values(task, f"{name} {part.name!r}", part)
        names = [part.name for part in parts]
        if len(set(names)) < len(names) or not names:
            raise problem(task, name, "expected components of different names", ", ".join(names) or "none")
    if task.goal_size:
        last = task.components("policy")[-1]
        if (last.name, last.size) != ("desired_goal", task.goal_size):
            expected = f"expected 'desired_goal' of size {task.goal_size} as the last policy component of a goal task"
            raise problem(task, "observation", expected, f"{last.name!r} of size {last.size}")


def _check_values(task: Task, where: str, part: Component | ActionComponent) -> None:
    """Lists of a component have a value for each of its own, and numbers make sense."""
    lengths: dict[str, tuple[Any, ...]] = {"elements": part.elements} if part.elements else {}
    of_targets: dict[str, tuple[Any, ...]] = {}
    if isinstance(part, Component):
        lengths |= {"relative_to": part.relative_to} if part.relative_to else {}
        if part.limits is not None and not part.limits[0] < part.limits[1]:
            raise problem(task, f"{where}: limits", "expected the lowest before the highest value", str(part.limits))
    else:
        lengths |= {"scale": part.scale, "offset": part.offset}
        of_targets = {key: given for key in ("stiffness", "damping", "effort_limit") if (given := getattr(part, key))}
        if part.target_limits is not None:
            of_targets |= {f"target_limits[{side}]": part.target_limits[side] for side in (0, 1)}
        if isinstance(part.initial_target, tuple):
            of_targets["initial_target"] = part.initial_target
    for key, values in (lengths | of_targets).items():
        size = part.sent_size if isinstance(part, ActionComponent) and key in of_targets else part.size
        if len(values) != size:
            raise problem(task, f"{where}: {key}", f"expected {size} values", str(len(values)))
        if key in ("scale", "offset", "initial_target") and not all(math.isfinite(value) for value in values):
            raise problem(task, f"{where}: {key}", "expected finite numbers", str(values))
    if isinstance(part, ActionComponent):
        _check_sent(task, where, part)


def _check_sent(task: Task, where: str, part: ActionComponent) -> None:
    """How targets are limited and smoothed, and from where."""
    if not 0.0 < part.smoothing <= 1.0:
        raise problem(task, f"{where}: smoothing", "expected a number above 0 and up to 1", repr(part.smoothing))
    if part.target_limits is not None:
        for low, high in zip(*part.target_limits, strict=True):
            if not low <= high:
                raise problem(task, f"{where}: target_limits", "expected the lowest before the highest targets",
                              f"{low:g} to {high:g}")  # fmt: skip
    shown = {"initial_target": part.initial_target, "relative": part.relative}
    if part.relative is None and part.inverse is not None:
        raise problem(
            task, f"{where}: relative", "expected what steps of joints are added to, such as 'target'", "None"
        )
    if part.relative == "target":
        del shown["relative"]
    for key, name in shown.items():
        if not isinstance(name, str):
            continue
        names = [c.name for c in task.components("policy") if c.size >= part.sent_size]
        if name not in names:
            raise problem(task, f"{where}: {key}", "expected a component of the observation",
                          f"{name!r}{nearest(name, names)}")  # fmt: skip


def check_observed(
    task: Task, num_envs: int, observation: Tensor, privileged: Tensor | None, achieved_goal: Tensor | None
) -> None:
    """The first observations. Raises TaskError, naming the component where one is to blame."""
    groups: list[tuple[Group, str, Tensor | None]] = [
        ("policy", "observe", observation),
        ("privileged", "observe_privileged", privileged),
    ]
    for group, method, values in groups:
        parts = task.components(group)
        if values is None and not parts:
            continue
        listed = " + ".join(f"{part.name} {part.size}" for part in parts) or "no component"
        _check(task, method, values, (num_envs, sum(part.size for part in parts)), "real", listed)
        assert values is not None
        for name, where in task.slices(group).items():
            if not bool(torch.isfinite(values[:, where]).all()):
                raise problem(task, method, f"component {name!r}: expected finite values", "NaN or infinity")
    if task.goal_size:
        _check(task, "achieved_goal", achieved_goal, (num_envs, task.goal_size), "real")
    check_truth(task)


def check_command(task: Task, num_envs: int, size: int, command: Tensor) -> None:
    """The first command. Raises TaskError."""
    _check(task, "command", command, (num_envs, size), "real", " + ".join(task.command_fields))


def check_outcome(task: Task, num_envs: int, outcome: Any) -> None:
    """What the first step led to. Raises TaskError."""
    if not isinstance(outcome, Outcome):
        raise problem(task, "outcome", "expected a simreal.Outcome", type(outcome).__name__)
    _check(task, "outcome: reward", outcome.reward, (num_envs,), "real")
    flags = {"terminated": outcome.terminated, "success": outcome.success}
    if outcome.truncated is not None:
        flags["truncated"] = outcome.truncated
    for name, values in flags.items():
        _check(task, f"outcome: {name}", values, (num_envs,), "bool")
    for name, values in outcome.terms.items():
        _check(task, f"outcome: terms: {name}", values, (num_envs,), "any")


def check_goals(task: Task, achieved: Tensor) -> None:
    """Rewards and successes for as many goals as there are environments, and for one more. Raises TaskError.

    A task whose goals nobody can ask about (`hindsight_obstacle`) is not asked.
    """
    for name, kind in (("goal_reward", "real numbers"), ("goal_success", "booleans")):
        if task.hindsight_obstacle is not None or getattr(type(task), name) is getattr(Task, name):
            continue
        for count in (len(achieved), len(achieved) + 1):
            goals = achieved[:1].expand(count, -1).clone()
            with preserved(task), blaming(task):
                got: Any = getattr(task, name)(goals, goals.clone())
            shown = type(got).__name__
            if isinstance(got, Tensor):
                right = got.dtype == torch.bool if kind == "booleans" else got.is_floating_point()
                if right and got.shape == (count,):
                    continue
                shown = f"{str(got.dtype).removeprefix('torch.')} {list(got.shape)}"
            raise problem(task, name, f"expected {kind} [{count}] for goals {list(goals.shape)}", shown)


def _check(task: Task, where: str, value: Any, shape: tuple[int, ...], kind: str, listed: str = "") -> None:
    what = f"{list(shape)}" + (f" ({listed})" if listed else "")
    if not isinstance(value, Tensor):
        raise problem(task, where, f"expected a tensor {what}", type(value).__name__)
    if tuple(value.shape) != shape:
        raise problem(task, where, f"expected shape {what}", str(list(value.shape)))
    name = str(value.dtype).removeprefix("torch.")
    if (kind == "real" and not value.is_floating_point()) or (kind == "bool" and value.dtype != torch.bool):
        raise problem(task, where, f"expected {'a floating-point type' if kind == 'real' else 'bool'}", name)
