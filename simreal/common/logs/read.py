"""Opens a log of any kind that simreal reads."""

from __future__ import annotations

import os
from pathlib import Path

from simreal.common.errors import UserError
from simreal.common.logs.rosbag import read_bag
from simreal.common.logs.signals import Log
from simreal.common.logs.tables import read_csv, read_npz

_READERS = {".mcap": read_bag, ".db3": read_bag, ".csv": read_csv, ".npz": read_npz}


def read_log(path: str | os.PathLike[str]) -> Log:
    """A log from an MCAP file, a rosbag2 directory (MCAP or SQLite), a CSV table or an .npz (docs/audit.md).

    Raises:
        UserError: there is no such log, it is damaged, cut off or empty, its time goes backwards, or a package that
            reads it is missing.
    """
    source = Path(path)
    if not source.exists():
        raise UserError(f"{source}: no such log; expected {_expected()}")
    if source.is_dir():
        if not (source / "metadata.yaml").is_file():
            found = [p.name for p in sorted(source.iterdir()) if p.suffix in _READERS]
            hint = f" (did you mean {str(source / found[0])!r}?)" if found else ""
            raise UserError(f"{source}: is a folder without metadata.yaml{hint}; expected {_expected()}")
        log = read_bag(source)
    elif source.suffix.lower() in _READERS:
        if not source.stat().st_size:
            raise UserError(f"{source}: is empty; expected {_expected()}")
        log = _READERS[source.suffix.lower()](source)
    else:
        raise UserError(f"{source}: unknown kind of file; expected {_expected()}")
    signals = {name: signal for name, signal in log.signals.items() if len(signal.time)}
    if not signals:
        raise UserError(f"{source}: has no numbers in it; expected messages of joints, sensors or actions")
    return Log(signals, log.contract, source)


def _expected() -> str:
    return "a rosbag2 directory, or a file that ends in .mcap, .db3, .csv or .npz"
