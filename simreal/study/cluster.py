"""Makes the runs of a study or of a sweep on the nodes of a Ray cluster, as many at a time as it has room for.

A node that sees their folder (a shared file system) works there, and a run whose node dies goes on from its last
checkpoint on another one. A node that does not is sent what it needs, and sends the finished run back.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import secrets
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from envs.platform.processors import available_threads, shared_by
from simreal.common.atomic_files import new_folder
from simreal.common.errors import UserError
from simreal.training.run_config import RunConfig
from simreal.training.trainer import Interrupted, SignalHandler

_RETRIES = 5  # of a run whose node has died
_LOOK_S = 1.0  # between two looks at what goes on
_TO_SAVE_S = 120.0  # for interrupted runs to save


@dataclass(frozen=True)
class Job:
    """Something to be made on a node: one run, or some that belong together."""

    name: str
    title: str  # for people
    config: RunConfig  # its first run's: says what it needs of a node
    runs: tuple[str, ...]  # folders under `runs` that it writes
    make: Callable[[Path, int | None, Console], Any]
    """Makes what they lack in the folder that holds `runs`, with so many threads where the configuration names none."""
    after: str | None = None  # the job that has to be done before
    reads: tuple[str, ...] = ()  # further folders under `runs` that it needs


@dataclass
class _Going:
    """A job on its way."""

    job: Job
    state: str = "waiting"  # or running, done
    reference: Any = field(default=None, repr=False)


def make_on_ray(jobs: list[Job], folder: Path, address: str, out: Console) -> Iterator[tuple[str, Any]]:
    """Make jobs on a cluster; gives the name of each when it is finished, and what its `make` returned.

    Args:
        jobs: a job comes after the one that it waits for; one that waits for none of these waits for nothing.
        folder: with `runs` in it.
        address: of the cluster, or "local" to start one on this machine.
        out: where progress goes.

    Raises:
        UserError: Ray is not installed or not to be reached, or a run met an error of the user.
        Interrupted: by SIGINT or SIGTERM; runs on a shared file system have saved.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs ray, which is not installed: pip install 'simreal[cluster]'")
    ray = importlib.import_module("ray")
    going = {job.name: _Going(job) for job in jobs}
    with _connected(ray, address), _token(folder) as token, SignalHandler().listening() as stop, _table(out) as show:
        task = ray.remote(max_retries=_RETRIES)(_on_node)
        while any(one.state != "done" for one in going.values()):
            for one in going.values():
                before = None if one.job.after is None else going.get(one.job.after)
                if one.state == "waiting" and (before is None or before.state == "done"):
                    _submit(task, one, folder, token)
            show(list(going.values()), folder)
            running = {one.reference: one for one in going.values() if one.state == "running"}
            finished, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_S)
            if stop.requested:
                _cancel(ray, list(running))
                raise Interrupted("interrupted")
            for reference in finished:
                one = running[reference]
                try:
                    result, archive = ray.get(reference)
                except ray.exceptions.RayError as error:
                    _cancel(ray, [other for other in running if other is not reference])
                    raise _told(one.job, error) from None
                _bring_home(archive, folder / "runs")
                one.state = "done"
                show(list(going.values()), folder)
                yield one.job.name, result


def _submit(task: Any, one: _Going, folder: Path, token: str) -> None:
    """Hand a job to the cluster, with the resources that its configuration asks for."""
    config = one.job.config
    gpu = config.device == "cuda" or config.engine == "gpu"
    resources = {"num_cpus": config.threads or 1, "num_gpus": 1 if gpu else 0}
    parts = [path for name in (*one.job.runs, *one.job.reads) if (path := folder / "runs" / name).is_dir()]
    work = _Work(one.job, folder.resolve(), token, packed(parts), resources["num_cpus"])
    one.reference, one.state = task.options(**resources, name=one.job.name).remote(work), "running"


@dataclass
class _Work:
    """What a node is given."""

    job: Job
    folder: Path
    token: str
    parts: bytes  # runs that are there already, for nodes that do not see the folder
    threads: int


