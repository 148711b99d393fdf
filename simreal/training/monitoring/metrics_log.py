"""What a run writes down: metrics.csv and adr.csv, and what its loggers are told."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from pathlib import Path
from types import TracebackType

from randomization.samplers.adr import ADR
from randomization.samplers.base import Sampler
from simreal.common.atomic_files import write_text, writing
from simreal.common.errors import UserError
from simreal.training.monitoring.curriculum import concerns_of
from simreal.training.monitoring.loggers import Loggers
from simreal.training.run_config import RunConfig


class CsvLog:
    """A CSV table that grows by rows; a column that first appears later is added to the header.

    Args:
        path: the file; an existing one is continued, without rows beyond `resume_step` and what a crash cut off.
        resume_step: value of the first column up to which rows are kept; 0 starts a new table.

    Raises (also `write`):
        UserError: the disk refuses.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        self._path = path
        self._columns: list[str] = []
        rows: list[list[str]] = []
        if resume_step > 0 and path.is_file():
            self._columns, rows = _read(path)
            rows = [row for row in rows if int(row[0]) <= resume_step]
        self._rewrite(rows)

    def write(self, row: dict[str, float | int]) -> None:
        """Append a row; the next process sees it whole or not at all."""
        new = [name for name in row if name not in self._columns]
        if new:
            _, rows = _read(self._path)
            self._columns += new
            self._rewrite([cells + [""] * len(new) for cells in rows])
        cells = [row.get(name, "") for name in self._columns]
        line = _csv([[f"{cell:.9g}" if isinstance(cell, float) else str(cell) for cell in cells]])
        with writing(self._path), self._path.open("ab") as file:
            file.write(line.encode())

    def columns(self) -> dict[str, list[float]]:
        """The whole table; empty cells are NaN."""
        return read_columns(self._path)

    def sync(self) -> None:
        """Bring the table to the disk."""
        with writing(self._path), self._path.open("ab") as file:
            os.fsync(file.fileno())

    def _rewrite(self, rows: list[list[str]]) -> None:
        write_text(self._path, _csv([self._columns, *rows]) if self._columns else "")


def read_columns(path: Path) -> dict[str, list[float]]:
    """The whole rows of a table, by column; empty cells are NaN. None if there is no file."""
    names, rows = _read(path) if path.is_file() else ([], [])
    return {name: [float(row[i] or "nan") for row in rows] for i, name in enumerate(names)}


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and whole rows."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    table = list(csv.reader(io.StringIO(whole.decode(errors="replace"), newline="")))
    header = table[0] if table else []
    return header, [row for row in table[1:] if len(row) == len(header) and row[0].isascii() and row[0].isdigit()]


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def bounds_of(sampler: Sampler) -> dict[str, float | int]:
    """What adr.csv says of a sampler: its entropy, its ranges, and how the last episodes at their ends went."""
    bounds: dict[str, float | int] = {"entropy_npd": sampler.entropy()}
    for i, parameter in enumerate(sampler.parameters):
        bounds[f"{parameter.name}.lower"] = float(sampler.lower[i])
        bounds[f"{parameter.name}.upper"] = float(sampler.upper[i])
    if isinstance(sampler, ADR):
        for i, parameter in enumerate(sampler.parameters):
            for side, k in (("lower", 2 * i), ("upper", 2 * i + 1)):
                judged = float(sampler.judged[k]) if sampler.decisions[k] else math.nan
                bounds[f"{parameter.name}.{side}_performance"] = judged
    return bounds


JUDGED = "judged.csv"  # in a run's directory: how its policy did when it was judged
_LOOKS = 20  # at the curriculum, in a whole run


class RunLog:
    """The logs of a run, written together.

    Args:
        run: the run directory.
        sampler: its bounds go to adr.csv.
        resume_step: environment steps at which a resumed run continues; 0 for a new run.
        config: of the run.
    """

    def __init__(self, run: Path, sampler: Sampler, resume_step: int, config: RunConfig) -> None:
        self._sampler, self._run, self._counts = sampler, run, config.learner.COUNTS
        total = config.learner.run_length(config.train.env_steps)
        self._loggers = Loggers(config.train.loggers, run, config.model_dump(mode="json"), resume_step)
        self._metrics = CsvLog(run / "metrics.csv", resume_step)
        self._adr = CsvLog(run / "adr.csv", resume_step)
        self._total = total
        self._said: set[str] = set()  # concerns
        self._looks = resume_step * _LOOKS // total

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._loggers.close(more=error is None)
        except UserError:
            if error is None:
                raise

    def write(self, env_steps: int, metrics: dict[str, float]) -> list[str]:
        """One row of metrics.csv and adr.csv, and their values to the loggers.

        Returns:
            What ails the curriculum and has not been said, now and then.

        Raises:
            UserError: the disk refuses.
        """
        self._metrics.write({self._counts: env_steps, **metrics})
        bounds = {self._counts: env_steps, **bounds_of(self._sampler)}
        self._adr.write(bounds)
        shown = {f"train/{name}": value for name, value in metrics.items()}
        shown |= {f"adr/{name.replace('.', '/')}": value for name, value in list(bounds.items())[1:]}
        self._loggers.write(env_steps, shown)
        return self._concerns(env_steps)

    def _concerns(self, env_steps: int) -> list[str]:
        before, self._looks = self._looks, env_steps * _LOOKS // self._total
        if self._looks == before:
            return []
        tables = self._adr.columns(), self._metrics.columns(), read_columns(self._run / JUDGED)
        found = concerns_of(self._sampler, *tables, self._total)
        new = [concern for concern in found if concern.kind not in self._said]
        self._said |= {concern.kind for concern in new}
        return [concern.text for concern in new]

    def sync(self) -> None:
        """Bring the tables to the disk: a checkpoint must not be ahead of them."""
        self._metrics.sync()
        self._adr.sync()


class NoLog(contextlib.AbstractContextManager[None]):
    """What ranks other than the first have in place of a `RunLog`."""

    def __exit__(self, *_: object) -> None:
        return None

    def write(self, env_steps: int, metrics: dict[str, float]) -> list[str]:
        """Nothing."""
        return []

    def sync(self) -> None:
        """Nothing."""
