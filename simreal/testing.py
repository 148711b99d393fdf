"""Contract test for tasks: what every learner, curriculum and exported bundle relies on, played out on a few episodes.

    from simreal.testing import check_task

    def test_my_task():
        check_task(MyTask, option=3)

Works within pytest and alone. The first promise that the task breaks is a `BrokenTaskError` of one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from envs.common.step_records import Observed, StepResult
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.registry import TaskError, build_task, make_task
from envs.task import Group, Task
from envs.task_state import preserved
from envs.validation.task_contract import check_class
from simreal.learners.off_policy.hindsight import ENVS, find_out

Values = dict[str, Tensor]
"""What environments show, by a name for people: each [N, ...]."""

_ROUNDING = 1e-5  # relative difference of what is equal but for the order of sums
_FIELDS = ("qpos", "qvel", "act", "ctrl", "mocap_pos", "mocap_quat")
_RANDOM = "draw random numbers from self.rng, and compute each environment's values from its own row alone"


class BrokenTaskError(AssertionError):
    """A task does not keep what `simreal.Task` promises; one line that names the task, the place and what was found."""


def check_task(task: type[Task] | str, /, *, num_envs: int = 3, steps: int = 20, **options: Any) -> None:
    """Play a task and compare what it does with what `simreal.Task` promises.

    Checked are: declarations, the contract of observations and actions against model and behaviour; shapes, types
    and finite numbers; the same episodes for the same seed, for any number of environments, and after other episodes;
    that `reset(mask)` changes the environments of its mask only; that a saved state is plain data and goes on bit for
    bit; that the time limit is no termination; that actions have an effect; `derive` and `mirror`; hooks of goals.

    Args:
        task: a subclass of `simreal.Task`, or a task's id or `module:Class`.
        num_envs: environments that play side by side, at least 2; best a number that no other size of the task has.
        steps: control steps of an episode; the task's own time limit where that is lower.
        options: arguments of the task.

    Raises:
        BrokenTaskError: an AssertionError with the first fault found.
    """
    if num_envs < 2 or steps < 4:
        raise ValueError(f"expected num_envs of at least 2 and steps of at least 4, got {num_envs} and {steps}")
    trial = _Trial(partial(_make, task, options), num_envs, steps)
    for check in _CHECKS:
        with _one_line():
            check(trial)


def _make(task: type[Task] | str, options: dict[str, Any]) -> Task:
    if isinstance(task, str):
        return make_task(task, **options)
    label = f"{getattr(task, '__module__', '')}:{getattr(task, '__qualname__', repr(task))}"
    return build_task(label, check_class(label, task), options)


@contextmanager
def _one_line() -> Generator[None]:
    """Errors with which simreal refuses a task, as the error of a test."""
    try:
        yield
    except TaskError as error:
        raise BrokenTaskError(str(error)) from error


class _Trial:
    """Makes environments of the task under test, and plays them.

    Args:
        make: builds the task.
        num_envs: N.
        steps: of an episode, at most.

    Attributes:
        record: what N environments showed in their first steps, first observations first.
    """

    def __init__(self, make: Callable[[], Task], num_envs: int, steps: int) -> None:
        self._make, self.num_envs, self._most = make, num_envs, steps
        self.steps = steps
        self.record: list[Values] = []

    def environment(self, num_envs: int | None = None) -> Environment:
        """New environments on one physics thread, of seed 0, before their first reset."""
        task = self._make()
        self.steps = min(self._most, task.max_episode_steps)
        if self.steps < task.max_episode_steps:
            task.max_episode_steps = self.steps
        num_envs = num_envs or self.num_envs
        return Environment(task, task.make_engine(num_envs, 1) or CpuEngine(task.model, num_envs, threads=1))

    def play(self, environment: Environment, steps: int) -> Iterator[StepResult]:
        """Make control steps with actions that depend on episode and step. Raises BrokenTaskError for bad numbers."""
        with _first_warning() as said:
            for _ in range(steps):
                result = environment.step(_actions(environment))
                if bool(result.diverged.any()):
                    i = int(result.diverged.nonzero()[0])
                    where = said[0] if said else f"environment {i}, step {int(result.episode_steps[i])}: diverged"
                    raise _broken(environment, f"actions in [-1, 1]: {where}")
                yield result

    def shown(self, environment: Environment, steps: int) -> list[Values]:
        """What environments show in control steps: of each where it led to, and how the next one starts."""
        task = environment.task
        return [
            _values(task, r.final, r) | {f"first {k}": v for k, v in _values(task, r.observed).items()}
            for r in self.play(environment, steps)
        ]


def _broken(environment: Environment, what: str) -> BrokenTaskError:
    return BrokenTaskError(" ".join(f"task: {environment.task.id}: {what}".split()))


@contextmanager
def _first_warning() -> Generator[list[str]]:
    """What simreal's log says within the block."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("simreal")
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


