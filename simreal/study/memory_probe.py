"""What a policy knows of the world it is in: parameters of the world read from its memory by regression.

A policy that adapts has to find out in which world it is, and what it has found out must be in its activations: Solving
Rubik's Cube with a Robot Hand (arXiv 1910.07113, section 7.3) reads the cube's size from an LSTM's state so. Here a
ridge regression reads every parameter of the world, in episodes it was not fitted to; beside it stands what the same
regression reads from the present observation alone, which is no memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.environment import Environment
from randomization.randomizer import DomainRandomizer
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import batch_of
from simreal.evaluation.worlds import World
from simreal.learners.on_policy.actor_critic import RecurrentPolicy
from simreal.training.run_directory import LoadedPolicy

Numbers = NDArray[np.float64]
_FOLDS, _RESAMPLES = 5, 1000
_PENALTIES = 10.0 ** np.arange(-3.0, 5.0)  # that are tried, in units of the variance of a standardized feature
_SOON_S, _WORDS_S = 2.0, 10.0  # until it says how far it is, and from then on
FEWEST = 50  # episodes that a regression needs
_FAR = 5.0  # standard deviations: a unit that is silent but in one episode would else say anything of that one


@dataclass(frozen=True)
class Seen:
    """What was noted at one time of every episode that lasted so long.

    Attributes:
        time_s: since the beginning.
        memory: [E, F] of the policy.
        observation: [E, nobs] that it was shown.
        world: [E, d] its parameters.
    """

    time_s: float
    memory: Numbers
    observation: Numbers
    world: Numbers


class _Listener:
    """Hears what goes into a network's last linear layer: all that the action depends on."""

    def __init__(self, module: nn.Module) -> None:
        linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
        if not linear:
            raise UserError("the policy has no linear layer to listen at; expected one that simreal trained")
        self._handle = linear[-1].register_forward_pre_hook(self._heard)
        self.heard = torch.zeros(0)

    def _heard(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.heard = arguments[0].detach().reshape(-1, arguments[0].shape[-1])

    def close(self) -> None:
        """Stop listening."""
        self._handle.remove()


def listen(
    policy: LoadedPolicy,
    world: World,
    times_s: Sequence[float],
    episodes: int,
    seed: int,
    say: Callable[[str], object] = lambda text: None,
) -> list[Seen]:
    """Play episodes and note memory, observation and world at given times.

    Args:
        policy: of a run.
        world: whose parameters vary.
        times_s: since the beginning of an episode, s.
        episodes: to play.
        seed: of them.
        say: told how far it is.

    Raises:
        UserError: a time lies beyond the end of an episode.
    """
    module = policy.module
    assert module is not None
    environment = world.make_environment(policy, batch_of(episodes), seed)
    period = environment.task.control_period_s
    steps = [max(0, round(time / period)) for time in times_s]
    if max(steps) >= environment.max_episode_steps:
        raise UserError(
            f"--at {max(times_s):g}: episodes of {policy.task_id} last {environment.max_episode_steps * period:g} s"
        )
    noted: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {step: [] for step in steps}
    listener = _Listener(module)
    try:
        _play(policy, environment, listener, noted, episodes, say)
    finally:
        listener.close()
    found = []
    for step in steps:
        parts = [torch.cat(column).double().numpy() for column in zip(*noted[step], strict=True)] or [
            np.empty((0, 0))
        ] * 3
        found.append(Seen(step * period, *parts))
    return found


def _play(
    policy: LoadedPolicy,
    environment: Environment,
    listener: _Listener,
    noted: dict[int, list[tuple[Tensor, Tensor, Tensor]]],
    episodes: int,
    say: Callable[[str], object],
) -> None:
    """Play episodes 0 to `episodes` - 1 as far as the last time that is asked for."""
    module, layer = policy.module, environment.layer
    assert module is not None
    assert isinstance(layer, DomainRandomizer)
    recurrent = isinstance(module, RecurrentPolicy)
    read, begin = policy.reader(environment), getattr(module, "initial_state", None)
    observed = environment.reset()
    state = None if begin is None else begin(environment.num_envs)
    last, left = max(noted), set(range(episodes))
    next_word = time.monotonic() + _SOON_S
    with torch.no_grad():
        while left:
            shown = read(observed).float()
            action, after = (module(shown), None) if state is None else module(shown, state)
            memory = listener.heard if not recurrent or after is None else torch.cat((listener.heard, after), dim=1)
            number, at = environment.rng.episode.tolist(), environment.steps.tolist()
            for step in {*at} & noted.keys():
                rows = [i for i, n in enumerate(number) if at[i] == step and n in left]
                noted[step].append((memory[rows], shown[rows], layer.lam[rows]))
            left -= {n for i, n in enumerate(number) if at[i] >= last}
            result = environment.step(action)
            left -= {n for i, n in enumerate(number) if bool(result.done[i])}
            observed, state = result.observed, after
            if state is not None and begin is not None:
                state = torch.where(result.done[:, None], begin(environment.num_envs), state)
            if time.monotonic() > next_word:
                say(f"{episodes - len(left):,} of {episodes:,} episodes, step {int(environment.steps.max()):,} ...")
                next_word = time.monotonic() + _WORDS_S


def read_out(features: Numbers, wanted: Numbers, seed: int) -> Numbers:
    """What a ridge regression says of every row that it was not fitted to [E, d]: five folds, and in each the penalty
    with the least error of leaving one row out (PRESS; Allen 1974)."""
    order = np.random.default_rng(seed).permutation(len(features))
    said = np.empty_like(wanted)
    for held in np.array_split(order, _FOLDS):
        fitted = np.setdiff1d(order, held)
        mean, spread = features[fitted].mean(axis=0), features[fitted].std(axis=0)
        x = np.clip((features - mean) / np.where(spread > 1e-9, spread, np.inf), -_FAR, _FAR)
        middle = wanted[fitted].mean(axis=0)
        u, s, vt = np.linalg.svd(x[fitted], full_matrices=False)
        said[held] = middle + x[held] @ (vt.T @ _best_ridge(u, s, wanted[fitted] - middle))
    return said


def _best_ridge(u: Numbers, s: Numbers, wanted: Numbers) -> Numbers:
    """Weights [k, d] in the singular directions; a penalty of its own for each column of what is wanted [E, d]."""
    count, projected = len(wanted), u.T @ wanted
    least, best = np.full(wanted.shape[1], np.inf), np.zeros_like(projected)
    for penalty in _PENALTIES * count:
        shrink = s**2 / (s**2 + penalty)
        leverage = (u**2) @ shrink + 1.0 / count
        left_out = (wanted - u @ (shrink[:, None] * projected)) / np.maximum(1.0 - leverage, 1e-3)[:, None]
        errors = (left_out**2).sum(axis=0)
        better = errors < least
        least[better] = errors[better]
        best[:, better] = ((s / (s**2 + penalty))[:, None] * projected)[:, better]
    return best


def determination(wanted: Numbers, said: Numbers, seed: int) -> tuple[Numbers, Numbers]:
    """R² [d] of what was said, and its 95 % bootstrap interval over episodes [2, d]."""
    errors, spread = (wanted - said) ** 2, (wanted - wanted.mean(axis=0)) ** 2
    generator = np.random.default_rng(seed)
    drawn = np.array([
        np.bincount(generator.integers(len(wanted), size=len(wanted)), minlength=len(wanted)) for _ in range(_RESAMPLES)
    ], dtype=np.float64)  # fmt: skip
    each = 1.0 - (drawn @ errors) / (drawn @ spread)
    return 1.0 - errors.sum(axis=0) / spread.sum(axis=0), np.percentile(each, [2.5, 97.5], axis=0)


def probe(
    policy: LoadedPolicy,
    world: World,
    times_s: Sequence[float],
    episodes: int,
    seed: int,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """What a policy knows of a world's parameters, over an episode.

    Args: see `listen`.

    Returns:
        {"schema", "task", "policy", "world", "parameters": [{"name", "unit"}], "times": [{"time_s", "episodes",
        "memory": [{"r2", "ci95"}, ...], "observation": [...], "shuffled": [...]}]}, a figure for each parameter:
        R² of what is read from the memory, from the observation alone, and from the memory of another episode; None
        where all worlds are alike in a parameter at that time.

    Raises:
        UserError: no parameter varies in the world, too few episodes last as long as asked for, or as for `listen`.
    """
    free = [i for i, p in enumerate(world.sampler.parameters) if p.limits[0] < p.limits[1]]
    if not free:
        raise UserError(f"{world.name}: no parameter varies there; expected a --world with ranges")
    rows = []
    for seen in listen(policy, world, times_s, episodes, seed, say):
        count = len(seen.world)
        if count < FEWEST:
            raise UserError(
                f"{count} of {episodes} episodes last {seen.time_s:g} s, expected at least {FEWEST}: more --episodes, "
                "or an earlier --at"
            )
        wanted = seen.world[:, free]
        shuffled = np.random.default_rng(seed + 1).permutation(count)
        sources = {"memory": seen.memory, "observation": seen.observation, "shuffled": seen.memory[shuffled]}
        figures: dict[str, Any] = {}
        for name, features in sources.items():
            figures[name] = _figures(wanted, features, seed)
        rows.append({"time_s": seen.time_s, "episodes": count, **figures})
    parameters = [{"name": world.sampler.parameters[i].name, "unit": world.sampler.parameters[i].unit} for i in free]
    return {
        "schema": 1, "task": policy.task_id, "policy": policy.name, "world": world.name, "parameters": parameters,
        "times": rows,
    }  # fmt: skip


def _figures(wanted: Numbers, features: Numbers, seed: int) -> list[dict[str, Any]]:
    """R² and interval of every column of what is wanted [E, d]; None where all worlds are alike in it, as they may be
    until they change."""
    varies = np.ptp(wanted, axis=0) > 0.0
    figures: list[dict[str, Any]] = [{"r2": None, "ci95": None} for _ in varies]
    if varies.any():
        some = wanted[:, varies]
        r2, interval = determination(some, read_out(features, some, seed), seed)
        for i, value, low, high in zip(np.flatnonzero(varies), r2, interval[0], interval[1], strict=True):
            figures[i] = {"r2": float(value), "ci95": [float(low), float(high)]}
    return figures


def table(document: dict[str, Any]) -> list[str]:
    """The figures of `probe`, to print: R² of the memory at each time, of the last observation, and of another's."""
    times, parameters = document["times"], document["parameters"]
    title = "R² from memory after"
    width = max(len(title), *(len(p["name"]) for p in parameters))
    heads = "  ".join(f"{t['time_s']:6.3g} s" for t in times)
    lines = [f"{title:{width}}  {heads}   {'95 %':14}  observation"]
    last = times[-1]
    for i, parameter in enumerate(parameters):
        cells = "  ".join(_number(t["memory"][i]["r2"], 8) for t in times)
        span = " to ".join(_number(end, 5) for end in last["memory"][i]["ci95"] or (None, None))
        lines.append(f"{parameter['name']:{width}}  {cells}   {span}  {_number(last['observation'][i]['r2'], 11)}")
    worst = max((e["r2"] for t in times for e in t["shuffled"] if e["r2"] is not None), default=0.0)
    return [*lines, f"from the memory of other episodes at most {worst:.2f}; {last['episodes']} episodes at the end"]


def _number(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.2f}"
