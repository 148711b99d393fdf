"""Checkpoints: tensors and plain data, written so that a crash never leaves an unreadable run.

A file is written beside its final name, synced to disk and renamed. It is read without an unpickler
(`randomization.tensor_file`): no file of ours, or given to us, ever runs code.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from randomization.tensor_file import read_newest, read_tensors
from randomization.untrusted import FileError
from simreal.errors import UserError
from simreal.files import TEMPORARY, cannot_write, write_atomically

FORMATS = (1, 2)  # a replay of format 1 cannot be resumed


def save_checkpoint(folder: Path, env_steps: int, content: dict[str, Any], keep: int) -> Path:
    """Write `folder`/step_N.pt and remove all but the newest `keep`. Raises UserError if the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"*{TEMPORARY}"):  # by a process that was killed
            left.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    path = checkpoint_path(folder, env_steps)
    write_atomically(path, lambda file: _write(file, {"format": FORMATS[-1], "env_steps": env_steps, **content}))
    for old in checkpoints(folder)[:-keep]:
        with contextlib.suppress(OSError):
            old.unlink(missing_ok=True)
    return path


def is_outdated(run: Path, checkpoint: str | None) -> bool:
    """Whether figures measured of a checkpoint (None: they do not say) are of another than the newest kept."""
    kept = checkpoints(run / "checkpoints")
    return checkpoint is not None and bool(kept) and kept[-1].name != checkpoint


def _write(file: IO[bytes], content: dict[str, Any]) -> None:
    """torch.save, which hides what the disk said behind errors of its own."""
    refused: list[OSError] = []

    class Target:
        def write(self, raw: bytes) -> int:
            try:
                return file.write(raw)
            except OSError as error:
                refused.append(error)
                raise

        def flush(self) -> None:
            file.flush()

    try:
        torch.save(_compact(content), Target())  # pyright: ignore[reportArgumentType]
    except RuntimeError:
        if refused:
            raise refused[0] from None
        raise


def _compact(value: Any) -> Any:
    """The same values without what torch.save would add: it writes the whole memory that a view looks at."""
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_compact(item) for item in value)
    if isinstance(value, Tensor) and value.untyped_storage().nbytes() > value.nbytes:
        return value.clone()
    return value


def checkpoint_path(folder: Path, env_steps: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step_{env_steps:012d}.pt"


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return sorted(folder.glob("step_*.pt"))


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
    if content.get("format") not in FORMATS or type(content.get("env_steps")) is not int:
        raise UserError(f"{path}: not a simreal checkpoint of format {FORMATS[-1]}")
    if task is not None and content.get("task") != task:
        raise UserError(f"{path}: is of task {str(content.get('task'))[:100]}, expected {task}")
    return content
