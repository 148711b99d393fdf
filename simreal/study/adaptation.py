"""How a policy takes a change of its world in the middle of an episode: over time since the change, beside controls.

Every episode is played four times, with the same start, goal, noise and world until the change: the world changes or
stays, and the policy remembers or forgets at that moment what it has seen (its memory is as at the beginning of an
episode). What the change costs is the difference of the first two. If that is less later on than in the first moments,
the policy has adapted. A policy that adapts by what it remembers pays for forgetting at first, and not later, even
where nothing changes (arXiv 1910.07113 resets hidden states in this way).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.environment import Environment
from envs.task import Task
from randomization.changes import Changing
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import batch_of
from simreal.evaluation.intervals import bootstrap_ci
from simreal.evaluation.metrics import metric_of
from simreal.evaluation.worlds import World
from simreal.training.run_directory import LoadedPolicy

Numbers = NDArray[np.float64]
_BINS = 12  # of the time after the change
_WINDOW = 0.25  # of that time: "first" and "later"
_SOON_S, _WORDS_S = 2.0, 10.0  # until it says how far it is, and from then on
ARMS = {  # name: whether the world changes, whether the policy forgets
    "changes": (True, False), "stays": (False, False), "changes, forgets": (True, True),
    "stays, forgets": (False, True),
}  # fmt: skip
_PAIRS = (("changes", "stays"), ("stays, forgets", "stays"), ("changes, forgets", "changes"))


@dataclass(frozen=True)
class Course:
    """What happened in every control step of E episodes, [E, T] each.

    After the end of an episode its success is what it ended with, and its reward 0.

    Attributes:
        acted: [E], sum of the magnitudes of all actions: it tells one way to act from another.
    """

    success: Numbers
    reward: Numbers
    acted: Numbers


@dataclass(frozen=True)
class Spans:
    """Spans of an episode, in control steps.

    Attributes:
        change: the first step in another world.
        edges: of the bins of a curve; `change` is one of them.
        first, later: beginning and end of what is compared.
    """

    change: int
    edges: tuple[int, ...]
    first: tuple[int, int]
    later: tuple[int, int]

    @classmethod
    def of(cls, change: int, steps: int, window: int | None) -> Spans:
        """Those of episodes of at most `steps`; `window` None: a quarter of what follows the change."""
        after = steps - change
        width = max(1, math.ceil(after / _BINS))
        window = max(1, round(_WINDOW * after)) if window is None else window
        before = list(range(change, 0, -width))[::-1]
        edges = (0, *before, *range(change + width, steps, width), steps)
        return cls(change, edges, (change, change + window), (steps - window, steps))


def play(
    policy: LoadedPolicy,
    environment: Environment,
    episodes: int,
    forget: int | None,
    say: Callable[[int, int], object] = lambda ended, step: None,
) -> Course:
    """Play episodes 0 to `episodes` - 1 of an environment that has not been reset.

    Args:
        policy: to play.
        environment: to play in.
        episodes: how many.
        forget: step at whose beginning the policy's memory becomes that of the beginning of an episode; None: never.
        say: told how many have ended, and at which step the others are at most.
    """
    steps = environment.max_episode_steps
    success, reward = (np.zeros((episodes, steps)) for _ in range(2))
    acted = np.zeros(episodes)
    left, observed = set(range(episodes)), environment.reset()
    policy.reset(torch.ones(environment.num_envs, dtype=torch.bool))
    read = policy.reader(environment)
    while left:
        # copies: the environment counts on in place
        number, at = (value.clone().cpu().numpy() for value in (environment.rng.episode, environment.steps))
        if forget is not None and (at == forget).any():
            policy.reset(torch.from_numpy(at == forget))
        action = policy.act(read(observed).cpu())
        result = environment.step(action)
        observed, done = result.observed, result.done.cpu()
        rows = number < episodes
        which, when = number[rows], at[rows]
        success[which, when] = result.success.cpu().numpy()[rows]
        reward[which, when] = result.reward.cpu().numpy()[rows]
        acted[which] += action.double().abs().sum(dim=1).cpu().numpy()[rows]
        for i in np.flatnonzero(done.numpy() & rows):
            success[number[i], at[i] + 1 :] = success[number[i], at[i]]
            left.discard(int(number[i]))
        policy.reset(done)
        say(episodes - len(left), int(at.max()) + 1)
    return Course(success, reward, acted)


def adaptation(
    policy: LoadedPolicy,
    world: World,
    episodes: int,
    seed: int,
    window_s: float | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Success and reward over time since a change of the world, beside controls.

    Args:
        policy: of a run or a bundle.
        world: one that changes; the first change counts.
        episodes: to play, four times.
        seed: of them.
        window_s: length of the first and of the later time that are compared; None: a quarter of what follows.
        say: told how far it is.

    Returns:
        {"schema", "task", "policy", "world", "episodes", "change_s", "first_s": [from, to], "later_s", "measure",
        "units": {measure: text}, "remembers", "bins": [[from_s, to_s], ...], "arms": {arm: {measure: {"mean": [...],
        "ci95": [[low, high], ...]}}}, "differences": [{"a", "b", measure: {"first", "later", "regained": {"mean",
        "ci95"}}}]}; measures are "success" (where the task knows it) and "reward"; `regained` is later minus first.

    Raises:
        UserError: the world does not change, or the window does not fit twice into what follows the change.
    """
    if not isinstance(world.sampler, Changing) or not world.sampler.changes:
        raise UserError(f"{world.name}: nothing changes there within an episode; expected a --world with 'changes'")
    task = policy.make_task()
    spans = _spans(task, world.sampler, window_s)
    courses = _courses(policy, world, spans.change, episodes, seed, say)
    period_s, counts = task.control_period_s, task.counts_successes
    known = {"success": task.has_success, "reward": True}
    per_step = {"success": 1.0 / period_s if counts else 1.0, "reward": 1.0}
    values = {
        arm: {m: per_step[m] * getattr(course, m) for m, there in known.items() if there}
        for arm, course in courses.items()
    }
    return {
        "schema": 1, "task": policy.task_id, "policy": policy.name, "world": world.name, "episodes": episodes,
        "change_s": spans.change * period_s, "first_s": [s * period_s for s in spans.first],
        "later_s": [s * period_s for s in spans.later],
        "measure": "reward" if metric_of(task).name == "return" else "success",
        "units": {"success": "successes per s" if counts else "share of the time", "reward": "reward per step"},
        "remembers": "stays, forgets" in courses,
        "bins": [[a * period_s, b * period_s] for a, b in zip(spans.edges, spans.edges[1:], strict=False)],
        "arms": {arm: {m: _curve(rows, spans) for m, rows in found.items()} for arm, found in values.items()},
        "differences": [
            {"a": a, "b": b, **{m: _difference(values[a][m] - values[b][m], spans) for m in values[a]}}
            for a, b in _PAIRS if a in values
        ],
    }  # fmt: skip


