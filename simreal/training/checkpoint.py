"""Checkpoints: tensors and plain data, written so that a crash never leaves an unreadable run.

A file is written beside its final name, synced to disk and renamed. It is a safetensors file
(`envs.common.checkpoint_files`): no file of ours, or given to us, ever runs code.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from envs.common.checkpoint_files import checkpoint_files, read_newest, read_tensors, write_tensors
from envs.common.safe_yaml import FileError
from simreal.common.atomic_files import TEMPORARY, write_atomically, write_text, writing
from simreal.common.errors import UserError

EVALUATION = "evaluation.json"  # figures of a finished run, in its directory
BEST = "best"  # folder of a run whose best policy is kept: the newest file there, see `simreal.training.best`
FAILURES = "failure"  # folder of a run that keeps the state before an update that ended in NaN or infinity
FORMAT = 3  # 1 and 2 were files of torch.save
MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What loading a state of another configuration, or one that somebody made up, may raise."""


def save_checkpoint(folder: Path, env_steps: int, content: dict[str, Any], keep: int) -> Path:
    """Write `folder`/step_N.safetensors and remove all but the newest `keep`. Raises UserError if the disk refuses."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"*{TEMPORARY}"):  # by a process that was killed
            left.unlink(missing_ok=True)
    path = checkpoint_path(folder, env_steps)
    content = {"format": FORMAT, "env_steps": env_steps, **content}
    write_atomically(path, lambda file: write_tensors(file, content))
    for old in checkpoints(folder)[:-keep]:
        with contextlib.suppress(OSError):
            old.unlink(missing_ok=True)
    return path


def save_failed_update(run: Path, checkpoint: Path, nonfinite: list[str]) -> Path:
    """Put a checkpoint of the state before the failed update into RUN/failure, with a note. Raises UserError."""
    kept = run / FAILURES / checkpoint.name
    with writing(kept):
        kept.parent.mkdir(exist_ok=True)
        kept.unlink(missing_ok=True)
        try:
            os.link(checkpoint, kept)  # needs no space
        except OSError:
            shutil.copyfile(checkpoint, kept)
    write_text(
        kept.parent / "README.txt",
        f"{kept.name} is the state before an update after which {', '.join(nonfinite)}.\n"
        f"To make that update again: python -m simreal.training.replay_failure {kept}\n",
    )
    return kept


def is_outdated(run: Path, checkpoint: str | None) -> bool:
    """Whether figures measured of a checkpoint (None: they do not say) are of another policy than the present one."""
    present = policy_file(run)
    return checkpoint is not None and present is not None and present.name != checkpoint


def policy_file(run: Path) -> Path | None:
    """The file that a run's policy comes from: of the best one where that is kept, else the newest checkpoint."""
    found = checkpoints(run / BEST) or checkpoints(run / "checkpoints")
    return found[-1] if found else None


def newest_policy(run: Path, task: str) -> tuple[Any, Any]:
    """State and sampler's state of the policy that a run has come to, see `policy_file`.

    Raises:
        UserError: there is none, it cannot be read, or it is of another format or task.
        LookupError, TypeError: it is not what `simreal train` wrote.
    """
    kept = checkpoints(run / BEST)
    return policy_of(load_checkpoint(kept[-1], task) if kept else newest_checkpoint(run, task))


def policy_of(content: dict[str, Any]) -> tuple[Any, Any]:
    """State of the policy and of the sampler in what a file of `checkpoints` or of `BEST` holds. Raises LookupError or
    TypeError where `simreal train` did not write it."""
    if "learner" not in content:  # of BEST
        return content["policy"], content["sampler"]
    return content["learner"]["policy"], content["environment"]["layer"]["sampler"]


def checkpoint_path(folder: Path, env_steps: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step_{env_steps:012d}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return checkpoint_files(folder)


def load_checkpoint(path: Path, task: str | None = None) -> dict[str, Any]:
    """The content of a checkpoint.

    Args:
        path: the file.
        task: the task that it must be of; None accepts any.

    Raises:
        UserError: missing, damaged, of another format or of another task, naming the file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        content = read_tensors(path)
    except FileError as error:
        raise UserError(f"{path}: not a checkpoint that `simreal train` wrote: {error}") from None
    return _checked(path, content, task)


def newest_checkpoint(run: Path, task: str | None = None) -> dict[str, Any]:
    """The newest checkpoint of a run that can be read; those that cannot are named in a warning.

    Raises:
        UserError: there is none, or it is of another format or task.
    """
    if not checkpoints(run / "checkpoints"):
        raise UserError(f"{run}: has no checkpoint; expected a run directory of `simreal train`")
    try:
        return _checked(*read_newest(run / "checkpoints"), task)
    except FileError as error:
        raise UserError(str(error)) from None


def _checked(path: Path, content: dict[str, Any], task: str | None) -> dict[str, Any]:
    if content.get("format") != FORMAT or type(content.get("env_steps")) is not int:
        raise UserError(f"{path}: not a simreal checkpoint of format {FORMAT}")
    if task is not None and content.get("task") != task:
        raise UserError(f"{path}: is of task {str(content.get('task'))[:100]}, expected {task}")
    return content