def _actions(environment: Environment) -> Tensor:
    """Actions [N, A] spread evenly over [-1, 1]; the same for the same episode and step."""
    moment = (1000.0 * environment.rng.episode + environment.steps)[:, None]
    column = torch.arange(1.0, environment.task.action_size + 1, dtype=torch.float64)
    return 2.0 * torch.frac(0.6180339887 * moment + 0.7548776662 * column + 0.5698402910 * moment * column) - 1.0


def _values(task: Task, observed: Observed, result: StepResult | None = None) -> Values:
    """What is shown, component by component; with a step's result also what it led to."""
    values: Values = {}
    seen: dict[Group, Tensor | None] = {"policy": observed.policy, "privileged": observed.privileged}
    for group, flat in seen.items():
        if flat is not None:
            values |= {f"component {name!r}": flat[:, where] for name, where in task.slices(group).items()}
    goals = {"achieved_goal": observed.achieved_goal, "desired_goal": observed.desired_goal}
    values |= {name: goal for name, goal in goals.items() if goal is not None}
    if result is not None:
        values |= {"reward": result.reward, "terminated": result.terminated, "truncated": result.truncated}
        values |= {"success": result.success} | {f"term {name!r}": value for name, value in result.terms.items()}
    return values


def _different(one: Values, other: Values, rows: Tensor | None = None, tolerance: float = 0.0) -> str | None:
    """The first value that differs, in words; None where all are alike."""
    for name, a in one.items():
        a, b = (a, other[name]) if rows is None else (a[rows], other[name][rows])
        if not torch.allclose(a.double(), b.double(), tolerance, tolerance):
            gap = float((a.double() - b.double()).abs().max())
            return f"{name} differs by {gap:.3g}"
    return None


def _compare(environment: Environment, one: list[Values], other: list[Values], what: str, advice: str) -> None:
    for step, (a, b) in enumerate(zip(one, other, strict=True), 1):
        if difference := _different(a, b):
            raise _broken(environment, f"{what}: step {step}: {difference}; {advice}")


def _check_one_seed(trial: _Trial) -> None:
    """A seed's episodes are the same in another environment, and after other episodes."""
    first, second = trial.environment(), trial.environment()
    one, other = (_values(e.task, e.reset()) for e in (first, second))
    if difference := _different(one, other):
        raise _broken(first, f"reset: two environments of one seed begin differently: {difference}; {_RANDOM}")
    trial.record = trial.shown(first, trial.steps + 2)
    again = trial.shown(second, trial.steps + 2)
    _compare(first, trial.record, again, "two environments of one seed do not show the same", _RANDOM)
    second.reset(seed=0)
    again = trial.shown(second, trial.steps + 2)
    advice = "something is left of earlier episodes: set what the task remembers anew in reset"
    _compare(first, trial.record, again, "after reset, a seed's episodes are not what they were", advice)


def _check_any_number(trial: _Trial) -> None:
    """Episode e is the same whatever N is."""
    many, alone = trial.environment(), trial.environment(1)
    shown: list[dict[tuple[int, int], Values]] = []
    for environment, steps in ((many, trial.steps), (alone, trial.num_envs * trial.steps)):
        environment.reset()
        moments: dict[tuple[int, int], Values] = {}
        for result in trial.play(environment, steps):
            values = _values(environment.task, result.final, result)
            numbers = environment.rng.episode - environment.num_envs * result.done
            for i in range(environment.num_envs):
                moment = int(numbers[i]), int(result.episode_steps[i])
                moments[moment] = {name: value[i] for name, value in values.items()}
        shown.append(moments)
    for episode, step in sorted(shown[0].keys() & shown[1].keys()):
        if difference := _different(shown[0][episode, step], shown[1][episode, step], tolerance=_ROUNDING):
            what = f"episode {episode} is another with {trial.num_envs} environments than with 1"
            raise _broken(many, f"{what}: step {step}: {difference}; {_RANDOM}")


