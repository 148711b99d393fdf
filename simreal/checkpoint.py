"""Checkpoints: tensors and plain data, written so that a crash never leaves an unreadable run.

A file is written beside its final name, synced to disk and renamed. It loads with `weights_only=True`: no file
of ours, or given to us, ever runs code.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from simreal.errors import UserError

FORMAT = 1


def save_checkpoint(folder: Path, env_steps: int, content: dict[str, Any], keep: int) -> Path:
    """Write `folder`/step_N.pt and remove all but the newest `keep`. Raises UserError if the disk refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{env_steps:012d}.pt"
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, "env_steps": env_steps, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot write the checkpoint: {error}") from None
    for old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


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
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, OSError, KeyError):
        raise UserError(f"{path}: damaged or not a checkpoint; expected a file that `simreal train` wrote") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a simreal checkpoint of format {FORMAT}")
    if task is not None and content.get("task") != task:
        raise UserError(f"{path}: is of task {content.get('task')}, expected {task}")
    return content


def newest_checkpoint(run: Path, task: str | None = None) -> dict[str, Any]:
    """The newest checkpoint of a run. Raises UserError if there is none or it cannot be read."""
    found = checkpoints(run / "checkpoints")
    if not found:
        raise UserError(f"{run}: has no checkpoint; expected a run directory of `simreal train`")
    return load_checkpoint(found[-1], task)
