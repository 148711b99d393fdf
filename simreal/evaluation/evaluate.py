"""Plays fresh episodes in given worlds and says how well a policy does, with intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from envs.engines.bridge.engine import statement_of
from envs.engines.bridge.simulator import KINDS
from envs.environment import Environment
from randomization.config import Performance
from simreal.evaluation.intervals import bootstrap_ci, cvar, mean_and_error, wilson
from simreal.evaluation.worlds import World, find_worlds
from simreal.training.run_directory import LoadedPolicy

_SPREAD, _PEAK = "_sd", "_peak"  # ends of names in `Task.reported`
_MOST_ENVS = 256  # more do not make stepping faster on a few cores
_MOST_ELSEWHERE = 16  # in simulators that are stepped one after the other
_SAY_AFTER_S = 10.0
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Episodes:
    """Results of episodes, by episode number; seed and number alone fix world, start, goal and noise."""

    success: Tensor  # [episodes] bool, at the last step
    returns: Tensor  # [episodes] float64
    successes: Tensor  # [episodes] steps at which success held
    steps: Tensor  # [episodes]
    measures: dict[str, Tensor]  # the task's own, mean over the steps of the episode, [episodes] float64
    diverged: Tensor  # [episodes] bool: it ended because the simulation became unstable
    actions: Tensor  # [episodes] float64, sum of the magnitudes of all that was done: it tells one episode from another

    @property
    def samples(self) -> dict[Performance, Tensor]:
        """Values by which an episode can be judged, by name, [episodes] each."""
        return {"success": self.success, "return": self.returns, "successes": self.successes}


def batch_of(episodes: int, most: int = _MOST_ENVS) -> int:
    """How many environments to play a number of episodes in: at most `most`, and none of them idle at the end."""
    return math.ceil(episodes / math.ceil(episodes / most))


def run_episodes(policy: LoadedPolicy, environment: Environment, episodes: int, tell: Tell | None = None) -> Episodes:
    """Play episodes 0 .. `episodes` - 1 of an environment that has not been reset.

    Results do not depend on the number of environments that the episodes are played in. `tell` gets a line now and
    then, when episodes have ended.
    """
    said_s = time.monotonic()
    observed = environment.reset()
    policy.reset(torch.ones(environment.num_envs, dtype=torch.bool))
    read = policy.reader(environment)
    columns: dict[str, Tensor] = {}
    tally = _Tally(environment.task.reported)
    acted = torch.zeros(environment.num_envs, dtype=torch.float64)
    ended = torch.zeros(episodes, dtype=torch.bool)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while not bool(ended.all()):
            number = environment.rng.episode.cpu()
            action = policy.act(read(observed).cpu())
            result = environment.step(action)
            observed, done = result.observed, result.done.cpu()
            acted += action.double().abs().sum(1)
            tally.add(result.terms)
            if not bool(done.any()):
                continue
            steps = result.episode_steps.cpu()
            seen = {
                "success": result.success.cpu(), "returns": result.episode_return.cpu().double(),
                "successes": result.episode_successes.cpu(), "steps": steps, "actions": acted,
                "diverged": result.diverged.cpu(),
                **{f".{name}": value for name, value in tally.measures(steps).items()},
            }  # fmt: skip
            counted = done & (number < episodes)
            ids = number[counted]
            for name, value in seen.items():
                columns.setdefault(name, torch.zeros(episodes, dtype=value.dtype))[ids] = value[counted]
            ended[ids] = True
            if tell is not None and time.monotonic() - said_s > _SAY_AFTER_S:
                said_s = time.monotonic()
                tell(f"{int(ended.sum())} of {episodes} episodes")
            acted.masked_fill_(done, 0.0)
            tally.clear(done)
            policy.reset(done)
    finally:
        torch.set_num_threads(threads)
    measures = {name[1:]: values for name, values in columns.items() if name[0] == "."}
    plain = {name: values for name, values in columns.items() if name[0] != "."}
    return Episodes(**plain, measures=measures)


class _Tally:
    """What the terms of a task's outcome came to over the steps of episodes, of N environments.

    Args:
        reported: see `Task.reported`; which terms' deviations and peaks are asked for.
    """

    def __init__(self, reported: Iterable[str]) -> None:
        self._spread, self._peak = (
            {name.removesuffix(end) for name in reported if name.endswith(end)} for end in (_SPREAD, _PEAK)
        )
        self._sums: dict[str, Tensor] = {}  # of terms, and of their squares by the name of their deviation
        self._most: dict[str, Tensor] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Take a step's terms, [N] each."""
        for name, value in terms.items():
            value = value.cpu().double()
            self._sums[name] = self._sums.get(name, 0.0) + value
            if name in self._spread:
                self._sums[name + _SPREAD] = self._sums.get(name + _SPREAD, 0.0) + value.square()
            if name in self._peak:
                most = self._most.get(name + _PEAK)
                self._most[name + _PEAK] = value.abs() if most is None else torch.maximum(most, value.abs())

    def measures(self, steps: Tensor) -> dict[str, Tensor]:
        """Of episodes that have taken so many steps [N]: means, deviations and largest magnitudes."""
        found = {name: total / steps for name, total in self._sums.items()}
        for name in found.keys() & {name + _SPREAD for name in self._spread}:
            found[name] = (found[name] - found[name.removesuffix(_SPREAD)].square()).clamp(min=0.0).sqrt()
        return found | {name: value.clone() for name, value in self._most.items()}

    def clear(self, done: Tensor) -> None:
        """Episodes begin in done [N]."""
        for total in (*self._sums.values(), *self._most.values()):
            total.masked_fill_(done, 0.0)


