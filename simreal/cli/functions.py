"""Training and evaluation from Python: what `simreal train` and `simreal evaluate` do, as functions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.common.messages import warn_again
from simreal.cli.commands import train_command
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import evaluate_named
from simreal.training.run_config import apply_overrides, load_config, parse_config
from simreal.training.run_directory import LoadedPolicy, load_policy


def train(
    config: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train a policy, evaluate it and export it, as `simreal train` does.

    Args:
        config: the path of a YAML file, the name of a shipped one, or what such a file would hold.
        overrides: settings like "train.env_steps=2000" on top of it.
        run_dir: where to write; None takes the first free runs/NAME-N, where NAME is that of the file ("run" for a
            mapping).
        resume: continue the newest checkpoint of `run_dir`, or of the newest runs/NAME-N.
        quiet: print nothing.

    Returns:
        The run directory.

    Raises:
        UserError: naming the key or the file that is wrong, before anything is written.
    """
    warn_again()
    if isinstance(config, Mapping):
        name, settings = "run", parse_config(apply_overrides(copy.deepcopy(dict(config)), overrides), "config")
    else:
        name, settings = str(config), load_config(str(config), overrides)
    folder = None if run_dir is None else Path(run_dir)
    return train_command(name, list(overrides), folder, resume, Console(quiet=quiet, highlight=False), settings)


def load(path: str | Path, task: str | None = None) -> LoadedPolicy:
    """The policy of a run directory or of an exported bundle, ready to act.

    Args:
        path: of the directory.
        task: "module:Class" that it was trained on, where no installed package announces that class: says that this
            code may be imported.

    Raises:
        UserError: naming what is wrong.
    """
    given: Any = path
    if not isinstance(given, (str, Path)):
        raise UserError(f"expected the directory of a run or of a bundle, got {type(given).__name__}")
    return load_policy(Path(given), task)


def evaluate(
    policy: LoadedPolicy | str | Path,
    worlds: str | Sequence[str] = ("nominal", "trained"),
    episodes: int = 100,
    *,
    seed: int = 1_000_003,
    num_envs: int | None = None,
    task_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Play fresh episodes in every world, as `simreal evaluate` does.

    Args:
        policy: what `load` returned, or the directory of a run or of a bundle.
        worlds: names, groups ("held_out", "unmodelled") or YAML files; docs/evaluate.md lists them.
        episodes: in each world.
        seed: of the episodes: the same seed plays the same episodes with every policy.
        num_envs: episodes played at a time; None chooses a good number.
        task_options: to play the task with beside those of its training; None: those in which the task is evaluated, as
            RubiksCube-v0 is on the fixed scramble.

    Returns:
        What `simreal evaluate --json` writes: "task", "policy", "adr_entropy_npd" and "worlds", a list with figures of
        each world ("name", "episodes", "success_rate", "success_ci95", "return_mean", ...).

    Raises:
        UserError: naming what is wrong.
    """
    counts: dict[str, tuple[Any, int]] = {
        "episodes": (episodes, 1),
        "seed": (seed, 0),
        "num_envs": (1 if num_envs is None else num_envs, 1),
    }
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or value < least:
            raise UserError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    names: list[Any] = [worlds] if isinstance(worlds, str) else list(worlds)
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"worlds: expected names of worlds, of groups or of YAML files, got {worlds!r}")
    warn_again()
    loaded = (policy if isinstance(policy, LoadedPolicy) else load(policy)).on_task(task_options)
    return evaluate_named(loaded, names, episodes, num_envs, seed)
