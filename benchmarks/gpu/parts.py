"""Cuts archives into parts that can be carried one load at a time, and makes them whole again at the other end.

    python parts.py cut FOLDER ARCHIVE...      parts into FOLDER/load-1, FOLDER/load-2, ..., with a list of them all
    python parts.py keep FOLDER STORE          take the parts of a load into STORE
    python parts.py check STORE                name the parts that are missing or altered
    python parts.py unpack STORE TARGET        check, join, extract
    python parts.py site TARGET WHEEL...       what the wheels install, less what --without names

Exit status 2, and one line for each part concerned, where a part is missing or altered. Needs Python 3.11 and nothing
else: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import io
import json
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LIST = "manifest.json"
MOST_BYTES = 58_000_000  # of a load; a command carries 64 MiB at most, the working tree of 6 MB included
_BLOCK = 1 << 20


class PartsError(Exception):
    """Parts that cannot be used; one line for each."""


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cut(folder: Path, archives: Sequence[Path], most: int = MOST_BYTES) -> dict[str, Any]:
    """Cut archives into parts and sort them into loads of at most `most` bytes.

    Returns:
        The list of parts, which every load carries: {"loads": {load: {part: {"bytes", "sha256"}}},
        "archives": {archive: {"bytes", "sha256", "parts"}}}.
    """
    if most < 1:
        raise PartsError(f"most bytes of a load: expected at least 1, got {most}")
    loads: list[dict[str, dict[str, Any]]] = [{}]
    whole: dict[str, dict[str, Any]] = {}
    free = most
    for old in folder.glob("load-*"):
        shutil.rmtree(old)
    for archive in archives:
        parts = []
        with archive.open("rb") as file:
            for index in range(1000):
                if free == 0:
                    loads.append({})
                    free = most
                content = file.read(free)
                if not content:
                    break
                part = f"{archive.name}.{index:02d}"
                path = folder / f"load-{len(loads)}" / part
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                loads[-1][part] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                parts.append(part)
                free -= len(content)
        whole[archive.name] = {"bytes": archive.stat().st_size, "sha256": digest(archive), "parts": parts}
    named = {f"load-{number}": load for number, load in enumerate(loads, 1) if load}
    listing = {"loads": named, "archives": whole}
    for name in named:
        (folder / name / LIST).write_text(json.dumps(listing, indent=1, sort_keys=True) + "\n")
    return listing


def keep(folder: Path, store: Path) -> list[str]:
    """Take the parts in a folder, or in the loads below it, into the store; returns their names.

    Raises PartsError where they belong to another list than what the store holds.
    """
    store.mkdir(parents=True, exist_ok=True)
    taken = []
    for listing in sorted(folder.rglob(LIST)):
        known = store / LIST
        if known.exists() and known.read_bytes() != listing.read_bytes():
            raise PartsError(f"{listing}: altered, or of another packing than {store} holds: empty that, or pack anew")
        shutil.copyfile(listing, known)
        for path in sorted(listing.parent.iterdir()):
            if path.name != LIST:
                shutil.copyfile(path, store / path.name)
                taken.append(path.name)
    return taken


def problems(store: Path) -> Iterator[str]:
    """What is wrong with the store: a line for each part that is missing or altered."""
    try:
        listing = json.loads((store / LIST).read_text())
        loads = {name: dict(load) for name, load in listing["loads"].items()}
    except FileNotFoundError:
        yield f"missing: {LIST}: no load was kept in {store}"
        return
    except (ValueError, KeyError, TypeError, AttributeError):
        yield f"altered: {LIST}: not a list of parts"
        return
    for load, parts in loads.items():
        for name, expected in parts.items():
            path = store / name
            if not path.is_file():
                yield f"missing: {name} (of {load})"
            elif path.stat().st_size != expected["bytes"]:
                yield f"altered: {name} (of {load}): {path.stat().st_size} bytes instead of {expected['bytes']}"
            elif digest(path) != expected["sha256"]:
                yield f"altered: {name} (of {load}): its checksum is another one"


def check(store: Path) -> dict[str, Any]:
    """The list of parts. Raises PartsError unless all of them are in the store, as they were packed."""
    found = list(problems(store))
    if found:
        raise PartsError("\n".join(found))
    return json.loads((store / LIST).read_text())


def site(target: Path, wheels: Sequence[Path], without: Sequence[str] = ()) -> None:
    """Lay out pure files of wheels as an installer would, so that their folder on PYTHONPATH is all it takes.

    Args:
        target: the folder; emptied first.
        wheels: with scripts, which are left out, and .data folders, whose libraries go to the top.
        without: patterns of paths to leave out; "gymnasium_robotics/*" also covers what is deeper.
    """
    shutil.rmtree(target, ignore_errors=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                inner = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name)
                left_out = any(fnmatch.fnmatchcase(inner, pattern) for pattern in without)
                if name.endswith("/") or left_out or re.match(r"[^/]+\.data/", inner):
                    continue
                path = target / inner
                if path.exists() and path.read_bytes() != archive.read(name):
                    raise PartsError(f"{wheel.name}: {inner} is in another wheel too, with other content")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))


class _Joined(io.RawIOBase):
    """Files read one after another."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self._file = list(paths), None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._file is None:
                if not self._paths:
                    return 0
                self._file = self._paths.pop(0).open("rb")
            if count := self._file.readinto(buffer):
                return count
            self._file.close()
            self._file = None


def unpack(store: Path, target: Path) -> None:
    """Check the parts, join them, extract the archives. Raises PartsError before anything is written."""
    for archive, whole in check(store)["archives"].items():
        joined = io.BufferedReader(_Joined([store / part for part in whole["parts"]]), _BLOCK)
        try:
            with tarfile.open(fileobj=joined, mode="r|*") as tar:
                # Older releases of Python 3.11 have no filters; the checksums say that the members are our own.
                known: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                tar.extractall(target, **known)
        except tarfile.TarError as error:
            raise PartsError(f"{archive}: {error}") from None


def _table(listing: dict[str, Any]) -> str:
    lines = []
    for load, parts in listing["loads"].items():
        lines.append(f"{load}: {sum(part['bytes'] for part in parts.values()) / 1e6:.1f} MB")
        lines += [f"  {name}: {part['bytes'] / 1e6:.1f} MB, {part['sha256'][:12]}" for name, part in parts.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The commands above; returns the exit status."""
    parser = argparse.ArgumentParser(description="Archives in parts.")
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("cut")
    cutting.add_argument("--most", type=int, default=MOST_BYTES, help="bytes of a load")
    cutting.add_argument("folder", type=Path)
    cutting.add_argument("archives", type=Path, nargs="+")
    laying = commands.add_parser("site")
    laying.add_argument("--without", action="append", default=[], help="pattern of paths to leave out")
    laying.add_argument("target", type=Path)
    laying.add_argument("wheels", type=Path, nargs="+")
    for name, places in (("keep", ("folder", "store")), ("check", ("store",)), ("unpack", ("store", "target"))):
        command = commands.add_parser(name)
        for place in places:
            command.add_argument(place, type=Path)
    args = parser.parse_args(arguments)
    try:
        if args.command == "cut":
            print(_table(cut(args.folder, args.archives, args.most)))
        elif args.command == "site":
            site(args.target, args.wheels, args.without)
        elif args.command == "keep":
            taken = keep(args.folder, args.store)
            print("kept: " + (", ".join(taken) or f"nothing, there are no parts in {args.folder}"))
        elif args.command == "check":
            print(f"{len(check(args.store)['loads'])} loads, all parts as packed")
        else:
            unpack(args.store, args.target)
    except (PartsError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
