"""What is to be shown: a run, whose checkpoints may still appear, a bundle, or a task with no policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from envs.common.messages import near_file
from envs.common.safe_yaml import one_line
from envs.registry import make_task
from randomization.samplers.frozen import frozen_parameters
from simreal.cli.commands import ENVELOPE
from simreal.common.errors import UserError
from simreal.common.json_io import read_json
from simreal.common.trusted_code import module_of, use_current_folder
from simreal.evaluation.compare import baseline
from simreal.training.checkpoint import BEST, MISFITS, checkpoints, load_checkpoint, policy_of
from simreal.training.run_directory import LoadedPolicy, is_bundle, load_policy, run_config

Actions = Literal["zero", "random"]


@dataclass
class Source:
    """Where policies come from.

    Attributes:
        policy: to begin with.
        run: the directory of its training; None for a bundle or a task.
        code: `MODULE:CLASS` of the task, where the user has named it.
        waits: whether the run has no checkpoint yet.
    """

    policy: LoadedPolicy
    run: Path | None = None
    code: str | None = None
    waits: bool = False

    def checkpoints(self) -> dict[str, Path]:
        """The run's checkpoints by what to call them, the newest first; its best policies after them."""
        if self.run is None:
            return {}
        found = {_name(path): path for path in reversed(checkpoints(self.run / "checkpoints"))}
        return found | {f"best, {_name(path)}": path for path in reversed(checkpoints(self.run / BEST))}

    def envelope(self) -> Mapping[str, Any] | None:
        """What `simreal evaluate --envelope` measured of the run; None where it did not."""
        return None if self.run is None else read_json(self.run / ENVELOPE)

    def load(self, path: Path) -> LoadedPolicy:
        """The policy of one checkpoint, with the ranges that training had then. Raises UserError where it cannot be
        read, as when training has removed it."""
        assert self.run is not None
        if self.waits or self.policy.module is None:
            self.policy, self.waits = load_policy(self.run, self.code), False
        policy = self.policy
        assert policy.module is not None
        assert policy.config is not None
        sampler = policy.config.randomization.sampler_for(policy.make_task())
        try:
            weights, ranges = policy_of(load_checkpoint(path, policy.task_id))
            policy.module.load_state_dict(weights)
            sampler.load_state_dict(ranges)
        except MISFITS as error:
            raise UserError(f"{path}: not a file that `simreal train` wrote: {one_line(error)}") from None
        return replace(policy, parameters=frozen_parameters(sampler))


def find_source(target: str, actions: Actions, code: str | None, options: Mapping[str, Any]) -> Source:
    """What RUN|BUNDLE|TASK names.

    Args:
        target: the argument.
        actions: what a task without a policy is played with.
        code: see `load_policy`.
        options: of a task.

    Raises:
        UserError, TaskError: it is none of these.
    """
    path = Path(target)
    if not path.is_dir():
        return Source(_idle(target, actions, options))
    if options:
        raise UserError(f"--task-option: is of a TASK; {target} has the options of its training")
    if is_bundle(path):
        return Source(load_policy(path, code))
    if (path / "config.yaml").is_file() and not checkpoints(path / "checkpoints") and not checkpoints(path / BEST):
        config = run_config(path)
        return Source(_idle(config.task, "zero", config.task_options), path, code, waits=True)
    return Source(load_policy(path, code), path, code)


def _idle(task_id: str, actions: Actions, options: Mapping[str, Any]) -> LoadedPolicy:
    """A policy of a task that reads nothing."""
    if "/" in task_id or "\\" in task_id:
        raise UserError(f"{task_id}: no such run or bundle{near_file(Path(task_id))}")
    if module_of(task_id) is not None:
        use_current_folder()
    size = make_task(task_id, **options).action_size
    nothing = LoadedPolicy(
        "zero", task_id, lambda observation: torch.zeros(len(observation), size), lambda mask: None, [], None, None,
        task_options=dict(options),
    )  # fmt: skip
    return baseline(actions, nothing)


def _name(path: Path) -> str:
    return f"step {int(path.stem.removeprefix('step_')):,}"