def _courses(
    policy: LoadedPolicy, world: World, change: int, episodes: int, seed: int, say: Callable[[str], object]
) -> dict[str, Course]:
    """What happened in each arm; no arm forgets where nothing is remembered."""
    assert isinstance(world.sampler, Changing)
    courses, stays = dict[str, Course](), replace(world, sampler=world.sampler.unchanged)
    for arm, (changes, forgets) in ARMS.items():
        environment = (world if changes else stays).make_environment(policy, batch_of(episodes), seed)
        words = _words(arm, episodes, say)
        courses[arm] = play(policy, environment, episodes, change if forgets else None, words)
        if arm == "changes, forgets" and np.array_equal(courses["changes"].acted, courses[arm].acted):
            del courses[arm]
            break
    return courses


def _spans(task: Task, sampler: Changing, window_s: float | None) -> Spans:
    period_s = task.control_period_s
    change = max(1, math.ceil(sampler.changes[0].at_s / period_s - 1e-6))
    after_s = (task.max_episode_steps - change) * period_s
    window = None if window_s is None else round(window_s / period_s)
    if window is not None and not 1 <= window <= after_s / period_s / 2.0:
        raise UserError(
            f"--window: expected between {period_s:g} and {after_s / 2.0:g} s, half of what follows the change, got "
            f"{window_s:g}"
        )
    return Spans.of(change, task.max_episode_steps, window)


