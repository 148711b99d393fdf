"""A folder of pictures: one array per camera, the states and worlds beside it, all of them NumPy files to be mapped.

While it is being written its arrays have another name (`.tmp`); `pictures.json`, which says what is in it, comes last.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from envs.task import Task
from simreal.common.atomic_files import TEMPORARY, write_text, writing
from simreal.common.errors import UserError
from simreal.common.json_io import read_json, to_json
from simreal.training.run_config import first_difference
from simreal.vision.datasets.maker import Chunk
from simreal.vision.datasets.plan import Chunking, PicturePlan

CONTENT, PROGRESS = "pictures.json", "progress.json"
FORMAT = 1


def file_of(name: str) -> str:
    """A file name for something that a model names."""
    return re.sub(r"[^\w.-]", "_", name) + ".npy"


class FolderWriter:
    """Writes frames into a folder, in order, so that a killed process goes on where the last `save` was.

    Args:
        folder: which exists, and belongs to this process.
        plan: of the frames.
        frames: in all.
        chunking: of the plan.
        parameters: names of the worlds' numbers.

    Attributes:
        done: frames that are on the disk.

    Raises:
        UserError: the folder holds frames of another plan; the disk has no room.
    """

    def __init__(self, folder: Path, plan: PicturePlan, frames: int, chunking: Chunking, parameters: list[str]) -> None:
        self._folder = folder
        self._about = {
            "format": FORMAT, "frames": frames, "plan": plan.plain(), "chunk": vars(chunking), "parameters": parameters
        }  # fmt: skip
        self._cameras, self._arrays = plan.cameras, {}
        before = read_json(folder / PROGRESS)
        self.done = 0
        if before is not None:
            done, states = before.pop("done"), before.pop("states")
            apart = first_difference(before, self._about, "")
            if apart is not None:
                raise UserError(f"{folder}: {apart.removeprefix('.')}, which its frames have; name another --output")
            self.done = int(done)
            self._about["states"] = states

    def write(self, start: int, chunk: Chunk) -> None:
        """Frames from `start` on. Raises UserError if the disk refuses."""
        columns = self._columns(chunk)
        if not self._arrays:
            self._open(columns)
        for name, values in columns.items():
            self._arrays[name][start : start + len(values)] = values
        self._written = start + len(chunk.worlds)

    def _columns(self, chunk: Chunk) -> dict[str, NDArray[Any]]:
        """What goes into each file of a chunk's frames."""
        pictures = {file_of(name): chunk.pictures[:, c] for c, name in enumerate(self._cameras)}
        states = {f"states/{file_of(name)}": values for name, values in chunk.states.items()}
        self._about["states"] = {name: values.shape[1] for name, values in chunk.states.items()}
        return pictures | states | {"worlds.npy": chunk.worlds}

    def _open(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Map the files, new ones or those that are there."""
        with writing(self._folder):
            (self._folder / "states").mkdir(exist_ok=True)
            for name, values in columns.items():
                path, shape = self._folder / (name + TEMPORARY), (self._about["frames"], *values.shape[1:])
                if self.done:
                    self._arrays[name] = open_memmap(path, "r+")
                    continue
                self._arrays[name] = open_memmap(path, "w+", dtype=values.dtype, shape=shape)
                with path.open("r+b") as file:  # a full disk would end the process when it writes to the map
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def save(self) -> None:
        """Bring what has been written to the disk, and note how far it goes."""
        if not self._arrays:
            return
        for array in self._arrays.values():
            array.flush()
        self.done = self._written
        write_text(self._folder / PROGRESS, to_json(self._about | {"done": self.done}))

    def finish(self) -> None:
        """Give the files their names, and write what is in them."""
        self.save()
        names = list(self._arrays) or [str(p.relative_to(self._folder)) for p in self._folder.rglob(f"*{TEMPORARY}")]
        self._arrays.clear()
        with writing(self._folder):
            for name in names:
                path = self._folder / (name.removesuffix(TEMPORARY) + TEMPORARY)
                if path.is_file():
                    path.replace(path.with_name(path.name.removesuffix(TEMPORARY)))
        write_text(self._folder / CONTENT, to_json(self._about))
        (self._folder / PROGRESS).unlink(missing_ok=True)


@dataclass(frozen=True)
class PictureFolder:
    """A folder that `simreal render` has finished.

    Attributes:
        folder: where.
        plan: of the frames, as in `PicturePlan`.
        frames: in all.
        states: sizes of the states' arrays, by name.
        parameters: names of the worlds' numbers.
        chunking: how the frames were dealt with.
    """

    folder: Path
    plan: Mapping[str, Any]
    frames: int
    states: Mapping[str, int]
    parameters: tuple[str, ...]
    chunking: Chunking

    @classmethod
    def open(cls, folder: Path) -> PictureFolder:
        """The folder. Raises UserError: there is none, it is unfinished, or it has been damaged."""
        if not (folder / CONTENT).is_file():
            if (folder / PROGRESS).is_file():
                raise UserError(f"{folder}: is not finished; go on with simreal render ... --resume")
            raise UserError(f"{folder}: no pictures; expected the --output of `simreal render`")
        about = read_json(folder / CONTENT) or {}
        try:
            if about["format"] != FORMAT:
                raise UserError(f"{folder}: is of format {about['format']}, expected {FORMAT}")
            found = cls(
                folder, about["plan"], int(about["frames"]), about["states"], tuple(about["parameters"]),
                Chunking(**about["chunk"]),
            )  # fmt: skip
            for _ in found.arrays():
                pass
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(f"{folder}: damaged: {error}") from None
        return found

    def arrays(self) -> Iterator[NDArray[Any]]:
        """All arrays of the folder, mapped and checked. Raises ValueError."""
        size = (self.plan["height"], self.plan["width"], 3)
        for name in self.plan["cameras"]:
            yield self._mapped(file_of(name), np.dtype(np.uint8), size)
        for name, width in self.states.items():
            yield self._mapped(f"states/{file_of(name)}", np.dtype(np.float64), (width,))

    def _mapped(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        array = np.load(self.folder / name, mmap_mode="r")
        if array.dtype != dtype or array.shape != (self.frames, *shape):
            wanted = f"{dtype} {(self.frames, *shape)}"
            raise ValueError(f"{name} holds {array.dtype} {array.shape}, expected {wanted}")
        return array

    @cached_property
    def _cameras(self) -> list[NDArray[np.uint8]]:
        size = (self.plan["height"], self.plan["width"], 3)
        return [self._mapped(file_of(name), np.dtype(np.uint8), size) for name in self.plan["cameras"]]

    def pictures(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pictures [n, cameras, height, width, 3] of frames rows [n]."""
        return np.stack([array[rows] for array in self._cameras], axis=1)

    def state(self, name: str) -> NDArray[np.float64]:
        """One of the states, of all frames [frames, k]."""
        return self._mapped(f"states/{file_of(name)}", np.dtype(np.float64), (self.states[name],))


def state_names(task: Task) -> list[str]:
    """Names of the states that are written for a task's frames."""
    components = [c.name for group in ("policy", "privileged") for c in task.components(group)]
    components += [c.name for c in task.pictured]
    return [*components, *(["achieved_goal"] if task.goal_size else []), "qpos"]
