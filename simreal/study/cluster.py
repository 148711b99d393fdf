"""Makes the runs of a study on the nodes of a Ray cluster, as many at a time as it has room for.

A node that sees the study's folder (a shared file system) works there, and a run whose node dies goes on from its last
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
from simreal.study.spec import Study, StudyArm
from simreal.training.run_config import RunConfig
from simreal.training.trainer import Interrupted, SignalHandler

Make = Callable[[Study, StudyArm, int, Path, Console], bool]
"""Makes what a run lacks in the folder of a study: (study, arm, seed, folder, console)."""

_RETRIES = 5  # of a run whose node has died
_LOOK_S = 1.0  # between two looks at what goes on
_TO_SAVE_S = 120.0  # for interrupted runs to save


@dataclass
class _Run:
    """One run of the study, on its way."""

    arm: StudyArm
    seed: int
    after: _Run | None  # the run that it continues
    state: str = "waiting"  # or running, done
    reference: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm.name}-{self.seed}"


def make_on_ray(
    study: Study, missing: list[tuple[StudyArm, int]], folder: Path, address: str, out: Console, make: Make
) -> Iterator[str]:
    """Make runs on a cluster; gives the name of each when it is finished.

    Args:
        study: whose runs they are.
        missing: runs that are not finished; an arm comes after the one that it continues.
        folder: of the study, which exists.
        address: of the cluster, or "local" to start one on this machine.
        out: where progress goes.
        make: makes a run.

    Raises:
        UserError: Ray is not installed or not to be reached, or a run met an error of the user.
        Interrupted: by SIGINT or SIGTERM; runs on a shared file system have saved.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs ray, which is not installed: pip install 'simreal[cluster]'")
    ray = importlib.import_module("ray")
    runs: dict[tuple[str, int], _Run] = {}
    for arm, seed in missing:
        after = runs.get((arm.continues, seed)) if arm.continues is not None else None
        runs[arm.name, seed] = _Run(arm, seed, after)
    with _connected(ray, address), _token(folder) as token, SignalHandler().listening() as stop, _table(out) as show:
        task = ray.remote(max_retries=_RETRIES)(_on_node)
        while any(run.state != "done" for run in runs.values()):
            for run in runs.values():
                if run.state == "waiting" and (run.after is None or run.after.state == "done"):
                    _submit(task, run, study, folder, token, make)
            show(list(runs.values()), folder)
            running = {run.reference: run for run in runs.values() if run.state == "running"}
            finished, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_S)
            if stop.requested:
                _cancel(ray, list(running))
                raise Interrupted("interrupted")
            for reference in finished:
                run = running[reference]
                try:
                    _bring_home(ray.get(reference), folder / "runs" / run.name)
                except ray.exceptions.RayError as error:
                    _cancel(ray, [other for other in running if other is not reference])
                    raise _told(run, error) from None
                run.state = "done"
                show(list(runs.values()), folder)
                yield run.name


def _submit(task: Any, run: _Run, study: Study, folder: Path, token: str, make: Make) -> None:
    """Hand a run to the cluster, with the resources that its configuration asks for."""
    config = run.arm.config
    gpu = config.device == "cuda" or config.engine == "gpu"
    resources = {"num_cpus": config.threads or 1, "num_gpus": 1 if gpu else 0}
    sources = [run.name, *([f"{run.arm.continues}-{run.seed}"] if run.arm.continues else [])]
    parts = [path for name in sources if (path := folder / "runs" / name).is_dir()]
    work = _Work(study, run.arm, run.seed, folder.resolve(), token, packed(parts), resources["num_cpus"], make)
    run.reference, run.state = task.options(**resources, name=run.name).remote(work), "running"


@dataclass
class _Work:
    """What a node is given."""

    study: Study
    arm: StudyArm
    seed: int
    folder: Path
    token: str
    parts: bytes  # runs that are there already, for nodes that do not see the folder
    threads: int
    make: Make


def _on_node(work: _Work) -> bytes | None:
    """Make a run on a node: in the study's folder, or elsewhere and return it packed."""
    quiet = Console(quiet=True)
    SignalHandler.one_signal_s = _TO_SAVE_S  # Ray repeats it until the run has saved
    arm = StudyArm(work.arm.name, work.arm.continues, _with_threads(work.arm.config, work.threads))
    with shared_by(max(available_threads() // work.threads, 1)):
        if (work.folder / work.token).is_file():
            work.make(work.study, arm, work.seed, work.folder, quiet)
            return None
        with tempfile.TemporaryDirectory(prefix="simreal-") as name:
            runs = Path(name) / "runs"
            runs.mkdir()
            unpack(work.parts, runs)
            work.make(work.study, arm, work.seed, Path(name), quiet)
            return packed([runs / f"{arm.name}-{work.seed}"])


def _with_threads(config: RunConfig, threads: int) -> RunConfig:
    return config if config.threads is not None else config.model_copy(update={"threads": threads})


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


def _bring_home(archive: bytes | None, run: Path) -> None:
    """Put a run that was made elsewhere in its place, whole."""
    if archive is None:
        return
    with tempfile.TemporaryDirectory(dir=run.parent) as name, new_folder(run) as new:
        unpack(archive, Path(name))
        for path in (Path(name) / run.name).iterdir():
            path.rename(new / path.name)


def _cancel(ray: Any, references: list[Any]) -> None:
    """Have runs save and end."""
    for reference in references:
        ray.cancel(reference)
    if references:
        ray.wait(references, num_returns=len(references), timeout=_TO_SAVE_S)


def _told(run: _Run, error: Any) -> Exception:
    """What the user is told of a run that failed."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Interrupted):
        return Interrupted(f"{run.name}: {cause}")
    said = " ".join(str(cause or error).split())
    return UserError(f"{run.name}: {said[:500]}") if isinstance(cause, (UserError, ValueError)) else error


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
def _table(out: Console) -> Iterator[Callable[[list[_Run], Path], None]]:
    """A function that shows how far the runs are: a table that stays in place on a terminal, else lines."""
    told: dict[str, str] = {}

    def line(runs: list[_Run], _: Path) -> None:
        for number, run in enumerate(runs, start=1):
            if told.get(run.name) != run.state != "waiting":
                out.print(f"[{number}/{len(runs)}] {run.arm.name}, seed {run.seed}: {run.state}")
            told[run.name] = run.state

    if not out.is_terminal:
        yield line
        return
    with Live(console=out, refresh_per_second=2) as live:

        def table(runs: list[_Run], folder: Path) -> None:
            shown = Table("arm", "seed", "state", "steps")
            for run in runs:
                files = sorted((folder / "runs" / run.name / "checkpoints").glob("step_*"))
                steps = f"{int(files[-1].stem.removeprefix('step_')):,}" if files else ""
                shown.add_row(run.arm.name, str(run.seed), run.state, steps)
            live.update(shown)

        yield table