def summarize(world: World, episodes: Episodes, sequence: int = 0) -> dict[str, Any]:
    """One entry of `worlds` in evaluate's JSON; `sequence`: goals that every episode has, where they are the same."""
    count, successes = len(episodes.success), int(episodes.success.sum())
    returns, held = episodes.returns.tolist(), episodes.successes.tolist()
    mean, error = mean_and_error(returns)
    measures = {"episode_length": episodes.steps.double(), **episodes.measures}
    return {
        "name": world.name,
        "group": world.group,
        "episodes": count,
        "success_rate": successes / count,
        "success_ci95": list(wilson(successes, count)),
        "return_mean": mean,
        "return_se": error,
        "return_median": median(returns),
        "return_cvar10": cvar(returns),
        "successes_mean": sum(held) / count,
        "successes_median": median(held),
        **({} if not sequence else _shares(held, sequence)),
        "successes_ci95": bootstrap_ci(held).tolist() if any(held) else [0.0, 0.0],
        **({"unstable": int(episodes.diverged.sum())} if bool(episodes.diverged.any()) else {}),
        "measures": {name: _mean(values) for name, values in measures.items()},
        "samples": {
            **{name: (values + 0).tolist() for name, values in episodes.samples.items()},  # True is 1
            "actions": episodes.actions.tolist(),
        },
    }


def _shares(held: list[float], sequence: int) -> dict[str, float]:
    """How many episodes came to half and to all of a sequence of goals."""
    half, full = (sum(n >= least for n in held) / len(held) for least in (math.ceil(sequence / 2), sequence))
    return {"sequence": sequence, "successes_se": mean_and_error(held)[1], "half_rate": half, "full_rate": full}


def _mean(values: Tensor) -> dict[str, float]:
    mean, error = mean_and_error(values.tolist())
    return {"mean": mean, "se": error}


def evaluate(
    policy: LoadedPolicy,
    worlds: Sequence[World],
    episodes: int,
    num_envs: int | None,
    seed: int,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """The document that `simreal evaluate --json` writes; `num_envs` None is chosen to fit; `tell` gets progress."""
    rows = []
    for world in worlds:
        most = _MOST_ELSEWHERE if world.engine in KINDS else _MOST_ENVS
        environment = world.make_environment(policy, min(num_envs or batch_of(episodes, most), episodes), seed)
        played = run_episodes(policy, environment, episodes, None if tell is None else _named(tell, world.name))
        row = summarize(world, played, environment.task.sequence_length)
        said = statement_of(environment.engine)
        rows.append(row | {"engine": world.engine, "statement": said} if said else row)
    return {"task": policy.task_id, "policy": policy.name, "adr_entropy_npd": policy.entropy, "worlds": rows}


def _named(tell: Tell, name: str) -> Tell:
    return lambda line: tell(f"{name}: {line}")


def equal_to_nominal(document: dict[str, Any]) -> list[str]:
    """Worlds of evaluate's JSON in which every episode was as in the nominal world, to the last action.

    They had no effect there. A policy that copes with a world does as well in it, and does not act in the same way.
    """
    rows = {row["name"]: row["samples"] for row in document["worlds"] if row["group"] not in ("nominal", "trained")}
    nominal = next((row["samples"] for row in document["worlds"] if row["group"] == "nominal"), None)
    return [name for name, samples in rows.items() if samples == nominal and "actions" in samples]


def remarks(document: dict[str, Any], compared: bool = False) -> list[str]:
    """What is to be said below the table of evaluate's JSON, one line each; `compared`: beside other policies."""
    of = f"{document['policy']}: " if compared else ""
    said = [
        f"{of}{row['name']}: {row['unstable']} of {row['episodes']} episodes ended early, as the simulation became "
        "unstable"
        for row in document["worlds"]
        if "unstable" in row
    ]
    if not compared and (same := equal_to_nominal(document)):
        said.append(f"equal to nominal in every episode, so they say nothing: {', '.join(same)}")
    return said


def evaluate_named(
    policy: LoadedPolicy, names: Sequence[str], episodes: int, num_envs: int | None, seed: int
) -> dict[str, Any]:
    """`evaluate` in worlds by name. Raises UserError for a name that is wrong."""
    worlds, _ = find_worlds(names, policy)
    return evaluate(policy, worlds, episodes, num_envs, seed)
