"""What a run writes down: metrics.csv, adr.csv and TensorBoard events."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard.writer import SummaryWriter

from randomization.samplers import Sampler


class CsvLog:
    """A CSV table that grows by rows; a column that first appears later is added to the header.

    Args:
        path: the file; an existing one is continued, without rows beyond `resume_step`.
        resume_step: value of the first column up to which rows are kept; None starts a new table.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self._path = path
        self._columns: list[str] = []
        rows: list[dict[str, str]] = []
        if resume_step is not None and path.is_file():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self._columns = list(reader.fieldnames or [])
                rows = [row for row in reader if int(row[self._columns[0]]) <= resume_step]
        self._rewrite(rows)

    def write(self, row: dict[str, float | int]) -> None:
        """Append a row and flush it."""
        new = [name for name in row if name not in self._columns]
        if new:
            with self._path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self._columns += new
            self._rewrite(rows)
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(
                {key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()}
            )

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with self._path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            if self._columns:
                writer.writeheader()
            writer.writerows(rows)


class RunLog:
    """The three logs of a run, written together.

    Args:
        run: the run directory.
        sampler: its bounds go to adr.csv.
        resume_step: environment steps at which a resumed run continues; None for a new run.
    """

    def __init__(self, run: Path, sampler: Sampler, resume_step: int | None) -> None:
        self._sampler = sampler
        self._metrics = CsvLog(run / "metrics.csv", resume_step)
        self._adr = CsvLog(run / "adr.csv", resume_step)
        self._board = SummaryWriter(str(run), purge_step=resume_step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._board.close()

    def write(self, env_steps: int, metrics: dict[str, float]) -> None:
        """One row of metrics.csv and adr.csv, and the same to TensorBoard."""
        self._metrics.write({"env_steps": env_steps, **metrics})
        bounds: dict[str, float | int] = {"env_steps": env_steps, "entropy_npd": self._sampler.entropy()}
        for i, parameter in enumerate(self._sampler.parameters):
            bounds[f"{parameter.name}.lower"] = float(self._sampler.lower[i])
            bounds[f"{parameter.name}.upper"] = float(self._sampler.upper[i])
        self._adr.write(bounds)
        for name, value in metrics.items():
            self._board.add_scalar(f"train/{name}", value, env_steps)
        for name, value in list(bounds.items())[1:]:
            self._board.add_scalar(f"adr/{name.replace('.', '/')}", value, env_steps)
        self._board.flush()
