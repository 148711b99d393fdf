"""Files that appear whole or not at all, and directories that one process owns."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from simreal.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: two processes on one run are not noticed there
    fcntl = None

LOCK = ".lock"
TEMPORARY = ".tmp"  # suffix of what is being written


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Have `write` fill a file that then takes the name `path`, with its content on the disk.

    A crash, at any moment, leaves what was there before or the new file, whole.

    Raises:
        UserError: the disk refuses; what was there before is intact.
    """
    if path.exists() and not path.is_file():  # /dev/stdout, say
        with path.open("wb") as file:
            write(file)
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


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def cannot_write(path: Path, error: OSError) -> UserError:
    """What a user is told of a write that failed."""
    return UserError(f"{path}: cannot be written: {error.strerror or error}")


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
    try:
        descriptor = _lock(folder)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
            os.close(descriptor)
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


def _lock(folder: Path) -> int:
    """A descriptor of the directory's lock file, locked."""
    path = folder / LOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise cannot_write(folder, error) from None
        if fcntl is None:
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(f"{folder}: its file system cannot lock files: {error.strerror}") from None
            raise UserError(f"{folder}: is in use by {owner or 'another process'}; wait for it or stop it") from None
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:  # else its owner removed it in the meantime
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                return descriptor
        os.close(descriptor)