def _words(arm: str, episodes: int, say: Callable[[str], object]) -> Callable[[int, int], None]:
    """Says now and then how many episodes have ended, and how far the others are."""
    due = [time.monotonic() + _SOON_S]

    def ended(count: int, step: int) -> None:
        if time.monotonic() > due[0]:
            say(f"{arm}: {count:,} of {episodes:,} episodes, step {step:,} ...")
            due[0] = time.monotonic() + _WORDS_S

    return ended


def _curve(values: Numbers, spans: Spans) -> dict[str, Any]:
    """Means [bins] over episodes of values [E, T], and their bootstrap intervals."""
    binned = np.stack([values[:, a:b].mean(axis=1) for a, b in zip(spans.edges, spans.edges[1:], strict=False)], axis=1)
    return {"mean": binned.mean(axis=0).tolist(), "ci95": bootstrap_ci(binned).T.tolist()}


def _difference(values: Numbers, spans: Spans) -> dict[str, Any]:
    """What differences [E, T] are at first and later, and by how much that is more, with bootstrap intervals."""
    first, later = (values[:, slice(*span)].mean(axis=1) for span in (spans.first, spans.later))
    columns = np.stack((first, later, later - first), axis=1)
    ends = bootstrap_ci(columns).T.tolist()
    means = columns.mean(axis=0).tolist()
    return {
        name: {"mean": mean, "ci95": end}
        for name, mean, end in zip(("first", "later", "regained"), means, ends, strict=True)
    }


_WORDS = {
    ("changes", "stays"): "the change", ("stays, forgets", "stays"): "forgetting, where the world stays",
    ("changes, forgets", "changes"): "forgetting, where it changes",
}  # fmt: skip


def table(document: dict[str, Any]) -> list[str]:
    """The figures of `adaptation`, to print: differences at first and later, with intervals."""
    (a, b), (c, d) = document["first_s"], document["later_s"]
    change = document["change_s"]
    spans = [f"{x - change:.3g} to {y - change:.3g} s after" for x, y in ((a, b), (c, d))]
    lines = []
    for measure, unit in document["units"].items():
        if measure not in document["arms"]["changes"]:
            continue
        lines.append(f"{'costs and gains, ' + unit:40} {spans[0]:>28} {spans[1]:>28} {'regained':>28}")
        for entry in document["differences"]:
            cells = [_cell(entry[measure][name]) for name in ("first", "later", "regained")]
            lines.append(f"{_WORDS[entry['a'], entry['b']]:40} " + " ".join(f"{cell:>28}" for cell in cells))
    if not document["remembers"]:
        lines.append("it acts the same after forgetting: it remembers nothing")
    return lines


def _cell(found: dict[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{found['mean']:+.3f} ({low:+.3f} to {high:+.3f})"


def adaptation_command(
    run: Path,
    world: str,
    episodes: int,
    seed: int,
    window_s: float | None,
    files: Sequence[Path | None],
    task: str | None,
    say: Callable[[str], object],
) -> None:
    """`simreal probe --adaptation`: measure, print, and write JSON and picture, where `files` name them.

    Raises UserError.
    """
    from simreal.common.atomic_files import write_atomically, write_text
    from simreal.common.json_io import to_json, write_target
    from simreal.evaluation.worlds import find_world
    from simreal.report.figures import adaptation_curves
    from simreal.training.run_directory import load_policy

    json_file, picture = (
        None if path is None else write_target(path, suffix)
        for path, suffix in zip(files, (".json", ".png"), strict=True)
    )
    policy = load_policy(run, task)
    document = adaptation(policy, find_world(world, policy), episodes, seed, window_s, say)
    for line in table(document):
        say(line)
    if json_file is not None:
        write_text(json_file, to_json(document))
        say(f"{json_file}: all figures")
    if picture is not None:
        figure = adaptation_curves(document)
        write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=150))
        say(f"{picture}: the curves")
