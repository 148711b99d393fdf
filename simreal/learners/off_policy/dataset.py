"""Files of recorded transitions: `simreal record` writes them, fitted Q iteration learns from them.

A file is an npz archive of K transitions, episodes one after the other and each in the order of its steps:

    observation, next_observation [K, nobs] float32   policy group, as measured; the desired goal last
    action [K, A] float32                             in [-1, 1], what was asked for, exploration included
    reward [K] float32
    terminated, truncated, success [K] bool
    episode [K] int64                                 number of the episode
    achieved_goal [K, G] float32                      reached by the step; of tasks with goals
    contract                                          JSON: format, version, task, components, how it was recorded

Where an episode number changes an episode has ended, terminated or not: what is not terminated goes on in value.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.common.messages import nearest
from simreal.common.atomic_files import write_atomically
from simreal.common.errors import UserError

FORMAT, VERSION = "simreal dataset", 1
_KINDS = {  # of the arrays: type, dimensions
    "observation": (np.float32, 2),
    "action": (np.float32, 2),
    "reward": (np.float32, 1),
    "next_observation": (np.float32, 2),
    "terminated": (np.bool_, 1),
    "truncated": (np.bool_, 1),
    "success": (np.bool_, 1),
    "episode": (np.int64, 1),
}
_GOAL = {"achieved_goal": (np.float32, 2)}


@dataclass(frozen=True)
class Dataset:
    """Recorded transitions, see the module; and what is known of how they were made."""

    arrays: dict[str, NDArray[Any]]
    contract: dict[str, Any]

    def __len__(self) -> int:
        """K."""
        return len(self.arrays["reward"])

    @property
    def episodes(self) -> int:
        """Episodes, whole or not."""
        return len(np.unique(self.arrays["episode"]))

    def digest(self) -> str:
        """A fingerprint of the transitions."""
        made = hashlib.sha256()
        for name in sorted(self.arrays):
            made.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return made.hexdigest()


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write a file of transitions, whole or not at all. Raises UserError if the disk refuses."""
    contract = json.dumps({"format": FORMAT, "version": VERSION, **dataset.contract})
    arrays: dict[str, Any] = {**dataset.arrays, "contract": np.array(contract)}
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def read_dataset(path: Path) -> Dataset:
    """Read a file of transitions.

    Raises:
        UserError: it is missing, no such file, or its arrays are not those of the format: naming what is wrong.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected one of `simreal record`")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        contract = json.loads(str(arrays.pop("contract")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, MemoryError, RecursionError,
            zipfile.BadZipFile, zlib.error, NotImplementedError):  # fmt: skip
        raise UserError(f"{path}: no dataset; expected a file of `simreal record`") from None
    if not isinstance(contract, dict) or contract.get("format") != FORMAT:
        raise UserError(f"{path}: no dataset; expected a file of `simreal record`")
    if contract.get("version") != VERSION:
        raise UserError(f"{path}: is of version {contract.get('version')!r:.40}, expected {VERSION}")
    _check_arrays(path, arrays)
    return Dataset(arrays, contract)


def _check_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Raise UserError unless these are the arrays of a dataset, finite and of one length."""
    kinds = _KINDS | (_GOAL if "achieved_goal" in arrays else {})
    for name in kinds:
        if name not in arrays:
            raise UserError(f"{path}: has no array {name!r}{nearest(name, arrays)}")
    count = len(arrays["reward"]) if arrays["reward"].ndim else 0
    if not count:
        raise UserError(f"{path}: holds no transition")
    for name, (dtype, dimensions) in kinds.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != dimensions or len(array) != count:
            raise UserError(
                f"{path}: {name}: expected {np.dtype(dtype).name} with {dimensions} dimensions and {count} rows, "
                f"got {array.dtype} of shape {list(array.shape)}"
            )
        broken = ~np.isfinite(array).reshape(count, -1).all(axis=1)
        if broken.any():
            raise UserError(f"{path}: {name}: row {int(broken.argmax())} is not finite")
    if arrays["next_observation"].shape != arrays["observation"].shape:
        raise UserError(f"{path}: next_observation: expected the shape of observation")
    _check_meaning(path, arrays)


def _check_meaning(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Raise UserError where actions are of another scale, or episodes do not lie as the format says."""
    beyond = (np.abs(arrays["action"]) > 1.0).any(axis=1)
    if beyond.any():
        row = int(beyond.argmax())
        largest = float(np.abs(arrays["action"][row]).max())
        raise UserError(f"{path}: action: row {row}: expected values in [-1, 1], got one of {largest:.6g}")
    episode = arrays["episode"]
    begins = np.append(True, episode[1:] != episode[:-1])
    starts = np.flatnonzero(begins)
    _, first = np.unique(episode[starts], return_index=True)
    if len(first) < len(starts):
        again = int(starts[np.setdiff1d(np.arange(len(starts)), first)[0]])
        raise UserError(
            f"{path}: episode: row {again} is of episode {episode[again]} again; expected all rows of an episode "
            "one after the other"
        )
    on = np.flatnonzero((arrays["terminated"] | arrays["truncated"])[:-1] & ~begins[1:])
    if len(on):
        raise UserError(f"{path}: row {on[0]} ends episode {episode[on[0]]}, which goes on in row {on[0] + 1}")


def check_fits(
    path: Path, dataset: Dataset, task: str, observation_size: int, action_size: int, goal_size: int
) -> None:
    """Raise UserError unless a dataset is of a task, with its sizes."""
    recorded = dataset.contract.get("task")
    if recorded != task:
        raise UserError(f"{path}: is of task {recorded!r:.100}, expected {task}")
    sizes = {"observation": observation_size, "action": action_size, "achieved_goal": goal_size}
    for name, size in sizes.items():
        found = dataset.arrays[name].shape[1] if name in dataset.arrays else 0
        if found != size:
            raise UserError(f"{path}: {name}: expected {size} values as {task} has, got {found}")
