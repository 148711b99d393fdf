"""Files that appear whole or not at all, and directories that one process owns."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout, lock_descriptor

from simreal.common.errors import UserError

LOCK = ".lock"
TEMPORARY = ".tmp"  # suffix of what is being written
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Have `write` fill a file that then takes the name `path`, with its content on the disk.

    A crash, at any moment, leaves what was there before or the new file, whole.

    Raises:
        UserError: the disk refuses; what was there before is intact.
    """
    if _is_device(path):
        try:
            with path.open("wb") as file:
                write(file)
        except OSError as error:
            raise cannot_write(path, error) from None
        return
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from None
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _is_device(path: Path) -> bool:
    """Whether a path is written to in place. /dev/stdout is a link, to a plain file where output is redirected: a
    rename would replace the link for the whole machine."""
    folder = path.parent.resolve()
    return (
        folder == Path("/dev") or Path("/proc") in (folder, *folder.parents) or (path.exists() and not path.is_file())
    )


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def cannot_write(path: Path, error: OSError) -> UserError:
    """What a user is told of a write that failed."""
    return UserError(f"{path}: cannot be written: {error.strerror or error}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block, a disk that refuses is told to the user in one line."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can."""
    with contextlib.suppress(OSError):  # some network file systems refuse to open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def owned(folder: Path, keep_empty: bool = True) -> Iterator[None]:
    """Own a directory within the block; where it had to be created, it is removed again if nothing was put into it.

    The lock belongs to the open file: it ends with the process, however that ends.

    Args:
        folder: the directory.
        keep_empty: False also removes one that was there.

    Raises:
        UserError: another process owns it (named), or it cannot be created or written.
    """
    created = _create(folder) or ([] if keep_empty else [folder])
    path = folder / LOCK
    lock = FileLock(path, blocking=False)
    try:
        try:
            lock.acquire()
        except Timeout:
            with path.open("rb") as file:
                owner = file.read(200).decode(errors="replace").strip()
            raise UserError(f"{folder}: is in use by {owner or 'another process'}; wait for it or stop it") from None
        except OSError as error:
            raise cannot_write(folder, error) from None
        try:
            with contextlib.suppress(OSError):
                path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            lock.release()
    finally:
        for path in reversed(created):
            with contextlib.suppress(OSError):  # not empty: this is the usual case
                path.rmdir()


def _create(folder: Path) -> list[Path]:
    """Create a directory and those above it; returns the ones that are new, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    return missing[::-1]


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `target` when the block ends without an error.

    A folder that had the name is replaced in one step where the system can (Linux), and then removed. What earlier
    processes left behind when they were killed is removed too. Raises OSError.
    """
    _remove_abandoned(target)
    temporary = target.parent / f".{target.name}-{secrets.token_hex(4)}"
    temporary.mkdir(parents=True)
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        lock_descriptor(descriptor, blocking=False)
        yield temporary
        sync_folder(temporary)
        _swap(temporary, target)
        sync_folder(target.parent)
    finally:
        os.close(descriptor)
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(target: Path) -> None:
    """Remove unfinished folders whose process is gone: its lock went with it."""
    name = re.compile(rf"\.{re.escape(target.name)}-[0-9a-f]{{8}}(-old)?")
    for path in target.parent.glob(f".{glob.escape(target.name)}-*"):
        if not name.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if lock_descriptor(descriptor, blocking=False):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _swap(temporary: Path, target: Path) -> None:
    """Give a folder its name; one that had the name gets the other's."""
    if not target.exists():
        temporary.rename(target)
    elif not _exchange(temporary, target):
        old = temporary.with_name(f"{temporary.name}-old")
        target.rename(old)
        try:
            temporary.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0
