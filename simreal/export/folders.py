"""Folders that an export replaces: those that an earlier one wrote, and nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simreal.common.atomic_files import new_folder
from simreal.common.json_io import to_json
from simreal.deploy.files import UNSIGNED
from simreal.export.source import ExportError


@dataclass(frozen=True)
class Kind:
    """What a folder of ours holds.

    Attributes:
        name: "bundle", for people.
        files: names that may be there.
        marked: the one of them that tells whose folder it is, and what stands in its first 200 bytes.
    """

    name: str
    files: Collection[str]
    marked: tuple[str, str]

    def refuse_foreign(self, target: Path) -> None:
        """Raise ExportError unless `target` is free, empty, or holds a folder of this kind and nothing else."""
        if target.is_dir():
            names, marked = sorted(entry.name for entry in target.iterdir()), target / self.marked[0]
            foreign = [name for name in names if name not in self.files]
            ours = marked.is_file() and self.marked[1].encode() in marked.read_bytes()[:200]
            if foreign or (names and not ours):
                held = (foreign or names)[0]
                raise ExportError(f"{target}: holds {held!r} and is no {self.name}; name another directory")
        elif target.exists():
            raise ExportError(f"{target}: is a file; name a directory to write the {self.name} to")

    def write(self, target: Path, files: Mapping[str, bytes], check: Callable[[Path], None] = lambda _: None) -> None:
        """Put files in place together, once `check` has looked at their folder. Raises ExportError and OSError."""
        with new_folder(target) as folder:
            for name, raw in files.items():
                with (folder / name).open("wb") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
            check(folder)
            self.refuse_foreign(target)


def signed(contract: dict[str, Any], contents: dict[str, bytes]) -> bytes:
    """A contract with the sizes and digests of the other files, and its own."""
    files = {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in contents.items()}
    text = to_json(contract | {"files": files})
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(UNSIGNED, digest, 1).encode()