def _on_node(work: _Work) -> tuple[Any, bytes | None]:
    """Make a job on a node: in its folder, or elsewhere; returns what it came to and, from elsewhere, its runs."""
    quiet = Console(quiet=True)
    SignalHandler.one_signal_s = _TO_SAVE_S  # Ray repeats it until the run has saved
    threads = work.threads if work.job.config.threads is None else None
    with shared_by(max(available_threads() // work.threads, 1)):
        if (work.folder / work.token).is_file():
            return work.job.make(work.folder, threads, quiet), None
        with tempfile.TemporaryDirectory(prefix="simreal-") as name:
            runs = Path(name) / "runs"
            runs.mkdir()
            unpack(work.parts, runs)
            result = work.job.make(Path(name), threads, quiet)
            return result, packed([runs / run for run in work.job.runs if (runs / run).is_dir()])


def packed(folders: list[Path]) -> bytes:
    """Folders as a tar archive, each under its own name."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for folder in folders:
            archive.add(folder, folder.name)
    return file.getvalue()


def unpack(archive: bytes, target: Path) -> None:
    """Write out what `packed` made; names that lead out of the target are refused (tarfile's filter "data")."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        file.extractall(target, filter="data")


def _bring_home(archive: bytes | None, runs: Path) -> None:
    """Put runs that were made elsewhere in their places, whole."""
    if archive is None:
        return
    with tempfile.TemporaryDirectory(dir=runs) as name:
        unpack(archive, Path(name))
        for made in Path(name).iterdir():
            with new_folder(runs / made.name) as new:
                for path in made.iterdir():
                    path.rename(new / path.name)


def _cancel(ray: Any, references: list[Any]) -> None:
    """Have runs save and end."""
    for reference in references:
        ray.cancel(reference)
    if references:
        ray.wait(references, num_returns=len(references), timeout=_TO_SAVE_S)


def _told(job: Job, error: Any) -> Exception:
    """What the user is told of a run that failed."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Interrupted):
        return Interrupted(f"{job.name}: {cause}")
    said = " ".join(str(cause or error).split())
    return UserError(f"{job.name}: {said[:500]}") if isinstance(cause, (UserError, ValueError)) else error


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A connection to a cluster within the block; one that exists already is used."""
    begun = not ray.is_initialized()
    if begun:
        try:
            ray.init(None if address == "local" else address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, OSError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise UserError(f"--ray: {address}: no cluster to be reached there: {said[:200]}") from None
    try:
        yield
    finally:
        if begun:
            ray.shutdown()


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[str]:
    """The name of a file in the folder by which nodes find out whether they see it."""
    name = f".ray-{secrets.token_hex(8)}"
    (folder / name).write_text(f"process {os.getpid()}\n")
    try:
        yield name
    finally:
        (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _table(out: Console) -> Iterator[Callable[[list[_Going], Path], None]]:
    """A function that shows how far the jobs are: a table that stays in place on a terminal, else lines."""
    told: dict[str, str] = {}

    def line(going: list[_Going], _: Path) -> None:
        for number, one in enumerate(going, start=1):
            if told.get(one.job.name) != one.state != "waiting":
                out.print(f"[{number}/{len(going)}] {one.job.title}: {one.state}")
            told[one.job.name] = one.state

    if not out.is_terminal:
        yield line
        return
    with Live(console=out, refresh_per_second=2) as live:

        def table(going: list[_Going], folder: Path) -> None:
            shown = Table("run", "state", "steps")
            for one in going:
                begun = [run for run in one.job.runs if (folder / "runs" / run).is_dir()]
                files = sorted((folder / "runs" / begun[-1] / "checkpoints").glob("step_*")) if begun else []
                steps = f"{int(files[-1].stem.removeprefix('step_')):,}" if files else ""
                shown.add_row(one.job.title, one.state, steps)
            live.update(shown)

        yield table
