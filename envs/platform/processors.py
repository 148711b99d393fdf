"""How many processors this process may use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


_sharing = [1]  # processes of a run that share this machine's processors, the present number last


@contextlib.contextmanager
def shared_by(processes: int) -> Iterator[None]:
    """Within the block, `available_threads` is this process's part among so many."""
    _sharing.append(processes)
    try:
        yield
    finally:
        _sharing.pop()


def available_threads() -> int:
    """Processors that this process may use: its affinity mask, and what a container's quota allows, at least one."""
    return max(1, _processors() // _sharing[-1])


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    quota = processor_quota(_CGROUPS, _OWN_CGROUP)
    return count if quota is None else max(1, min(count, round(quota)))


def processor_quota(cgroups: Path, own: Path) -> float | None:
    """Processors' worth of time that the control group of this process and those above it allow; None for no limit.

    A container given two of 64 processors sees 64: threads for all of them would be throttled together.

    Args:
        cgroups: where control groups are mounted (version 2; version 1 keeps `cpu/` there).
        own: names the control group of this process.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, read = cgroups, _quota_v2
        elif "cpu" in controllers.split(","):
            root, read = cgroups / "cpu", _quota_v1
        else:
            continue
        inside = Path(path.strip("/"))
        quotas += [q for q in (read(root / part) for part in (inside, *inside.parents)) if q is not None]
    return min(quotas, default=None)


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
