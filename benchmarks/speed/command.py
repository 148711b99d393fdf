"""What is measured, in order, and how it is shown."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.off_policy import bench_off_policy
from benchmarks.speed.on_policy import bench_on_policy
from benchmarks.speed.pictures import bench_frames, bench_rendering
from benchmarks.speed.safety import bench_safety
from benchmarks.speed.sampling import bench_adr
from benchmarks.speed.stepping import bench_adapter, bench_stepping
from benchmarks.speed.timing import Row
from benchmarks.speed.training_loop import bench_loop
from envs.platform.menagerie import ModelUnavailableError
from envs.platform.processors import available_threads
from envs.registry import task_ids
from simreal.common.atomic_files import write_text
from simreal.common.errors import UserError

_STEPPING: tuple[tuple[str, bool, tuple[int, ...]], ...] = (  # task, every quantity, environments
    ("FetchReach-v4", False, (64, 256)),
    ("FetchPush-v4", False, (64, 256)),
    ("HalfCheetah-v5", False, (512, 1024)),
    ("Ant-v5", False, (256, 512)),
    ("Humanoid-v5", False, (256, 512)),
    ("Go1Velocity-v0", False, (256, 1024, 2048)),
    ("HandManipulateBlock-v1", False, (256,)),
    ("AllegroCube-v0", False, (256,)),
    ("FetchPush-v4", True, (64, 256)),
    ("Ant-v5", True, (64, 256)),
    ("HandManipulateBlock-v1", True, (64, 256)),
    ("AllegroCube-v0", True, (64, 256)),
)
_ADAPTED = ("HalfCheetah-v5", "FetchPush-v4")
_PICTURED = ("FetchPush-v4", "HalfCheetah-v5")


Measured = TypeVar("Measured", covariant=True)


@dataclass(frozen=True)
class Case(Generic[Measured]):
    """Something to measure: its name, and what measures it."""

    name: str
    measure: Callable[[], Measured]


Rows = Row | Sequence[Row] | None  # None: what it is compared with is not installed


def cases(quick: bool) -> list[Case[Rows]]:
    """Everything that can be measured with the tasks that there are."""
    steps, rounds = (60, 6) if quick else (300, 30)
    found: list[Case[Rows]] = [
        Case(f"{task} {n} {'everything' if every else 'usual'}", partial(bench_stepping, task, n, every, steps))
        for task, every, counts in _STEPPING
        if task in task_ids()
        for n in counts
    ]
    found += [Case(f"gymnasium:{env_id}", partial(bench_adapter, env_id, 64, steps)) for env_id in _ADAPTED]
    found += [Case(f"{name} updates", partial(bench_off_policy, name, rounds)) for name in ("sac", "ddpg")]
    found += [
        Case("ppo updates 512", partial(bench_on_policy, 512, (128, 128), rounds)),
        Case("ppo updates 4096", partial(bench_on_policy, 4096, (512, 256, 128), max(2, rounds // 6))),
        Case("ppo loop go1_velocity", partial(bench_loop, "go1_velocity", 3 if quick else 20)),
        Case("safety ppo", partial(bench_safety, "go1_velocity", 3 if quick else 20)),
        Case("safety sac", partial(bench_safety, "fetch_reach", 20 if quick else 300)),
        Case("safety full replay", partial(bench_safety, "hand_reach", 3 if quick else 20)),
        Case("adr", partial(bench_adr, rounds)),
    ]
    found += [Case(f"{task} pictures", partial(bench_rendering, task, rounds)) for task in _PICTURED]
    found += [Case(f"{task} frames", partial(bench_frames, task, 5.0 if quick else 30.0)) for task in _PICTURED]
    return found


def chosen(every: Sequence[Case[Measured]], pattern: str | None) -> list[Case[Measured]]:
    """Those whose name matches a pattern or contains it, whatever the case. Raises UserError if none does."""
    if pattern is None:
        return list(every)
    wanted = pattern.lower()
    found = [c for c in every if fnmatch.fnmatchcase(c.name.lower(), wanted) or wanted in c.name.lower()]
    if not found:
        raise UserError(f"--only {pattern}: nothing of that name; there are: {', '.join(c.name for c in every)}")
    return found


def bench_command(json_file: Path | None, quick: bool, out: Console, only: str | None = None) -> None:
    """Print the table, write the JSON. Raises UserError if the file cannot be written."""
    from simreal.common.json_io import write_target

    todo = chosen(cases(quick), only)
    target = None if json_file is None else write_target(json_file, ".json")
    torch.set_num_threads(available_threads())
    rows: list[Row] = []
    for case in todo:
        out.print(f"{case.name} ...", style="dim", highlight=False)
        try:
            measured = case.measure()
        except (UserError, ModelUnavailableError) as error:
            out.print(f"not measured: {error}")
            continue
        if measured is None:
            out.print("not measured: what it is compared with is not installed (pip install 'simreal[test]')")
            continue
        rows += [measured] if isinstance(measured, Row) else measured
    out.print(results_table(rows))
    if any(row.ratio is None for row in rows):
        out.print(shares_table([row for row in rows if row.ratio is None]))
    if target is not None:
        document = {"threads": available_threads(), "results": [row.as_dict() for row in rows]}
        write_text(target, json.dumps(document, indent=2) + "\n")


def results_table(rows: Sequence[Row]) -> Table:
    """The comparisons, for people."""
    title = f"Ratios to the reference, {available_threads()} processors; higher is better"
    table = Table(title=title, title_justify="left", header_style="bold")
    columns = ("what", "ratio", "with resets", "same worlds", "randomization", "per second", "reference", "of")
    for column in columns:
        table.add_column(column, justify="left" if column in ("what", "of") else "right")
    for row in rows:
        if row.ratio is None or row.reference_per_s is None:
            continue
        share = (row.shares or {}).get("randomization")
        table.add_row(
            row.name, _number(row.ratio), _number(row.ratio_with_resets), _number(row.ratio_same_worlds),
            "" if share is None else f"{share:.0%}", _speed(row.ours_per_s), _speed(row.reference_per_s), row.reference,
        )  # fmt: skip
    return table


def shares_table(rows: Sequence[Row]) -> Table:
    """Where the wall time of loops goes, for people."""
    table = Table(title="Shares of the wall time", title_justify="left", header_style="bold")
    names = list(dict.fromkeys(name for row in rows for name in row.shares or {}))
    for column in ("what", *names, "steps per second"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        shares = row.shares or {}
        table.add_row(
            row.name, *(_share(shares[name]) if name in shares else "" for name in names), _speed(row.ours_per_s)
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.1 else f"{value:.2%}"


def _speed(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"