def _check_masks(trial: _Trial) -> None:
    """`reset(mask)` leaves the environments outside its mask alone, now and later."""
    one, other = trial.environment(), trial.environment()
    for environment in (one, other):
        environment.reset()
        trial.shown(environment, trial.steps // 2)
    mask = torch.zeros(trial.num_envs, dtype=torch.bool)
    mask[1] = True
    before = _state(one)
    one.reset(mask)
    what = "reset(mask) changes an environment outside its mask"
    if difference := _different(before, _state(one), ~mask):
        raise _broken(one, f"{what}: {difference}; write only where mask is True")
    for step in range(1, trial.steps // 2):
        actions = _actions(other)
        shown = [_values(e.task, r.final, r) for e in (one, other) for r in [e.step(actions)]]
        if difference := _different(shown[0], shown[1], ~mask):
            raise _broken(one, f"{what}: {step} steps later, {difference}; write only where mask is True")


def _state(environment: Environment) -> Values:
    """What environments show and where their simulations are."""
    state = _values(environment.task, environment.observed)
    for name in _FIELDS:
        try:
            state[f"data.{name}"] = environment.engine.data(name).clone()
        except ValueError:  # a field that this engine does not have
            continue
    return state


def _check_saved_state(trial: _Trial) -> None:
    """A state is plain data; what is played from it is the same to the last bit."""
    saved, resumed = trial.environment(), trial.environment()
    saved.reset()
    trial.shown(saved, trial.steps // 2)
    state = saved.state_dict()
    for where, value in _leaves("state_dict", saved.task.state_dict()):
        if not (value is None or isinstance(value, (bool, int, float, str, Tensor))):
            kind = type(value).__name__
            raise _broken(saved, f"{where}: expected tensors, numbers, text, lists and mappings, got {kind}")
    resumed.reset(seed=1)
    trial.shown(resumed, 2)
    resumed.load_state_dict(state)
    steps = trial.steps + 2  # into the next episode
    what = "after load_state_dict, episodes go on differently"
    advice = "keep in state_dict whatever of the task's changes during an episode"
    _compare(saved, trial.shown(saved, steps), trial.shown(resumed, steps), what, advice)


def _leaves(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value of nested mappings and lists, with its path."""
    if isinstance(value, (dict, list, tuple)):
        parts = cast("dict[Any, Any] | Sequence[Any]", value)
        for key, item in parts.items() if isinstance(parts, dict) else enumerate(parts):
            yield from _leaves(f"{where}[{key!r}]", item)
    else:
        yield where, value


def _check_time_limit(trial: _Trial) -> None:
    """No episode terminates because its time is over: with a later limit it terminates as well."""
    usual, longer = trial.environment(), trial.environment()
    longer.max_episode_steps = longer.task.max_episode_steps = 2 * trial.steps
    for environment in (usual, longer):
        environment.autoreset = False
        environment.reset()
    both = zip(trial.play(usual, trial.steps), trial.play(longer, trial.steps), strict=True)
    for result, of_longer in both:
        early = result.terminated & ~of_longer.terminated & result.done
        if bool(early.any()):
            step = int(result.episode_steps[early][0])
            what = f"outcome: terminated at step {step}, the time limit, and not where that is later"
            raise _broken(usual, f"{what}; a time limit is no termination: leave it to max_episode_steps")


def _check_actions(trial: _Trial) -> None:
    """Something that is shown, or what physics gets, depends on the actions."""
    environments = trial.environment(), trial.environment()
    for environment in environments:
        environment.reset()
    for _ in range(trial.steps):
        action = _actions(environments[0])
        shown: list[Values] = []
        for environment, a in zip(environments, (action, -action), strict=True):
            result = environment.step(a)
            shown.append(_values(environment.task, result.final) | _state(environment))
        if _different(shown[0], shown[1]):
            return
    raise _broken(environments[0], f"command: actions have no effect in {trial.steps} steps")


def _check_derived(trial: _Trial) -> None:
    """`derive` leaves a clean observation as it is; a mirror's mirror image is the thing itself."""
    environment = trial.environment()
    task = environment.task
    environment.reset()
    for result in trial.play(environment, 3):
        clean = result.observed.policy
        with preserved(task):
            derived = task.derive(clean.clone())
        seen = {name: (clean[:, where], derived[:, where]) for name, where in task.slices().items()}
        for name, (a, b) in seen.items():
            if not torch.allclose(a, b, _ROUNDING, _ROUNDING):
                gap = f"differs by {float((a - b).abs().max()):.3g} from what observe returned"
                raise _broken(environment, f"derive: component {name!r} of a clean observation {gap}")
    if task.mirror is None:
        return
    sizes = {"observation": sum(c.size for c in task.components("policy")), "action": task.action_size}
    if task.mirror.privileged is not None:
        sizes["privileged"] = sum(c.size for c in task.components("privileged"))
    for name, size in sizes.items():
        index, sign = getattr(task.mirror, name), getattr(task.mirror, f"{name}_sign")
        if len(index) != size or len(sign) != size or sorted(index) != list(range(size)):
            raise _broken(environment, f"mirror: {name}: expected every index below {size} once, with a sign each")
        if any(index[index[i]] != i or sign[i] * sign[index[i]] != 1.0 for i in range(size)):
            raise _broken(environment, f"mirror: {name}: mirrored twice, values are not what they were")


def _check_goals(trial: _Trial) -> None:
    """The goal is shown, hooks of goals agree with the outcome, and with each other for goals of any shape."""
    environment = trial.environment()
    task = environment.task
    if not task.goal_size:
        return
    environment.reset()
    for result in trial.play(environment, trial.steps):
        shown, goal = result.final.policy[:, -task.goal_size :], result.final.desired_goal
        assert goal is not None
        if not torch.allclose(shown.double(), goal.double(), _ROUNDING, _ROUNDING):
            raise _broken(environment, "observe: component 'desired_goal' is not self.goal")
        if task.hindsight_obstacle is None:
            _check_goal_hooks(environment, result)
    if task.hindsight_obstacle is None:
        try:
            find_out(task, trial.environment(ENVS), trial.environment(ENVS))
        except TaskError:
            raise
        except ValueError as error:
            raise _broken(environment, f"goals: {error}") from error


def _check_goal_hooks(environment: Environment, result: StepResult) -> None:
    task, achieved, desired = environment.task, result.final.achieved_goal, result.final.desired_goal
    assert achieved is not None
    assert desired is not None
    for name in ("goal_reward", "goal_success"):
        if getattr(type(task), name) is getattr(Task, name):
            raise _broken(environment, f"{name}: not defined; a goal task has it, or a hindsight_obstacle")
    with preserved(task):
        success, ends = task.goal_success(achieved, desired), task.goal_terminated(achieved, desired)
        for name, hook in (("goal_reward", task.goal_reward), ("goal_success", task.goal_success)):
            a, b = achieved.expand(2, *achieved.shape).clone(), desired.expand(2, *desired.shape).clone()
            flat, batched = hook(achieved, desired), hook(a, b)
            if batched.shape != a.shape[:-1] or not torch.allclose(batched.double(), flat.double(), _ROUNDING):
                expected = (
                    f"expected {list(a.shape[:-1])} for goals {list(a.shape)}, row by row as for {list(desired.shape)}"
                )
                raise _broken(environment, f"{name}: {expected}")
    running = ~result.done  # a task may set a new goal where an episode or a goal is over
    kept = (task.goal == desired).all(dim=1) & running
    if bool((success != result.success)[kept].any()):
        raise _broken(environment, "goal_success: not what outcome says of the same state and goal")
    if ends is not None and bool((ends & ~result.terminated)[kept].any()):
        raise _broken(environment, "goal_terminated: True where outcome does not terminate")


_CHECKS: tuple[Callable[[_Trial], None], ...] = (
    _check_one_seed, _check_any_number, _check_masks, _check_derived, _check_saved_state, _check_time_limit,
    _check_actions, _check_goals,
)  # fmt: skip
